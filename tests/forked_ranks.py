"""``python -m forked_ranks`` is torchrun whose ranks are forks: torch's own launcher, agent, rendezvous and variables.

For a `Forked` command, whose process has imported MONAI already; ranks of torchrun import it again, each of them.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

from torch.distributed import run as torchrun


def _rank(*words: str) -> None:
    sys.argv = list(words)
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:  # the launcher waits for a result where the code is 0
        if end.code:
            raise


class _Launch(torchrun.elastic_launch):
    def __init__(self, config: Any, entrypoint: object) -> None:
        config.start_method = "fork"
        super().__init__(config, _rank)

    def __call__(self, *words: str) -> Any:
        return super().__call__(*words[words.index("-m") + 1 :])


if __name__ == "__main__":
    torchrun.elastic_launch = _Launch
    torchrun.main(sys.argv[1:])
