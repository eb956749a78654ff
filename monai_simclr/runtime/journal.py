"""Files of JSON lines that grow at their end and survive a kill: a CRC-32 in every line, and no line in part."""

from __future__ import annotations

import errno
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_simclr.runtime.files import writing

_CRC = "crc32"


class AppendOnlyFile:
    """Append JSON objects to a file, a line each, whole or not at all.

    Args:
        path: the file; made when it is missing. It is opened at once and stays open, so that it can be locked.
        sync_seconds: how often lines are flushed to the disk; 0 does it before every `append` returns. Without a
            flush a power failure can lose lines, but a kill cannot.

    Example:
        >>> import tempfile
        >>> file = AppendOnlyFile(Path(tempfile.mkdtemp()) / "a.jsonl")
        >>> file.append([{"row": 1}, {"row": 2}])
        >>> file.close()
        >>> with open(file.path, "rb") as lines:
        ...     list(read_lines(lines))
        [({'row': 1}, 31), ({'row': 2}, 62)]
    """

    def __init__(self, path: str | Path, sync_seconds: float = 0.0) -> None:
        self.path, self.sync_seconds, self._synced = Path(path), sync_seconds, time.monotonic()
        with writing(self.path):
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)

    def fileno(self) -> int:
        """Descriptor of the open file."""
        return self._handle

    def append(self, contents: Iterable[Mapping[str, Any]]) -> None:
        """Add lines.

        Raises:
            NoSpaceError: if there is no room for all of them; the file is then as it was.
        """
        lines, start = b"".join(map(encode_line, contents)), os.fstat(self._handle).st_size
        with writing(self.path, len(lines)):
            try:
                if os.write(self._handle, lines) != len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(self._handle, start)
                raise
            if time.monotonic() - self._synced >= self.sync_seconds:
                self.sync()

    def truncate(self, size: int) -> None:
        """Cut the file to a number of bytes."""
        os.ftruncate(self._handle, size)

    def sync(self) -> None:
        """Flush the lines to the disk."""
        os.fsync(self._handle)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file, and release a lock on it."""
        os.close(self._handle)


def read_lines(lines: Iterable[bytes], unsealed: bool = False) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Yield the content of every whole line, None for a damaged one, and the number of bytes up to its end.

    A last line without its line break was cut off by a kill and is not given.

    Args:
        lines: a file that is open for reading bytes.
        unsealed: accept lines without a CRC-32 if the first one has none, as version 0.1 wrote them.

    Example:
        >>> line = encode_line({"row": 1})
        >>> list(read_lines([line, line.replace(b"1", b"2", 1), line[:9]]))
        [({'row': 1}, 31), (None, 62)]
    """
    end = 0
    for line in lines:
        if not line.endswith(b"\n"):
            return
        unsealed = unsealed and (end > 0 or f'"{_CRC}": '.encode() not in line)
        end += len(line)
        yield _decode(line, unsealed), end


def encode_line(content: Mapping[str, Any]) -> bytes:
    """Write a JSON object as a line whose last key is the CRC-32 of what precedes it."""
    text = json.dumps(content)
    return f'{text[:-1]}{", " if content else ""}"{_CRC}": {zlib.crc32(text.encode())}}}\n'.encode()


def _decode(line: bytes, unsealed: bool) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    crc = content.pop(_CRC, None)
    known = unsealed if crc is None else crc == zlib.crc32(json.dumps(content).encode())
    return content if known else None
