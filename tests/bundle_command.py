"""The command line of a bundle's config, as a user types it; by torchrun where there are several ranks.

A process that imports MONAI needs seconds before it does anything. `Forked` runs a command in a fork of a process that
has imported everything, with its own exit code, signals and output; a few tests start new processes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_SERVER = """
import gc, json, os, pkgutil, runpy, sys
import monai.bundle, monai_simclr
sys.path.append(sys.argv[1])
for module in pkgutil.walk_packages(monai_simclr.__path__, "monai_simclr."):
    if not module.name.startswith(("monai_simclr.__main__", "monai_simclr.cli", "monai_simclr.bundles")):
        __import__(module.name)
gc.freeze()  # else the last collection of each fork, of all that is imported, is 2 s of its time
print("ready", flush=True)
for line in sys.stdin:
    if child := os.fork():
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.setsid()
    call = json.loads(line)
    for number, path in enumerate((os.devnull, call["stdout"], call["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY), number)
    os.chdir(call["folder"])
    os.environ.update(call["environment"])
    sys.argv = call["words"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    break
"""


def bundle_command(config: str, *more: str, ranks: int = 1, launcher: str = "torch.distributed.run") -> list[str]:
    launch = ["-m", launcher, "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    return [sys.executable, "-W", "ignore", *launch, "-m", "monai.bundle", "run", "--config_file", config, *more]


@functools.cache
def _server() -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "ignore", "-c", _SERVER, str(Path(__file__).parent)]
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


class Forked:
    """``python -W ignore -m MODULE ...`` in a fork, one at a time; like a `subprocess.Popen`.

    Attributes:
        pid: of the command, and of its process group.
        returncode: None until `communicate` has returned.
    """

    def __init__(self, folder: Path, output: Path, command: list[str], **environment: str) -> None:
        """Args: the folder to be in, one for what is printed, a command as of `bundle_command`, more variables."""
        self._printed = [output / "stdout", output / "stderr"]
        call: dict[str, Any] = dict(zip(("stdout", "stderr"), map(str, self._printed), strict=True))
        words = command[command.index("-m") + 1 :]
        call |= {"folder": str(folder), "environment": environment, "words": words}
        server = _server()
        assert server.stdin is not None
        print(json.dumps(call), file=server.stdin, flush=True)
        self.returncode: int | None = None
        self.pid = self._answer()

    def _answer(self) -> int:
        server = _server()
        assert server.stdout is not None
        try:
            return int(server.stdout.readline())
        except BaseException:  # a time limit: the next command needs a server that has not begun with this one
            server.kill()
            _server.cache_clear()
            raise

    def poll(self) -> int | None:
        """None while it runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return self.returncode or 0
        return None

    def communicate(self) -> tuple[str, str]:
        """Wait for the end; what was printed to stdout and stderr."""
        try:
            self.returncode = self._answer()
        except BaseException:
            self.kill()
            raise
        said = [path.read_text(encoding="utf-8", errors="backslashreplace") for path in self._printed]
        return said[0], said[1]

    def kill(self) -> None:
        """End it and what it started, if it still runs."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
