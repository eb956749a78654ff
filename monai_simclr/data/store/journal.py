"""What has become of every image so far: a table in memory, and a journal on the disk that survives a kill."""

from __future__ import annotations

import errno
import json
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from monai_simclr.data.decoding import Record

_SYNC_SECONDS = 5.0


class Ledger:
    """Records of the rows `first` to `first + total` of an index, 54 bytes a row; `count` are done.

    Args:
        first: row of the index that the first record is about.
        total: number of rows.

    Example:
        >>> ledger = Ledger(10, 2)
        >>> ledger.add(Record(11, 5, 0, "ab" * 32, 7, ""))
        >>> ledger.done.tolist(), ledger.kept.tolist(), ledger.record(11).sha256[:4]
        ([False, True], [False, True], 'abab')
    """

    def __init__(self, first: int, total: int) -> None:
        self.first, self.total = first, total
        self.done, self.kept = np.zeros(total, dtype=bool), np.zeros(total, dtype=bool)
        self.bytes, self.modified = np.full(total, -1, dtype=np.int64), np.full(total, -1, dtype=np.int64)
        self.sha256, self.pixels = np.zeros((total, 32), dtype=np.uint8), np.zeros(total, dtype=np.uint32)
        self.reasons: dict[int, str] = {}
        self.count = 0

    def add(self, record: Record) -> None:
        """Take a record in; a later one of the same row replaces it."""
        place = record.row - self.first
        self.count += not self.done[place]
        self.done[place], self.kept[place] = True, not record.reason
        self.bytes[place], self.modified[place] = record.bytes, record.modified
        self.reasons.pop(record.row, None)
        if record.reason:
            self.reasons[record.row] = record.reason
        else:
            self.sha256[place] = np.frombuffer(bytes.fromhex(record.sha256), dtype=np.uint8)
            self.pixels[place] = record.pixels

    def forget(self, row: int) -> None:
        """Take a row's record out."""
        place = row - self.first
        self.count -= bool(self.done[place])
        self.done[place] = self.kept[place] = False
        self.reasons.pop(row, None)

    def record(self, row: int) -> Record:
        """The record of a row that is done."""
        place = row - self.first
        size, modified = int(self.bytes[place]), int(self.modified[place])
        if not self.kept[place]:
            return Record(row, size, modified, "", -1, self.reasons[row])
        return Record(row, size, modified, self.sha256[place].tobytes().hex(), int(self.pixels[place]), "")


class Journal:
    """Appends records to a file, each whole or not at all.

    A line is a CRC-32, a space, a record as JSON; a line that is cut short or damaged ends what counts. A record is
    written at once, so that a kill loses nothing that was decoded. Every few seconds the pixels, then the journal are
    flushed to the disk; should the power fail in between, the CRC-32 of the pixels says which records are not true.

    Args:
        path: the journal; what follows its last whole line is cut off.
        images: the file of pixels that the records speak of.
    """

    def __init__(self, path: Path, images: Path) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self.images = os.open(images, os.O_RDWR)
        os.ftruncate(self.file, sum(length for _, length in _lines(path)))
        os.lseek(self.file, 0, os.SEEK_END)
        self.synced = time.monotonic()

    @staticmethod
    def read(path: Path) -> Iterator[Record]:
        """The records of a journal that was closed or killed, oldest first; none when there is no journal."""
        for record, _ in _lines(path):
            yield record

    def add(self, record: Record) -> None:
        """Append a record.

        Raises:
            OSError: if there is no room for it; the journal is then as it was.
        """
        text = json.dumps(list(record)).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        start = os.lseek(self.file, 0, os.SEEK_CUR)
        if os.write(self.file, line) != len(line):
            os.ftruncate(self.file, start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if time.monotonic() - self.synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Bring the pixels, then the records to the disk."""
        os.fsync(self.images)
        os.fsync(self.file)
        self.synced = time.monotonic()

    def close(self) -> None:
        """Sync, and close."""
        try:
            self.sync()
        finally:
            os.close(self.file)
            os.close(self.images)


def _lines(path: Path) -> Iterator[tuple[Record, int]]:
    """Records and the lengths of their lines, up to the first line that is not whole."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        for line in file:
            checksum, _, text = line[:-1].partition(b" ")
            if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
                return
            yield Record(*json.loads(text)), len(line)
