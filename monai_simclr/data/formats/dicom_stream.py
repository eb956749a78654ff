"""Streams that a DICOM header is parsed from: they give out only so much, whatever the file promises."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import BinaryIO

from monai_simclr.data.radiograph import RadiographError

_MOST_INFLATED = 64 * 2**20  # before the pixels
_AFTER = 2**20  # after the pixels: padding, signatures
_MOST_READS = 50_000  # a radiograph's header takes one to three thousand; this is half a second
_MOST_BYTES = 32 * 2**20
_MOST_VALUE = 4 * 2**20  # sixteen tables of 65,536 entries take two
_BLOCK = 2**16


class Budget:
    """What the parsing of one header may take: reads, which stand for attributes, items and time; and bytes.

    Reads are counted and not seconds, so that a file is read or refused alike on a fast machine and on a busy one.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.reads, self.bytes = path, _MOST_READS, _MOST_BYTES

    def spend(self, n_bytes: int) -> None:
        """Take one read of at most `n_bytes`.

        Raises:
            RadiographError: if that is more than a header may take.
        """
        if not 0 <= n_bytes <= _MOST_VALUE:
            raise RadiographError(
                self.path, f"has a damaged header: an attribute before the pixels claims {n_bytes} bytes"
            )
        self.reads, self.bytes = self.reads - 1, self.bytes - n_bytes
        if self.reads < 0 or self.bytes < 0:
            limit = f"{_MOST_READS} reads" if self.reads < 0 else f"{_MOST_BYTES} bytes"
            raise RadiographError(self.path, f"has a header that takes more than {limit}, as no radiograph's does")


class MeteredStream:
    """A stream whose every read is taken from a `Budget`. It is what pydicom needs of a file: read, seek and tell."""

    def __init__(self, stream: BinaryIO | InflatedStream, budget: Budget) -> None:
        self.stream, self.budget = stream, budget
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        """Give the next `size` bytes, fewer at the end."""
        self.budget.spend(size)
        return self.stream.read(size)


class InflatedStream:
    """A raw deflate stream (PS3.5 A.5) as a file to read and to position, inflated no further than is asked for.

    It inflates to 64 MiB at the most until `expect` says how much there is to come.

    Args:
        path: of the file, for the errors.
        file: positioned at the stream.
        max_bytes: that it may inflate to.
    """

    def __init__(self, path: Path, file: BinaryIO, max_bytes: int) -> None:
        self.path, self.max_bytes = path, max_bytes
        self._limit, self._why = min(max_bytes, _MOST_INFLATED), "bytes before its pixels"
        self._file, self._inflater = file, zlib.decompressobj(-zlib.MAX_WBITS)
        self._content, self._at = bytearray(), 0

    def expect(self, n_bytes: int) -> None:
        """Let it inflate to `n_bytes` beyond where it is, and 1 MiB for what comes after them."""
        self._limit, self._why = (
            min(self.max_bytes, self._at + n_bytes + _AFTER),
            "bytes, more than its header speaks of",
        )

    def read(self, size: int = -1) -> bytes:
        """Give the next `size` bytes, fewer at the end.

        Raises:
            RadiographError: if the stream is damaged, has no end, or inflates beyond the limit.
        """
        self._inflate(self.max_bytes + 1 if size < 0 else self._at + size)
        stop = len(self._content) if size < 0 else self._at + size
        with memoryview(self._content) as content:
            found = bytes(content[self._at : stop])
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the start or from here."""
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        """Say where it is."""
        return self._at

    def finish(self) -> None:
        """Inflate what is left, so that a stream without an end is noticed.

        Raises:
            RadiographError: as `read` does.
        """
        self._inflate(self.max_bytes + 1)

    def _inflate(self, until: int) -> None:
        try:
            while len(self._content) < until and not self._inflater.eof:
                source = self._inflater.unconsumed_tail or self._file.read(_BLOCK)
                if not source:
                    raise RadiographError(self.path, "is truncated: the deflated data set has no end")
                self._content += self._inflater.decompress(source, _BLOCK)
                if len(self._content) > self._limit:
                    known = self._limit == self.max_bytes
                    limit = f"max_bytes={self._limit}" if known else f"{self._limit} {self._why}"
                    raise RadiographError(self.path, f"inflates to more than {limit}")
        except zlib.error as error:
            raise RadiographError(self.path, "is deflated and damaged: it cannot be inflated") from error
