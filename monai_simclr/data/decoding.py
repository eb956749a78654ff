"""Files to stored images, here or in a worker process: imports neither torch, MONAI nor pandas."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from monai_simclr.data.radiograph import DEFAULT_SETTINGS, RadiographError, ReaderSettings
from monai_simclr.data.reading import read_radiograph
from monai_simclr.ops.resize import quantize
from monai_simclr.runtime.files import file_sha256
from monai_simclr.runtime.metrics import check_versions


class Record(NamedTuple):
    """What became of one image of an archive.

    Attributes:
        row: its row in the index.
        bytes: size of its file when it was read; -1 when the file was not accessible.
        modified: when the file was last changed, in nanoseconds since 1970; -1 when the file was not accessible.
        sha256: of the file, 64 hexadecimal digits; "" when the image is rejected.
        pixels: CRC-32 of the stored image; -1 when it is rejected.
        reason: why it is rejected, without the file's name; "" when it is stored.
    """

    row: int
    bytes: int
    modified: int
    sha256: str
    pixels: int
    reason: str

    def is_current(self, path: str) -> bool:
        """Whether the file is what it was when it was decoded: same size and time, or else the same bytes."""
        identity = file_identity(path)
        if identity == (self.bytes, self.modified):
            return True
        return identity[0] == self.bytes and self.sha256 != "" and self.sha256 == _sha256(path)


def decode(path: str | Path, size: int, squash: bool = False, reader: ReaderSettings = DEFAULT_SETTINGS) -> np.ndarray:
    """Read a radiograph as the store keeps it: canonical, padded to a square, area-resized, uint8 ``(size, size)``.

    Args:
        path: the file.
        size: side of the result in pixels.
        squash: resize without padding.
        reader: settings of `read_radiograph`.

    Raises:
        FileNotFoundError: if there is no such file.
        RadiographError: if it is not a radiograph that can be read.
    """
    return quantize(read_radiograph(path, reader, size, not squash)[0], size, squash)


def file_identity(path: str | Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds of a file; (-1, -1) when it is not accessible."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _sha256(path: str | Path) -> str:
    """SHA-256 of a file, "" when it cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return ""


@dataclass(frozen=True)
class DecodeInto:
    """Decode images into their places in a file of stored images.

    Attributes:
        target: an existing file of stored images of equal size.
        offset: bytes before the image of row 0.
        size: side of the stored images in pixels.
        squash: resize without padding.
        reader: settings of `read_radiograph`.
        versions: of packages, which must be installed where it is called; "" for those that must not be.
    """

    target: str | Path
    offset: int
    size: int
    squash: bool = False
    reader: ReaderSettings = DEFAULT_SETTINGS
    versions: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, tasks: Iterable[tuple[int, str]]) -> Iterator[Record]:
        """Decode rows and paths; what cannot be read becomes a record with a reason.

        Raises:
            OSError: if the file of stored images cannot be written (no space, a limit), or versions are others.
        """
        check_versions(tuple(self.versions.items()))
        with open(self.target, "r+b", buffering=0) as file:
            for row, path in tasks:
                identity = file_identity(path)
                try:
                    pixels = decode(path, self.size, self.squash, self.reader).tobytes()
                    sha256, reason = _sha256(path), ""
                except RadiographError as error:
                    reason = error.problem
                except OSError as error:
                    reason = f"cannot be opened ({error.strerror or 'it is not there'})"
                else:
                    if identity != file_identity(path) or not sha256:
                        reason = "was changed while it was read"
                if reason:
                    yield Record(row, *identity, "", -1, reason)
                else:
                    write_at(file, self.offset + row * len(pixels), pixels)
                    yield Record(row, *identity, sha256, zlib.crc32(pixels), "")


def write_at(file: BinaryIO, start: int, content: bytes) -> None:
    """Write all of `content` at a place of an unbuffered file.

    Raises:
        OSError: if there is no room for it.
    """
    file.seek(start)
    if file.write(content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
