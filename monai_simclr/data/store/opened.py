"""An open image store, and the checks that its parts are what they were when it was built."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from monai_simclr.data.index import COLUMNS, read_index
from monai_simclr.data.store.rows import ROWS, row_columns
from monai_simclr.runtime.artefacts import DamagedFileError, read_json, reading
from monai_simclr.runtime.files import file_sha256
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import read_table

BUILD_AGAIN = "run monai-simclr store with --rebuild, or remove the folder"
"""What to do about a damaged store, as `DamagedFileError` says it."""

FORMAT = 2
"""Of the folder; stores of another format are built again."""

TABLES = ("index.csv", "rejected.csv", "sources.csv")

_SHA256 = re.compile("[0-9a-f]{64}")
_CHANGED = "was changed after the store was built"
_COMPARED = 16  # images whose checksum is compared whenever a store is opened


@dataclass(frozen=True)
class Store:
    """An open image store.

    Attributes:
        images: uint8 ``(N, S, S)``, a read-only memory map.
        index: the N rows of the index that were decoded, in the same order. Of a store on the disk this and `rejected`
            are read when they are first asked for: training does not, so that 100 million rows take 3.5 GB, not 59.
        rejected: `image` and `reason` of those that were not.
        provenance: settings, versions and checksums.
        folder: where it is; None when it is in memory only. With a folder, pickling leaves the pixels out: the other
            process maps the same file, and tables that were not read.
        absent: why it is empty, when the archive is missing; see `Store.empty`.
    """

    images: np.ndarray
    index: pd.DataFrame
    rejected: pd.DataFrame
    provenance: dict[str, Any]
    folder: Path | None = None
    absent: str = ""

    @classmethod
    def empty(cls, size: int, absent: str) -> Store:
        """A store without images, for an archive that is missing: what is built on it can be inspected, not run.

        Args:
            size: S, side of the images that it does not have.
            absent: the message that a run ends with.

        Example:
            >>> Store.empty(64, "there is no folder data").images.shape
            (0, 64, 64)
        """
        rejected = pd.DataFrame(columns=["image", "reason"], dtype=str)
        index = pd.DataFrame(columns=list(COLUMNS), dtype=str)
        return cls(np.zeros((0, size, size), dtype=np.uint8), index, rejected, {}, absent=absent)

    @cached_property
    def rows(self) -> Mapping[str, np.ndarray]:
        """The columns that training needs, see `row_columns`; each is read from the disk whenever it is asked for."""
        if "index" in self.__dict__ or self.folder is None:
            return row_columns(self.index)
        columns: Mapping[str, np.ndarray] = np.load(self.folder / ROWS, allow_pickle=False)
        return columns

    @property
    def findings(self) -> tuple[str, ...]:
        """Names of the columns of labels."""
        return tuple(self.rows["findings"].tolist())

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> pd.DataFrame:
            if name not in ("index", "rejected") or self.__dict__.get("folder") is None:
                raise AttributeError(f"a store has no {name!r}")
            path = self.folder / f"{name}.csv"
            with reading(path, "a table of a store", BUILD_AGAIN):
                return self.__dict__.setdefault(name, read_index(path) if name == "index" else read_table(path))

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "rows"}
        return state if self.folder is None else {**state, "images": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["images"] is None:
            state = {**state, "images": _map(state["folder"])}
        self.__dict__.update(state)


def open_store(folder: str | Path, verify: bool = False) -> Store:
    """Open a store.

    The checksums of its tables, the length of its pixels and the checksums of 16 images are compared.

    Args:
        folder: where it is.
        verify: compare the checksum of every image too: the whole file is read.

    Raises:
        FileNotFoundError: if there is no store, or it is not complete yet.
        ValueError: if a part of it is damaged, or was changed after it was built (names the part, or the image).
    """
    folder = Path(folder)
    provenance = read_provenance(folder)
    if provenance is None:
        if (folder / "building").is_dir():
            raise FileNotFoundError(f"the image store {folder} is not complete; run the command that began it again")
        raise FileNotFoundError(f"there is no image store at {folder}; monai-simclr store builds one")
    if provenance.get("format") != FORMAT:
        raise ValueError(
            f"by its provenance.json {folder} is a store of format {provenance.get('format', 1)}, not {FORMAT}; build "
            "it again"
        )
    has_rows = ROWS in provenance["sha256"]
    for name in (*TABLES, ROWS) if has_rows else TABLES:
        if not (folder / name).is_file() or file_sha256(folder / name) != provenance["sha256"][name]:
            raise _altered(folder / name)
    store = Store.__new__(Store)
    store.__dict__.update(images=_map_checked(folder, provenance), provenance=provenance, folder=folder, absent="")
    if has_rows:
        checksums = store.rows["pixels"]
    else:  # a store of before it had them
        sums = [int(pixels) for pixels in read_table(folder / "sources.csv")["pixels"] if pixels != "-1"]
        checksums = np.array(sums, dtype=np.uint32)
        assert len(store.index) == len(checksums)  # read while the checksum of its file is known to fit
    images = store.images
    last = len(images) - 1
    places = range(last + 1) if verify else np.unique(np.linspace(0, last, _COMPARED).astype(int)).tolist()
    bad = [place for place in places if zlib.crc32(images[place]) != checksums[place]]
    if bad:
        name = shown(Path(store.index["image"].iloc[bad[0]]).name)
        which = f"{len(bad)} images of {folder} were changed, the first is row {bad[0]} ({name})"
        raise _altered(folder / "images.npy", f"{_CHANGED}: {which}")
    if verify and file_sha256(folder / "images.npy") != provenance["sha256"]["images.npy"]:
        raise _altered(folder / "images.npy")
    return store


def read_provenance(folder: str | Path) -> dict[str, Any] | None:
    """The provenance of a complete store, None where there is none.

    Raises:
        DamagedFileError: if the file cannot be read, or was altered.
    """
    path = Path(folder) / "provenance.json"
    if not path.exists():
        return None
    content: dict[str, Any] = read_json(path, "the provenance of a store", BUILD_AGAIN)
    if content.get("format") == FORMAT:
        sums, numbers = content.get("sha256"), [content.get(name) for name in ("images", "size", "rejected")]
        complete = (
            isinstance(sums, dict)
            and {*TABLES, "images.npy"} <= set(sums)
            and all(_SHA256.fullmatch(str(checksum)) for checksum in sums.values())
            and isinstance(content.get("versions"), dict)
            and isinstance(content.get("index"), str)
            and all(isinstance(number, int) and number >= 0 for number in numbers)
        )
        if not complete:
            raise _altered(path, "lacks what the provenance of a store says")
    return content


def _altered(path: Path, problem: str = _CHANGED) -> DamagedFileError:
    return DamagedFileError(path, problem, BUILD_AGAIN)


def _map(folder: Path) -> np.ndarray:
    """The pixels as a plain array over the mapped file: indexing a `np.memmap` costs several times as much."""
    return np.lib.format.open_memmap(folder / "images.npy", mode="r").view(np.ndarray)


def _map_checked(folder: Path, provenance: dict[str, Any]) -> np.ndarray:
    path, shape = folder / "images.npy", (provenance["images"], provenance["size"], provenance["size"])
    try:
        images = _map(folder)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        why = str(error) if "pickle" not in str(error) else "it is not a .npy file"
        raise _altered(path, f"cannot be mapped ({why}), so it was changed") from error
    if images.shape != shape or images.dtype != np.uint8:
        raise _altered(path, f"is {images.dtype} {images.shape}, not uint8 {shape} as provenance.json says")
    return images
