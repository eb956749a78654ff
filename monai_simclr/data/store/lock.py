"""One process at a time: a lock that the system gives back when its owner dies, however it dies."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["locked"]

logger = logging.getLogger("monai_simclr.data")


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: the lock's file; made when it is missing. Its owner may remove it.
        what: what is locked, for the error.

    Raises:
        FileExistsError: at once, if another process holds it (says which).
    """
    handle = _open(path, what)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(handle)


def _open(path: Path, what: str) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _take(handle):
            holder = os.read(handle, 200).decode(errors="replace") or "another process"
            os.close(handle)
            raise FileExistsError(f"{holder} is at work on {what}; wait for it, or stop it and run this again")
        # the owner before may have removed the file between our open and our lock: then this lock is nobody's
        if path.exists() and os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
        os.close(handle)


def _take(handle: int) -> bool:
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
