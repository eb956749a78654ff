"""One process at a time, by `filelock`: the system gives a lock back when its owner ends, however it ends."""

from __future__ import annotations

import errno
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

logger = logging.getLogger("monai_simclr")

LOCK_FILE = ".lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_held: dict[Path, FileLock] = {}


def try_lock(handle: int) -> bool:
    """Lock the open file of a number; False if another process has it, or another opening of it in this process.

    Closing the file gives it back. On a file system without locks a warning is logged, and nothing is locked.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as first, open(first.name) as second:
        ...     try_lock(first.fileno()), try_lock(second.fileno())
        (True, False)
    """
    try:
        return lock_descriptor(handle, blocking=False)
    except OSError as error:
        _warn(error)
        return True


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: the lock's file, created when it is missing. Its owner may remove it.
        what: what is locked, for the error.

    Raises:
        FileExistsError: at once, if another process holds it (names the process and its host).
    """
    lock = _acquire(path, f"{{}} is at work on {what}; wait for it, or stop it and run this again")
    try:
        yield
    finally:
        lock.release()


def lock_folder(folder: str | Path, wait: float = 0.0) -> None:
    """Hold a folder for this process; a second call in the same process changes nothing.

    Args:
        folder: created when it is missing.
        wait: seconds that another process is waited for; -1 waits until it has ended.

    Raises:
        FileExistsError: if another process holds the folder (names the process and its host).
        PermissionError: if the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> lock_folder(folder); lock_folder(folder); unlock_folder(folder)
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if folder not in _held:
        refusal = f"{{}} is working in {folder}; wait until it has ended, or pass another --output_dir"
        _held[folder] = _acquire(folder / LOCK_FILE, refusal, wait)


def unlock_folder(folder: str | Path) -> None:
    """Give a folder back; nothing happens if this process does not hold it."""
    lock = _held.pop(Path(folder).resolve(), None)
    if lock is not None:
        lock.release()


def _acquire(path: Path, refusal: str, wait: float = 0.0) -> FileLock:
    """Lock a file and write the holder into it."""
    lock = FileLock(path, timeout=wait, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        holder = ""
        with suppress(OSError):
            holder = path.read_text(errors="replace").strip()
        raise FileExistsError(refusal.replace("{}", holder or "another process", 1)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _warn(error)
        return lock
    path.write_text(f"process {os.getpid()} on {platform.node()}")
    return lock


def _warn(error: OSError) -> None:
    logger.warning(f"this file system has no locks ({error.strerror}); make sure that only one process is at work")
