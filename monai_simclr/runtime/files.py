"""Whole-or-nothing writes, and checksums of what was written.

A reader of one of our files sees the old bytes or the new ones, never a part: every output is written to a temporary
sibling, flushed to the disk and renamed. A disk without room, or one that cannot be written, is named with the file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
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
"""The file system is mounted for reading, or the folder is not ours to write to."""

_FULL_IN_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "os error 28",
    "os error 122",
    "os error 27",
    "errno = 28",
    "errno = 122",
    "errno = 27",
    "PytorchStreamWriter failed",
    "database or disk is full",
)
"""What torch, safetensors, HDF5 and SQLite make of `FULL`; only the words are left."""


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NoSpaceError(OSError):
    """There is no room for a file; the sentence names the file and what it needs."""


def lacks_space(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that there is no room on a disk.

    Example:
        >>> lacks_space(OSError(errno.EDQUOT, "Disk quota exceeded")), lacks_space(ValueError("no rows"))
        (True, False)
        >>> lacks_space(RuntimeError("PytorchStreamWriter failed writing file data/7: file write failed"))
        True
    """
    return any(
        (isinstance(one, OSError) and one.errno in FULL) or any(words in str(one) for words in _FULL_IN_WORDS)
        for one in _behind(error)
    )


def _behind(error: BaseException) -> list[BaseException]:
    """An error and those that it was raised from."""
    found: list[BaseException] = []
    now: BaseException | None = error
    while now is not None and now not in found:
        found.append(now)
        now = now.__cause__ or (None if now.__suppress_context__ else now.__context__)
    return found


@contextlib.contextmanager
def writing(path: str | Path, needed: int = 0) -> Iterator[None]:
    """Name the file, or the folder, in an error of what is written within the block.

    Args:
        path: what is written.
        needed: bytes that it needs, as far as known.

    Raises:
        NoSpaceError: if there is no room, whatever library said so (says what is needed and what is free).
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
        _name_in(error, Path(path), needed)
        raise


def _name_in(error: Exception, path: Path, needed: int) -> None:
    """Raise the error anew, with the file's name, if it is about room or about leave to write."""
    named = any(isinstance(one, NoSpaceError) for one in _behind(error))  # MONAI wraps what a config raises
    if named or (str(path) in str(error) and isinstance(error, PermissionError)):
        return
    if lacks_space(error):
        number = error.errno if isinstance(error, OSError) and error.errno in FULL else errno.ENOSPC
        known = f"{needed / 1e6:.1f} MB or more are needed, " if needed else ""
        raise NoSpaceError(
            number,
            f"no space for {path} ({os.strerror(number)}): {known}{_free(path) / 1e6:.1f} MB are free on its disk; "
            "make room and run the same command again",
        ) from error
    elsewhere = getattr(error, "filename", None) and Path(str(error.filename)).parent != path.parent  # type: ignore[attr-defined]
    if isinstance(error, OSError) and error.errno in LOCKED and not elsewhere:
        raise PermissionError(
            error.errno, f"{path} cannot be written ({os.strerror(error.errno)}); name a folder that can be"
        ) from error


def _free(path: Path) -> int:
    """Bytes that are free where a file is, or shall be."""
    return shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free


@contextlib.contextmanager
def write_atomically(path: str | Path, needed: int = 0) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to, and rename it to `path` when the block ends well.

    Args:
        path: where the file shall be; its folder is made when it is missing.
        needed: bytes that it needs, where they are known; for the message when there is no room.

    Yields:
        Path of the temporary file, in the same folder. The block must close what it opens there.

    Raises:
        NoSpaceError: if there is no room. As after every error, `path` is as it was and no temporary file stays.
        PermissionError: if the folder cannot be written.
        FileExistsError: if `path` is a folder.

    Example:
        >>> import tempfile, pathlib
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "out.txt"
        >>> with write_atomically(target) as part:
        ...     _ = part.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder, and a file of that name shall be written; move it, or name another")
    with writing(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    part = Path(name)
    try:
        yield part
        sync(part)
        part.chmod(0o666 & ~_umask())
        os.replace(part, path)
    except Exception as error:
        _name_in(error, path, max(needed, part.stat().st_size if part.is_file() else 0))
        raise
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all.

    Libraries that write to a path by themselves (torch, safetensors) say of a full disk what only they understand, so
    their bytes are made in memory and written here.
    """
    with write_atomically(path, len(content)) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all; what no encoding has is escaped (`names.encodable`)."""
    with write_atomically(path) as part:
        part.write_text(encodable(text), encoding="utf-8")


def write_json(path: str | Path, content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all; non-finite numbers are an error.

    Paths and other text that is read back goes through `names.escape` before; lone surrogates that are left are escaped
    here, because strict readers refuse them.
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
    """Open a regular file for reading, or one that a link leads to; whatever else lies there is refused at once.

    To open a named pipe waits for a writer, to read a terminal waits for a person, and ``/dev/zero`` has no end. What
    was opened is looked at once more, since a path may lead elsewhere a moment later.

    Raises:
        FileNotFoundError: if nothing is there.
        NotRegularFileError: if it is a folder, a pipe, a socket or a device.
        OSError: if it cannot be opened.

    Example:
        >>> try:
        ...     open_regular("/")
        ... except OSError as error:
        ...     error.strerror
        'is a folder, not a regular file'
    """
    _check_regular(path, os.stat(path).st_mode)  # to open a device can already do something: tapes rewind
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
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise NotRegularFileError(errno.EINVAL, f"is {kind}, not a regular file", str(path))


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a regular file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, from memory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network and memory file systems cannot sync a folder
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
