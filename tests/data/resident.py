"""The most memory that a process had, from the kernel (Linux).

Not `getrusage`: its highest value is inherited from the process that forked this one, so that a child of a large one
seems large from its first instruction, and whatever it takes up to there is not seen.
"""

from __future__ import annotations

from pathlib import Path


def peak_kib() -> int:
    """Highest resident memory of this process in KiB, since it began or since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def forget_peak() -> None:
    """Let the highest be what is there now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
