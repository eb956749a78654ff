"""One process's share of a build: its rows, its files, and filling them so that a kill loses nothing."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_simclr.data.decoding import Record, file_identity, sha256_of_source
from monai_simclr.data.store.journal import Journal, Ledger
from monai_simclr.runtime.artefacts import DamagedFileError, read_json, reading, write_sealed_json
from monai_simclr.runtime.names import escape, unescape

logger = logging.getLogger("monai_simclr.data")


@dataclass(frozen=True)
class Shard:
    """One of `world` equal shares of an index, in the order of its rows.

    Attributes:
        building: folder of the unfinished store.
        rank: number of the share, from 0.
        world: number of shares.
    """

    building: Path
    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls, building: Path) -> Shard:
        """The share of this process in a job that torchrun started; everything where there is no such job."""
        return cls(building, int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    def rows(self, total: int) -> range:
        """Its rows.

        Example:
            >>> [list(Shard(Path("x"), rank, 3).rows(7)) for rank in range(3)]
            [[0, 1], [2, 3], [4, 5, 6]]
        """
        return range(total * self.rank // self.world, total * (self.rank + 1) // self.world)

    def path(self, kind: str) -> Path:
        """One of its files: lock, plan.json, images.npy, journal, whole."""
        return self.building / f"{self.rank}of{self.world}.{kind}"

    def begin(self, plan: dict[str, Any], count: int, size: int) -> None:
        """Make its files: the plan, and room for the pixels.

        Raises:
            OSError: if there is less room than the pixels need.
        """
        for kind in ("whole", "journal", "images.npy", "plan.json"):
            self.path(kind).unlink(missing_ok=True)
        needed, free = count * size * size, shutil.disk_usage(self.building).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"the pixels need {needed:,} bytes, {free:,} bytes are free")
        room = np.lib.format.open_memmap(self.path("images.npy"), "w+", np.uint8, (count, size, size))
        del room
        write_sealed_json(self.path("plan.json"), {**plan, "paths": [escape(path) for path in plan["paths"]]})

    def plan(self) -> dict[str, Any] | None:
        """What it was begun with; None when it was not, and with a warning when its files are damaged."""
        path = self.path("plan.json")
        if not path.is_file():
            return None
        try:
            found: dict[str, Any] = read_json(path, "the plan of a build", "it is begun again", ("paths", "versions"))
            with reading(self.path("images.npy"), "the pixels of a build", "it is begun again"):
                self.offset()
            with reading(path, "the plan of a build", "it is begun again"):
                return {**found, "paths": [unescape(name) for name in found["paths"]]}
        except (DamagedFileError, FileNotFoundError) as error:
            logger.warning(str(error))
            return None

    def offset(self) -> int:
        """Bytes before the first image in its file of pixels."""
        images = np.load(self.path("images.npy"), mmap_mode="r", allow_pickle=False)
        return int(images.offset)  # type: ignore[attr-defined]

    def resume(self, paths: Sequence[str], size: int) -> tuple[Ledger, list[int]]:
        """What its journal says that still holds.

        A record counts when the pixels have its checksum and the file is what it was; rejected files are tried again.

        Args:
            paths: of all rows of the index.
            size: side of the stored images.

        Returns:
            The ledger, and the rows whose files have changed since they were decoded.
        """
        rows, area = self.rows(len(paths)), size * size
        ledger, changed = Ledger(rows.start, len(rows)), []
        for record in Journal.read(self.path("journal")):
            ledger.add(record)
        with open(self.path("images.npy"), "rb") as file:
            start = self.offset()
            for row in rows:
                if not ledger.done[row - rows.start]:
                    continue
                record = ledger.record(row)
                file.seek(start + (row - rows.start) * area)
                if record.reason or zlib.crc32(file.read(area)) != record.pixels:
                    ledger.forget(row)
                elif not is_unchanged(paths[row], record):
                    ledger.forget(row)
                    changed.append(row)
        return ledger, changed

    def fill(
        self,
        ledger: Ledger,
        records: Iterator[Record],
        on_progress: Callable[[Ledger], None],
    ) -> None:
        """Take records in as they come: into the journal, into the ledger.

        Args:
            ledger: what is done; filled here.
            records: of images whose pixels are written.
            heed: called after each record; may raise to stop.
        """
        journal = Journal(self.path("journal"), self.path("images.npy"))
        try:
            for record in records:
                journal.add(record)
                ledger.add(record)
                on_progress(ledger)
        finally:
            journal.close()


def is_unchanged(path: str, record: Record) -> bool:
    """Whether a file is what it was when it was decoded: same size and time, or else the same bytes."""
    size, modified = file_identity(path)
    if (size, modified) == (record.bytes, record.modified):
        return True
    return size == record.bytes and record.sha256 != "" and record.sha256 == sha256_of_source(path)
