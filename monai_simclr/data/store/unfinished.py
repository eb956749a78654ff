"""A store while it is built, in the folder ``building`` inside it: a kill at any moment loses nothing."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.decoding import Record
from monai_simclr.data.index import write_index
from monai_simclr.data.store.opened import FORMAT, TABLES
from monai_simclr.data.store.rows import ROWS, write_row_columns
from monai_simclr.runtime.artefacts import DamagedFileError, read_json, reading, write_sealed_json
from monai_simclr.runtime.files import file_sha256, sync, write_atomically
from monai_simclr.runtime.journal import AppendOnlyFile, read_lines
from monai_simclr.runtime.tables import write_rows

logger = logging.getLogger("monai_simclr.data")

_SYNC_SECONDS = 5.0
_BLOCK = 8 * 2**20  # bytes that are copied at a time


class Ledger:
    """Records of all rows of an index, 54 bytes a row; `count` are done.

    Args:
        total: number of rows.

    Example:
        >>> ledger = Ledger(2)
        >>> ledger.add(Record(1, 5, 0, "ab" * 32, 7, ""))
        >>> ledger.done.tolist(), ledger.kept.tolist(), ledger.record(1).sha256[:4]
        ([False, True], [False, True], 'abab')
    """

    def __init__(self, total: int) -> None:
        self.total, self.count = total, 0
        self.done, self.kept = np.zeros(total, dtype=bool), np.zeros(total, dtype=bool)
        self.bytes, self.modified = np.full(total, -1, dtype=np.int64), np.full(total, -1, dtype=np.int64)
        self.sha256, self.pixels = np.zeros((total, 32), dtype=np.uint8), np.zeros(total, dtype=np.uint32)
        self.reasons: dict[int, str] = {}

    def add(self, record: Record) -> None:
        """Take a record in; a later one of the same row replaces it."""
        row = record.row
        self.forget(row)
        self.count += 1
        self.done[row], self.kept[row] = True, not record.reason
        self.bytes[row], self.modified[row] = record.bytes, record.modified
        if record.reason:
            self.reasons[row] = record.reason
        else:
            self.sha256[row] = np.frombuffer(bytes.fromhex(record.sha256), dtype=np.uint8)
            self.pixels[row] = record.pixels

    def forget(self, row: int) -> None:
        """Take a row's record out, if there is one."""
        self.count -= bool(self.done[row])
        self.done[row] = self.kept[row] = False
        self.reasons.pop(row, None)

    def record(self, row: int) -> Record:
        """The record of a row that is done."""
        size, modified = int(self.bytes[row]), int(self.modified[row])
        if not self.kept[row]:
            return Record(row, size, modified, "", -1, self.reasons[row])
        return Record(row, size, modified, self.sha256[row].tobytes().hex(), int(self.pixels[row]), "")


class Journal(AppendOnlyFile):
    """The records of an unfinished store, one a line; a kill loses none that was added.

    Every few seconds the pixels, then the records are flushed to the disk; if the power fails in between, the CRC-32 of
    the pixels says which records are not true.

    Args:
        path: the journal; what follows its last undamaged line is cut off.
        images: the file of pixels that the records are about.
    """

    def __init__(self, path: Path, images: Path) -> None:
        super().__init__(path, _SYNC_SECONDS)
        self._images = os.open(images, os.O_RDWR)
        self.truncate(max((end for _, end in self._lines(path)), default=0))

    @classmethod
    def read(cls, path: Path) -> list[Record]:
        """The records of a journal that was closed or killed, oldest first; none when there is no journal."""
        return [record for record, _ in cls._lines(path)] if path.is_file() else []

    @staticmethod
    def _lines(path: Path) -> Iterator[tuple[Record, int]]:
        with open(path, "rb") as file:
            for content, end in read_lines(file):
                if content is None:
                    return
                yield Record(*content["record"]), end

    def add(self, record: Record) -> None:
        """Append a record.

        Raises:
            NoSpaceError: if there is no room for it; the journal is then as it was.
        """
        self.append([{"record": record}])

    def sync(self) -> None:
        """Flush the pixels, then the records to the disk."""
        os.fsync(self._images)
        super().sync()

    def close(self) -> None:
        """Flush and close both files."""
        try:
            self.sync()
        finally:
            os.close(self._images)
            super().close()


