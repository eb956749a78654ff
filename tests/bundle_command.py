"""The command line of a bundle's config, as a user types it; by torchrun where there are several ranks."""

from __future__ import annotations

import sys


def bundle_command(config: str, *more: str, ranks: int = 1) -> list[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    return [sys.executable, "-W", "ignore", *launch, "-m", "monai.bundle", "run", "--config_file", config, *more]
