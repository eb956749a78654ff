"""Whole-or-nothing writes, and checksums of what was written.

A reader of one of our files sees the old bytes or the new ones, never a part: every output is written to a temporary
sibling, flushed to the disk and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from monai_simclr.names import bytes_of, encodable

__all__ = [
    "KEY_VARIABLE", "hash_key", "keyed_hash", "open_regular", "sha256_of", "sync", "write_atomically", "write_json",
    "write_text",
]  # fmt: skip

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


@contextlib.contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to, and rename it to `path` when the block ends well.

    Args:
        path: where the file shall be; its folder is made when it is missing.

    Yields:
        Path of the temporary file, in the same folder. The block must close what it opens there.

    Raises:
        OSError: what the file system says (no space, read-only); `path` is then as it was and no temporary file stays.

    Example:
        >>> import tempfile, pathlib
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "out.txt"
        >>> with write_atomically(target) as part:
        ...     _ = part.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        sync(part)
        part.chmod(0o666 & ~_umask())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)


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


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, or one that a link leads to; whatever else lies there is refused at once.

    To open a named pipe waits for a writer, to read a terminal waits for a person, and ``/dev/zero`` has no end. What
    was opened is looked at once more, since a path may lead elsewhere a moment later.

    Raises:
        FileNotFoundError: if nothing is there.
        OSError: if it is not a regular file (a folder, a pipe, a socket, a device), or cannot be opened.

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
        raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a regular file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def keyed_hash(key: str, text: str) -> str:
    """HMAC-SHA-256 of `text` under `key`, the first 16 hexadecimal digits: an identity that only the key's owner can
    check.

    Example:
        >>> keyed_hash("a key", "patient 1") == keyed_hash("a key", "patient 1")
        True
        >>> keyed_hash("a key", "patient 1") == keyed_hash("another key", "patient 1")
        False
    """
    return hmac.new(key.encode(), bytes_of(text), hashlib.sha256).hexdigest()[:16]


KEY_VARIABLE = "MONAI_SIMCLR_HASH_KEY"
"""Environment variable with the key of hashes, for whoever wants the same hashes in every folder."""


def hash_key(folder: str | Path) -> str:
    """The key of this folder's hashes: the environment's, the folder's own, or a new one that is left in the folder.

    Returns:
        What `KEY_VARIABLE` holds, or the content of ``hash_key.txt`` in `folder`, made when it is missing and readable
        by its owner only.
    """
    if os.environ.get(KEY_VARIABLE):
        return os.environ[KEY_VARIABLE]
    path = Path(folder) / "hash_key.txt"
    if not path.is_file():
        with write_atomically(path) as part:
            part.write_text(secrets.token_hex(32), encoding="utf-8")
        path.chmod(0o600)
    return path.read_text(encoding="utf-8").strip()


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
