"""One run in one output folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path
from typing import IO

__all__ = ["LOCK_FILE", "lock_folder", "unlock_folder"]

logger = logging.getLogger("monai_simclr")

LOCK_FILE = ".lock"

_held: dict[Path, IO[str]] = {}


def lock_folder(folder: str | Path) -> None:
    """Hold a folder for this process; a process that holds it already goes on holding it.

    The kernel gives the lock back when the process ends, also after SIGKILL, so there are no stale locks to remove. On
    Windows, which has no `flock`, and on file systems without it, nothing is held.

    Args:
        folder: made when it is missing.

    Raises:
        FileExistsError: if another process holds the folder (says which).
        PermissionError: if the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> lock_folder(folder); lock_folder(folder); unlock_folder(folder)
    """
    try:
        import fcntl
    except ImportError:
        return
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if folder in _held:
        return
    file = open(folder / LOCK_FILE, "a+", encoding="utf-8")  # noqa: SIM115 (open means held)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise FileExistsError(
            f"{holder} is working in {folder}; wait until it has ended, or pass another --output_dir"
        ) from None
    except OSError as error:
        logger.warning(f"{folder} is on a file system without locks ({error}); take care that no other run works in it")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    _held[folder] = file


def unlock_folder(folder: str | Path) -> None:
    """Give a folder back; nothing happens if this process does not hold it."""
    file = _held.pop(Path(folder).resolve(), None)
    if file is not None:
        file.close()
