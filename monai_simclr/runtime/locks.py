"""One process at a time: locks that the system gives back when their owner ends, however it ends."""

from __future__ import annotations

import errno
import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger("monai_simclr")

LOCK_FILE = ".lock"

_held: dict[Path, int] = {}


def try_lock(handle: int) -> bool:
    """Lock an open file for this process, by `flock`; closing the file gives it back.

    Where there are no locks (Windows, some network file systems) a warning says so, and nothing is locked.

    Args:
        handle: number of the open file.

    Returns:
        False if another process has it, or another opening of the file in this process.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as first, open(first.name) as second:
        ...     take(first.fileno()), take(second.fileno())
        (True, False)
    """
    try:
        import fcntl
    except ImportError:  # Windows
        logger.warning("this system has no flock; see that only one process is at work")
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        logger.warning(f"this file system knows no locks ({error.strerror}); see that only one process is at work")
    return True


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: the lock's file; made when it is missing. Its owner may remove it.
        what: what is locked, for the error.

    Raises:
        FileExistsError: at once, if another process holds it (says which).
    """
    handle = _opened(path, lambda holder: f"{holder} is at work on {what}; wait for it, or stop it and run this again")
    try:
        yield
    finally:
        os.close(handle)


def lock_folder(folder: str | Path) -> None:
    """Hold a folder for this process; a process that holds it already goes on holding it.

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
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if folder not in _held:
        _held[folder] = _opened(
            folder / LOCK_FILE,
            lambda holder: f"{holder} is working in {folder}; wait until it has ended, or pass another --output_dir",
        )


def unlock_folder(folder: str | Path) -> None:
    """Give a folder back; nothing happens if this process does not hold it."""
    handle = _held.pop(Path(folder).resolve(), None)
    if handle is not None:
        os.close(handle)


def _opened(path: Path, refusal: Callable[[str], str]) -> int:
    """Open and lock a file, and write into it who holds it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not try_lock(handle):
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise FileExistsError(refusal(holder))
        # the owner before may have removed the file between our open and our lock: then this lock is nobody's
        if path.exists() and os.path.samestat(os.fstat(handle), os.stat(path)):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
            return handle
        os.close(handle)
