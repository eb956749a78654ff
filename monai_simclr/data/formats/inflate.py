"""Deflated content of a file, DICOM's (PS3.5 A.5) or gzip's, inflated no further than is asked for."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from monai_simclr.data.radiograph import RadiographError

_BLOCK = 2**16


class InflatedStream:
    """A deflated stream as a seekable file; reading raises `RadiographError` if it is damaged or inflates too far.

    Args:
        file: positioned at the stream.
        max_bytes: that it may inflate to.
        gzip: whether it has gzip's header; otherwise it is raw.
    """

    def __init__(self, file: BinaryIO, max_bytes: int, gzip: bool = False) -> None:
        self._file, self._inflater = file, zlib.decompressobj(16 + zlib.MAX_WBITS if gzip else -zlib.MAX_WBITS)
        self.max_bytes, self._limit, self._unit = max_bytes, max_bytes, ""
        self._content, self._at = bytearray(), 0

    def expect(self, n_bytes: int, unit: str) -> None:
        """Let it inflate to no more than `n_bytes` beyond the position; `unit` is for the message."""
        self._limit, self._unit = min(self.max_bytes, self._at + n_bytes), unit

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        self._inflate(self.max_bytes + 1 if size < 0 else self._at + size)
        stop = len(self._content) if size < 0 else self._at + size
        with memoryview(self._content) as content:
            result = bytes(content[self._at : stop])
        self._at += len(result)
        return result

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position counted from the start or from here."""
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def finish(self) -> None:
        """Inflate what is left, so that a stream without an end is noticed."""
        self._inflate(self.max_bytes + 1)

    def _inflate(self, until: int) -> None:
        try:
            while len(self._content) < until and not self._inflater.eof:
                source = self._inflater.unconsumed_tail or self._file.read(_BLOCK)
                if not source:
                    raise RadiographError("is truncated: the deflated data have no end")
                self._content += self._inflater.decompress(source, _BLOCK)
                if len(self._content) > self._limit:
                    at_max = self._limit == self.max_bytes
                    limit = f"max_bytes={self._limit}" if at_max else f"{self._limit} {self._unit}"
                    raise RadiographError(f"inflates to more than {limit}")
        except zlib.error as error:
            raise RadiographError("is damaged: it cannot be inflated") from error
