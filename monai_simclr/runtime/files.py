"""Whole-or-nothing writes, and checksums of what was written.

A reader of one of our files sees the old bytes or the new ones, never a part: every output is written to a temporary
sibling, flushed to the disk and renamed. An error of a full disk, or of one that cannot be written, names the file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from monai_simclr.runtime.names import encodable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, a quota is used up, or the file is larger than it may be."""

LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM)
"""The file system is mounted read-only, or we may not write to the folder."""

_FULL_IN_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|os error (?:28|122|27)|errno = (?:28|122|27)"
    r"|PytorchStreamWriter failed|database or disk is full"
)
"""What torch, safetensors, HDF5 and SQLite make of `FULL`; only the words are left."""

_KINDS = {"d": "a folder", "p": "a named pipe", "s": "a socket", "c": "a device", "b": "a device"}


class NoSpaceError(OSError):
    """There is no room for a file; the message names the file and what it needs."""


def lacks_space(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that a disk is full.

    Example:
        >>> lacks_space(OSError(errno.EDQUOT, "Disk quota exceeded")), lacks_space(ValueError("no rows"))
        (True, False)
        >>> lacks_space(RuntimeError("PytorchStreamWriter failed writing file data/7: file write failed"))
        True
    """
    return any(
        (isinstance(cause, OSError) and cause.errno in FULL) or _FULL_IN_WORDS.search(str(cause))
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> list[BaseException]:
    """An error and those that it was raised from."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return causes


@contextlib.contextmanager
def writing(path: str | Path, needed: int = 0) -> Iterator[None]:
    """Name the file, or the folder, in an error of what is written within the block.

    Args:
        path: what is written.
        needed: bytes that it needs, as far as known.

    Raises:
        NoSpaceError: if there is no room, whatever library noticed it (says what is needed and what is free).
        PermissionError: if it cannot be written, as on a read-only mount.

    Example:
        >>> with writing("models/a.pt"):
        ...     raise OSError(errno.EROFS, "Read-only file system")
        Traceback (most recent call last):
        PermissionError: [Errno 30] models/a.pt cannot be written (Read-only file system); name a folder that can be
    """
    try:
        yield
    except Exception as error:
        _name_file(error, Path(path), needed)
        raise


def _name_file(error: Exception, path: Path, needed: int) -> None:
    """Raise an error about a full or locked disk again, with the file's name; do nothing about any other error."""
    named = any(isinstance(cause, NoSpaceError) for cause in _causes(error))  # MONAI wraps what a config raises
    if named or (str(path) in str(error) and isinstance(error, PermissionError)):
        return
    if lacks_space(error):
        number = error.errno if isinstance(error, OSError) and error.errno in FULL else errno.ENOSPC
        needs = f"{needed / 1e6:.1f} MB or more are needed, " if needed else ""
        free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free
        raise NoSpaceError(
            number,
            f"no space for {path} ({os.strerror(number)}): {needs}{free / 1e6:.1f} MB are free on its disk; "
            "make room and run the same command again",
        ) from error
    if isinstance(error, OSError) and error.errno in LOCKED:
        if error.filename and Path(str(error.filename)).parent != path.parent:
            return
        raise PermissionError(
            error.errno, f"{path} cannot be written ({os.strerror(error.errno)}); name a folder that can be"
        ) from error


@contextlib.contextmanager
def write_atomically(path: str | Path, needed: int = 0) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to, and rename it to `path` when the block ends without an error.

    Missing folders are created. The block must close what it opens there. After an error, `path` is as it was and no
    temporary file stays.

    Raises:
        NoSpaceError: as `writing` does, which also has the arguments.
        PermissionError: as `writing` does.
        FileExistsError: if `path` is a folder.

    Example:
        >>> target = Path(tempfile.mkdtemp()) / "out.txt"
        >>> with write_atomically(target) as part:
        ...     _ = part.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    if path.is_dir():
        raise FileExistsError(
            f"{path} is a folder, and a file of that name is to be written; move it, or choose another name"
        )
    with writing(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    part = Path(name)
    try:
        yield part
        sync(part)
        os.umask(mask := os.umask(0))
        part.chmod(0o666 & ~mask)
        os.replace(part, path)
    except Exception as error:
        _name_file(error, path, max(needed, part.stat().st_size if part.is_file() else 0))
        raise
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all.

    torch and safetensors report a full disk in words of their own when they write to a path themselves; so their bytes
    are made in memory and written here.
    """
    with write_atomically(path, len(content)) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all; lone surrogates are escaped (`names.encodable`)."""
    with write_atomically(path) as part:
        part.write_text(encodable(text), encoding="utf-8")


def write_json(path: str | Path, content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all; numbers that are not finite are an error.

    Text that is read back, such as paths, must be escaped first (`names.escape`); lone surrogates that are left are
    escaped here, because strict readers refuse them.
    """
    text = json.dumps(content, indent=2, allow_nan=False, default=default)
    if "\\ud" in text:  # half of a character beyond U+FFFF, or a lone surrogate
        text = json.dumps(_encodable(json.loads(text)), indent=2, allow_nan=False)
    write_text(path, text + "\n")


def _encodable(content: Any) -> Any:
    if isinstance(content, dict):
        return {encodable(key): _encodable(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_encodable(value) for value in content]
    return encodable(content) if isinstance(content, str) else content


class NotRegularFileError(OSError):
    """A folder, a pipe, a socket or a device where a regular file is needed; `strerror` says which."""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, or one that a link leads to; anything else is refused at once.

    Opening a named pipe waits for a writer, reading a terminal waits for a person, and ``/dev/zero`` has no end. The
    opened file is checked again, because a path may lead elsewhere a moment later.

    Raises:
        FileNotFoundError: if there is nothing.
        NotRegularFileError: if it is a folder, a pipe, a socket or a device.
        OSError: if it cannot be opened.

    Example:
        >>> try:
        ...     open_regular("/")
        ... except OSError as error:
        ...     error.strerror
        'is a folder, not a regular file'
    """
    _check_regular(path, os.stat(path).st_mode)  # opening a device can already do something: tapes rewind
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    try:
        _check_regular(path, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _check_regular(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.filemode(mode)[0], "something else")
        raise NotRegularFileError(errno.EINVAL, f"is {kind}, not a regular file", str(path))


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a regular file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network and memory file systems cannot sync a folder
        if not path.is_dir():
            raise
    finally:
        os.close(handle)
