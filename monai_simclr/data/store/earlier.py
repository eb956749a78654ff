"""What of a whole store still holds for an index: nothing is decoded twice, and every difference has a name."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_simclr.data.decoding import Record, file_identity
from monai_simclr.data.store.opened import BUILD_AGAIN, read_provenance
from monai_simclr.data.store.shard import Shard, is_unchanged
from monai_simclr.runtime.artefacts import reading
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import read_table


@dataclass(frozen=True)
class PreviousStore:
    """A whole store, held against an index.

    Attributes:
        folder: where it is.
        provenance: its own.
        records: one for each of its images, by path, stored or rejected; `row` is its place in ``sources.csv``.
        places: where each stored image lies in ``images.npy``, by path.
    """

    folder: Path
    provenance: dict[str, Any]
    records: dict[str, Record]
    places: dict[str, int]

    @classmethod
    def at(cls, folder: Path) -> PreviousStore | None:
        """The store at a folder; None where there is no whole one.

        Raises:
            DamagedFileError: if its tables or its pixels cannot be read.
        """
        provenance = read_provenance(folder)
        if provenance is None or not (folder / "sources.csv").is_file():
            return None
        with reading(folder / "images.npy", "the pixels of a store", BUILD_AGAIN):
            np.lib.format.open_memmap(folder / "images.npy", mode="r")
        with reading(folder / "sources.csv", "a table of a store", BUILD_AGAIN):
            return cls._read(folder, provenance)

    @classmethod
    def _read(cls, folder: Path, provenance: dict[str, Any]) -> PreviousStore:
        reasons = {line[0]: line[1] for line in _rows(folder / "rejected.csv", "image", "reason")}
        records: dict[str, Record] = {}
        places: dict[str, int] = {}
        lines = _rows(folder / "sources.csv", "image", "bytes", "modified", "sha256", "pixels")
        for row, (path, size, modified, sha256, pixels) in enumerate(lines):
            if pixels != "-1":
                places[path] = len(places)
            reason = reasons.get(path, "")
            records[path] = Record(row, int(size), int(modified), sha256, int(pixels), reason)
        return cls(folder, provenance, records, places)

    def changed(self, paths: Iterable[str]) -> list[str]:
        """Those images whose files are not what they were."""
        return [path for path in paths if path in self.records and not is_unchanged(path, self.records[path])]

    def touched(self, paths: Iterable[str]) -> bool:
        """Whether the size or the time of any file is another, or it is not known."""
        known = self.records
        return any(p not in known or file_identity(p) != (known[p].bytes, known[p].modified) for p in paths)

    def same_images(self, paths: Sequence[str]) -> bool:
        """Whether it was made of these images, in this order."""
        return list(self.records) == list(paths)

    def describe(self, paths: Sequence[str], changed: Sequence[str]) -> str:
        """Say how the archive differs from what the store was made of; "" when it does not."""
        here = set(paths)
        groups = {
            "changed": changed,
            "new": [path for path in paths if path not in self.records],
            "gone": [path for path in self.records if path not in here],
        }
        said = [f"{len(p)} {what} (the first is {shown(Path(p[0]).name)})" for what, p in groups.items() if p]
        return ", ".join(said) or ("" if self.same_images(paths) else "the same images in another order")

    def copy_unchanged(self, shard: Shard, paths: Sequence[str], rows: Iterable[int], size: int) -> Iterator[Record]:
        """Copy the pixels of unchanged images into a shard.

        Yields:
            A record for each that was copied; rejected and changed ones are left to the decoder.
        """
        first, area, offset = shard.rows(len(paths)).start, size * size, shard.offset()
        images = np.load(self.folder / "images.npy", mmap_mode="r", allow_pickle=False)
        start = int(images.offset)  # type: ignore[attr-defined]
        with open(self.folder / "images.npy", "rb") as old, open(shard.path("images.npy"), "r+b", buffering=0) as new:
            for row in rows:
                record, place = self.records.get(paths[row]), self.places.get(paths[row])
                if record is None or place is None or not is_unchanged(paths[row], record):
                    continue
                old.seek(start + place * area)
                pixels = old.read(area)
                if zlib.crc32(pixels) == record.pixels:
                    new.seek(offset + (row - first) * area)
                    new.write(pixels)
                    yield record._replace(row=row, modified=os.stat(paths[row]).st_mtime_ns)


def _rows(path: Path, *names: str) -> Iterator[tuple[str, ...]]:
    yield from read_table(path)[list(names)].itertuples(index=False, name=None)