class UnfinishedStore:
    """The files of a store that is being built: lock, plan, pixels of all rows, journal.

    Args:
        folder: of the store.
        size: side of the stored images in pixels.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.store, self.folder, self.area, self.size = folder, folder / "building", size * size, size
        self.lock, self.plan_path, self.pixels, self.journal = (
            self.folder / name for name in ("lock", "plan.json", "pixels.npy", "journal")
        )

    def begin(self, plan: dict[str, Any]) -> None:
        """Create the plan, and the file for the pixels of all its images.

        Raises:
            OSError: if there is less room than the pixels need.
        """
        for path in self.folder.iterdir():
            if path != self.lock:
                path.unlink()
        count = plan["images"]
        needed, free = count * self.area, shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"the pixels need {needed:,} bytes, {free:,} bytes are free")
        pixels = np.lib.format.open_memmap(self.pixels, "w+", np.uint8, (count, self.size, self.size))
        del pixels
        write_sealed_json(self.plan_path, plan)

    def plan(self) -> dict[str, Any] | None:
        """What it was begun with; None when it was not, and with a warning when its files are damaged."""
        if not self.plan_path.is_file():
            return None
        again = "it is begun again"
        try:
            plan: dict[str, Any] = read_json(
                self.plan_path, "the plan of a build", again, ("images", "list", "versions")
            )
            with reading(self.pixels, "the pixels of a build", again):
                pixels_offset(self.pixels)
            return plan
        except (DamagedFileError, FileNotFoundError) as error:
            logger.warning(str(error))
            return None

    def resume(self, paths: Sequence[str]) -> tuple[Ledger, list[int]]:
        """What the journal says that is still true.

        A record counts when the pixels have its checksum and the file is what it was; rejected files are tried again.

        Args:
            paths: of all rows of the index.

        Returns:
            The ledger, and the rows whose files have changed since they were decoded.
        """
        ledger, changed = Ledger(len(paths)), []
        for record in Journal.read(self.journal):
            ledger.add(record)
        offset = pixels_offset(self.pixels)
        with open(self.pixels, "rb") as file:
            for row in np.flatnonzero(ledger.done).tolist():
                record = ledger.record(row)
                file.seek(offset + row * self.area)
                if record.reason or zlib.crc32(file.read(self.area)) != record.pixels:
                    ledger.forget(row)
                elif not record.is_current(paths[row]):
                    ledger.forget(row)
                    changed.append(row)
        return ledger, changed

    def finish(self, index: pd.DataFrame, ledger: Ledger, provenance: dict[str, Any]) -> None:
        """Make the parts of the store of what is decoded, ready for `publish`.

        Args:
            index: all rows.
            ledger: the records of all rows.
            provenance: size, settings and versions.
        """
        moves = {**{name: name for name in (*TABLES, ROWS)}, "images.npy": self.pixels.name}
        if not ledger.kept.all():
            moves["images.npy"] = "images.npy"
            self._copy_kept(ledger.kept)
        kept = index.iloc[np.flatnonzero(ledger.kept)]
        write_index(kept, self.folder / "index.csv")
        write_row_columns(self.folder / ROWS, kept, ledger.pixels[ledger.kept])
        images = index["image"].to_numpy()
        rejected = ([images[row], ledger.reasons[row]] for row in np.flatnonzero(~ledger.kept).tolist())
        write_rows(self.folder / "rejected.csv", ["image", "reason"], rejected)
        records = (ledger.record(row) for row in range(ledger.total))
        lines = ([images[r.row], r.bytes, r.modified, r.sha256, r.pixels] for r in records)
        write_rows(self.folder / "sources.csv", ["image", "bytes", "modified", "sha256", "pixels"], lines)
        sums = {target: file_sha256(self.folder / source) for target, source in moves.items()}
        counts = {"images": int(ledger.kept.sum()), "rejected": int((~ledger.kept).sum())}
        content = {"format": FORMAT, **provenance, **counts, "sha256": sums}
        write_sealed_json(self.folder / "provenance.json", content)
        write_sealed_json(self.folder / "ready.json", moves)

    @property
    def is_ready(self) -> bool:
        """Whether it is finished and only `publish` is left to do."""
        return (self.folder / "ready.json").is_file()

    def publish(self) -> bool:
        """Move a finished store to its place, or continue with that; whether there was one.

        The old provenance goes first and the new one comes last, so that a kill in between leaves a store that says it
        is not complete, and the next call continues. Processes that have the old pixels mapped keep them.
        """
        if not self.is_ready:
            return False
        ready = self.folder / "ready.json"
        if (self.folder / "provenance.json").is_file():
            try:
                moves = read_json(ready, "the end of a build", "it is made again")
            except DamagedFileError as error:
                logger.warning(str(error))
                ready.unlink()
                return False
            (self.store / "provenance.json").unlink(missing_ok=True)
            for target, source in moves.items():
                if (self.folder / source).is_file():
                    os.replace(self.folder / source, self.store / target)
            sync(self.store)
            os.replace(self.folder / "provenance.json", self.store / "provenance.json")
            sync(self.store)
        with suppress(OSError):  # ready.json goes last, so that a kill in between is seen
            for path in sorted(self.folder.iterdir(), key=lambda path: path == ready):
                path.unlink()
            self.folder.rmdir()
        return True

    def _copy_kept(self, kept: np.ndarray) -> None:
        """Copy runs of kept rows, of 8 MiB or less, to ``images.npy``."""
        with write_atomically(self.folder / "images.npy") as part, open(part, "wb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": (int(kept.sum()), self.size, self.size)}
            np.lib.format.write_array_header_1_0(out, header)
            offset, longest = pixels_offset(self.pixels), max(1, _BLOCK // self.area)
            edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
            with open(self.pixels, "rb") as file:
                for first, last in edges.reshape(-1, 2).tolist():
                    file.seek(offset + first * self.area)
                    for start in range(first, last, longest):
                        out.write(file.read((min(start + longest, last) - start) * self.area))


def pixels_offset(path: Path) -> int:
    """Bytes before the first image in a ``.npy`` file of pixels."""
    return int(np.load(path, mmap_mode="r", allow_pickle=False).offset)
