"""Checkpoint files that survive a kill, a full disk and a flipped bit: written whole, and verified by their names.

A file is called ``<iteration>-<first 16 digits of its SHA-256>.pt``. It is written to a temporary sibling, synced and
renamed; the oldest ones are deleted only after that. So at every moment the newest whole file is a good checkpoint, and
no second file has to agree with it. Imports neither torch nor MONAI: the content is up to the caller.
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
        folder: of the checkpoints of one run only; created when it is missing.
        iteration: number of iterations done.
        content: the bytes of the file.
        n_saved: number of checkpoints to keep, at least 2, so that one is left when the newest is damaged.

    Returns:
        Path of the file.

    Raises:
        ValueError: if `n_saved` is less than 2.
        OSError: if the disk is full or fails; earlier checkpoints are whole, and named if space is lacking.

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
    path = folder / f"{iteration:010d}-{_digest(content)}.pt"
    for stale in folder.glob(".*.pt.*.part"):  # left by a kill in the middle of a save
        stale.unlink(missing_ok=True)
    try:
        write_bytes(path, content)
    except OSError as error:
        if error.errno not in FULL:
            raise
        last = _newest_first(folder)
        good = f"the last good checkpoint is {last[0].name}" if last else "there is no checkpoint yet"
        raise NoSpaceError(
            error.errno,
            f"no space for a checkpoint in {folder}: {len(content) / 1e6:.1f} MB are needed, "
            f"{shutil.disk_usage(folder).free / 1e6:.1f} MB are free; {good}; make room and run the same command again",
        ) from error
    for old in _newest_first(folder)[n_saved:]:
        old.unlink(missing_ok=True)
    return path


def newest_checkpoint(folder: str | Path) -> tuple[Path, bytes] | None:
    """The newest whole checkpoint, and its bytes; None when there never was one.

    A file whose bytes do not fit its name is skipped, with a warning.

    Raises:
        ValueError: if there are checkpoints, but none is whole.
    """
    paths = _newest_first(Path(folder))
    for path in paths:
        content = path.read_bytes() if path.is_file() else b""
        if path.name[11:27] == _digest(content):
            return path, content
        logger.warning(
            f"{path} is truncated or was altered: its bytes do not fit the checksum in its name; taking the one before"
        )
    if paths:
        raise ValueError(
            f"none of the {len(paths)} checkpoints in {folder} is whole; restore one from a backup, or remove them to "
            f"start again (the newest is {paths[0].name})"
        )
    return None


def _newest_first(folder: Path) -> list[Path]:
    """Checkpoints only, without temporary and other files."""
    paths = [path for path in folder.glob("*.pt") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (int(path.name[:10]), path.stat().st_mtime_ns), reverse=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
