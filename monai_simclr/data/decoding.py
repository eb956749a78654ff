"""Files to stored images, one at a time, here or in a process of its own: imports neither torch, MONAI nor pandas."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from monai_simclr.data.radiograph import DEFAULT_SETTINGS, RadiographError, ReaderSettings
from monai_simclr.data.reading import read_radiograph
from monai_simclr.ops.resize import quantize
from monai_simclr.runtime.exit_codes import STOP_SIGNALS
from monai_simclr.runtime.files import file_sha256


class Record(NamedTuple):
    """What became of one image of an archive.

    Attributes:
        row: its row in the index.
        bytes: size of its file when it was read; -1 when it could not be looked at.
        modified: when the file was last changed, in nanoseconds since 1970; -1 when it could not be looked at.
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


def decode(path: str | Path, size: int, squash: bool = False, reader: ReaderSettings = DEFAULT_SETTINGS) -> np.ndarray:
    """Read a radiograph as the store keeps it: canonical, padded to a square, area-resized, uint8 ``(size, size)``.

    Args:
        path: the file.
        size: side of the result in pixels.
        squash: resize without padding.
        reader: settings of `read_radiograph`.

    Raises:
        FileNotFoundError: if there is no such file.
        RadiographError: if it is no radiograph that can be read.
    """
    return quantize(read_radiograph(path, reader)[0], size, squash)


def file_identity(path: str | Path) -> tuple[int, int]:
    """Size in bytes and time of the last change of a file; (-1, -1) when it cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def sha256_of_source(path: str | Path) -> str:
    """SHA-256 of a file, "" when it cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return ""


class PixelFile:
    """A file of stored images, and decoding into it.

    Args:
        target: an existing file of stored images of equal size.
        offset: bytes before the first one.
        first: row of the index that the first one belongs to.
        settings: keywords of `decode`, `reader` as a dictionary.
    """

    def __init__(self, target: str | Path, offset: int, first: int, settings: dict[str, Any]) -> None:
        self.offset, self.first = offset, first
        self.settings = {**settings, "reader": ReaderSettings(**settings["reader"])}
        self.file = open(target, "r+b", buffering=0)  # noqa: SIM115 (see close)

    def decode(self, row: int, path: str) -> Record:
        """Decode one image into its place; what cannot be read becomes a record with a reason.

        Raises:
            OSError: if the file of stored images cannot be written (no space, a limit).
        """
        size, modified = file_identity(path)
        try:
            image = decode(path, **self.settings)
            sha256 = sha256_of_source(path)
        except RadiographError as error:
            return Record(row, size, modified, "", -1, error.problem)
        except OSError as error:
            return Record(row, size, modified, "", -1, f"cannot be opened ({error.strerror or 'it is not there'})")
        if (size, modified) != file_identity(path) or not sha256:
            return Record(row, size, modified, "", -1, "was changed while it was read")
        pixels = image.tobytes()
        self._write(row - self.first, pixels)
        return Record(row, size, modified, sha256, zlib.crc32(pixels), "")

    def close(self) -> None:
        """Close the file of stored images."""
        self.file.close()

    def _write(self, place: int, pixels: bytes) -> None:
        self.file.seek(self.offset + place * len(pixels))
        if self.file.write(pixels) != len(pixels):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def serve() -> None:
    """Be a decoding process: settings, then rows and paths come on stdin; a record goes to stdout for each.

    It ends when stdin does, so it never outlives the process that began it. What libraries print goes to stderr.
    Ctrl-C, SIGTERM and SIGUSR1 are left to the process that began it. An image that takes longer than the limit ends
    this process by SIGALRM, which that process understands.
    """
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    _one_thread()
    orders = sys.stdin.buffer
    start = json.loads(orders.readline())
    limit = start.pop("seconds")
    try:
        target = PixelFile(**start)
        for line in orders:
            row, path = json.loads(line)
            _alarm(limit)
            record = target.decode(row, path)
            _alarm(0)
            _answer(answers, list(record))
    except BrokenPipeError:
        return
    except OSError as error:
        _answer(answers, {"kind": "OSError", "errno": error.errno, "text": error.strerror or str(error)})
    except MemoryError:
        _answer(answers, {"kind": "MemoryError", "text": ""})
    except Exception:
        _answer(answers, {"kind": "bug", "text": traceback.format_exc()})


def _answer(answers: BinaryIO, content: Any) -> None:
    answers.write(json.dumps(content).encode() + b"\n")


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
