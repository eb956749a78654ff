"""What of a complete store is still current for an index: nothing is decoded twice, and every difference is named."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_simclr.data.decoding import Record, file_identity, write_at
from monai_simclr.data.store.opened import BUILD_AGAIN, read_provenance
from monai_simclr.data.store.unfinished import UnfinishedStore, pixels_offset
from monai_simclr.runtime.artefacts import reading
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import read_table


@dataclass(frozen=True)
class PreviousStore:
    """A complete store, compared with an index.

    Attributes:
        folder: where it is.
        provenance: its own.
        records: one for each of its images, by path, stored or rejected; `row` is its place in ``sources.csv``.
        places: where each stored image is in ``images.npy``, by path.
    """

    folder: Path
    provenance: dict[str, Any]
    records: dict[str, Record]
    places: dict[str, int]

    @classmethod
    def read(cls, folder: Path) -> PreviousStore | None:
        """The store in a folder; None where there is no complete one.

        Raises:
            DamagedFileError: if its tables or its pixels cannot be read.
        """
        provenance = read_provenance(folder)
        if provenance is None or not (folder / "sources.csv").is_file():
            return None
        with reading(folder / "images.npy", "the pixels of a store", BUILD_AGAIN):
            np.lib.format.open_memmap(folder / "images.npy", mode="r")
        with reading(folder / "sources.csv", "a table of a store", BUILD_AGAIN):
            rejected, sources = (read_table(folder / name) for name in ("rejected.csv", "sources.csv"))
            reasons = dict(zip(rejected["image"], rejected["reason"], strict=True))
            columns = sources[["image", "bytes", "modified", "sha256", "pixels"]]
            records = {
                path: Record(row, int(size), int(modified), sha256, int(pixels), reasons.get(path, ""))
                for row, (path, size, modified, sha256, pixels) in enumerate(columns.itertuples(index=False, name=None))
            }
            stored = (path for path, record in records.items() if record.pixels != -1)
            return cls(folder, provenance, records, {path: place for place, path in enumerate(stored)})

    def changed(self, paths: Iterable[str]) -> list[str]:
        """Those images whose files are not what they were."""
        return [path for path in paths if path in self.records and not self.records[path].is_current(path)]

    def is_untouched(self, paths: Sequence[str]) -> bool:
        """Whether it was made of these images, in this order, and their files have the size and time they had."""
        if list(self.records) != list(paths):
            return False
        return all(file_identity(p) == (self.records[p].bytes, self.records[p].modified) for p in paths)

    def describe(self, paths: Sequence[str], changed: Sequence[str]) -> str:
        """How the archive differs from what the store was made of; "" when it does not."""
        here = set(paths)
        groups = {
            "changed": changed,
            "new": [path for path in paths if path not in self.records],
            "gone": [path for path in self.records if path not in here],
        }
        parts = [f"{len(p)} {what} (the first is {shown(Path(p[0]).name)})" for what, p in groups.items() if p]
        in_order = list(self.records) == list(paths)
        return ", ".join(parts) or ("" if in_order else "the same images in another order")

    def copy_unchanged(self, target: UnfinishedStore, paths: Sequence[str], rows: Iterable[int]) -> Iterator[Record]:
        """Copy the pixels of unchanged images.

        Yields:
            A record for each that was copied; rejected and changed ones are left to the decoder.
        """
        area, source = target.area, self.folder / "images.npy"
        start, offset = pixels_offset(source), pixels_offset(target.pixels)
        with open(source, "rb") as old, open(target.pixels, "r+b", buffering=0) as new:
            for row in rows:
                record, place = self.records.get(paths[row]), self.places.get(paths[row])
                if record is None or place is None or not record.is_current(paths[row]):
                    continue
                old.seek(start + place * area)
                pixels = old.read(area)
                if zlib.crc32(pixels) == record.pixels:
                    write_at(new, offset + row * area, pixels)
                    yield record._replace(row=row, modified=os.stat(paths[row]).st_mtime_ns)
