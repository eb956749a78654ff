"""Checkpoint files that survive a kill, a full disk and a flipped bit: written whole, checked by their own name.

A file is called ``<iteration>-<first 16 digits of its SHA-256>.pt``. It is written to a temporary sibling, synced and
renamed; the oldest ones are deleted only after that. So at every moment the newest whole file is a good checkpoint, and
no second file has to agree with it. Imports neither torch nor MONAI: what is inside is up to the caller.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from pathlib import Path

from monai_simclr.runtime.files import FULL, NoSpaceError, write_bytes

logger = logging.getLogger("monai_simclr.training")

_NAME = re.compile(r"(\d{10})-([0-9a-f]{16})\.pt")


def save_checkpoint(folder: str | Path, iteration: int, content: bytes, n_saved: int = 3) -> Path:
    """Write a checkpoint, whole or not at all, then delete all but the newest.

    Args:
        folder: where the checkpoints of one run are, and which no other run writes to; made when it is missing.
        iteration: how many iterations are done.
        content: the bytes of the file.
        n_saved: how many checkpoints are kept, at least 2: the one before a bad one must be there.

    Returns:
        Path of the file.

    Raises:
        ValueError: if `n_saved` is less than 2.
        OSError: if the disk is full or fails; the checkpoints that were there are whole, and named if space is lacking.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> save_checkpoint(folder, 7, b"weights").name
        '0000000007-9a129038d9a00aed.pt'
        >>> newest_checkpoint(folder)[1]
        b'weights'
    """
    if n_saved < 2:
        raise ValueError(
            f"n_saved must be at least 2, got {n_saved}; the checkpoint before a damaged one must be there"
        )
    folder = Path(folder)
    path = folder / f"{iteration:010d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    for stale in folder.glob(".*.pt.*.part"):  # what a kill in the middle of a save left
        stale.unlink(missing_ok=True)
    try:
        write_bytes(path, content)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NoSpaceError(error.errno, _no_space(folder, len(content))) from error
    for old in _in_order(folder)[n_saved:]:
        old.unlink(missing_ok=True)
    return path


def newest_checkpoint(folder: str | Path) -> tuple[Path, bytes] | None:
    """The newest checkpoint that is whole, and its bytes; None when there never was one.

    A file whose bytes do not fit its name is named in the log, and the one before it is taken.

    Raises:
        ValueError: if there are checkpoints, but not one is whole.
    """
    found = _in_order(Path(folder))
    for path in found:
        content = path.read_bytes() if path.is_file() else b""
        if path.name == f"{_iteration(path):010d}-{hashlib.sha256(content).hexdigest()[:16]}.pt":
            return path, content
        logger.warning(
            f"{path} is truncated or was altered: its bytes do not fit the checksum in its name; taking the one before"
        )
    if found:
        raise ValueError(
            f"none of the {len(found)} checkpoints in {folder} is whole; restore one from a backup, or remove them to "
            f"start again (the newest is {found[0].name})"
        )
    return None


def _in_order(folder: Path) -> list[Path]:
    """Checkpoints, the newest first; temporary files and strangers are not among them."""
    found = [path for path in folder.glob("*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (_iteration(path), path.stat().st_mtime_ns), reverse=True)


def _iteration(path: Path) -> int:
    return int(path.name[:10])


def _no_space(folder: Path, needed: int) -> str:
    last = _in_order(folder)
    good = f"the last good checkpoint is {last[0].name}" if last else "there is no checkpoint yet"
    free = shutil.disk_usage(folder).free
    return (
        f"no space for a checkpoint in {folder}: {needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free; "
        f"{good}; make room and run the same command again"
    )
