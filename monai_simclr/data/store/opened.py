"""An open image store, and the checks that its parts are what they were when it was built."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.index import COLUMNS, read_index
from monai_simclr.files import sha256_of
from monai_simclr.names import shown
from monai_simclr.tables import read_table

__all__ = ["FORMAT", "TABLES", "Store", "absent_store", "open_store", "read_provenance"]

FORMAT = 2
"""Of the folder; stores of another format are built again."""

TABLES = ("index.csv", "rejected.csv", "sources.csv")
_LOOKED_AT = 16  # images whose checksum is looked at whenever a store is opened


@dataclass(frozen=True)
class Store:
    """An open image store.

    Attributes:
        images: uint8 ``(N, S, S)``, a read-only memory map.
        index: the N rows of the index that were decoded, in the same order.
        rejected: `image` and `reason` of those that were not.
        provenance: what the store was made of and with.
        folder: where it is; None when it is in memory only. With a folder, pickling takes no pixels along: the other
            process maps the same file.
        absent: why there is nothing in it, for an archive that is not there; see `absent_store`.
    """

    images: np.ndarray
    index: pd.DataFrame
    rejected: pd.DataFrame
    provenance: dict[str, Any]
    folder: Path | None = None
    absent: str = ""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ if self.folder is None else {**self.__dict__, "images": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["images"] is None:
            state = {**state, "images": _map(state["folder"])}
        self.__dict__.update(state)


def absent_store(size: int, why: str) -> Store:
    """A store of nothing, which stands for an archive that is not there: what is built on it can be looked at, not run.

    Args:
        size: S, side of the images that it does not have.
        why: the sentence that a run ends with.

    Example:
        >>> absent_store(64, "there is no folder data").images.shape
        (0, 64, 64)
    """
    rejected = pd.DataFrame(columns=["image", "reason"], dtype=str)
    index = pd.DataFrame(columns=list(COLUMNS), dtype=str)
    return Store(np.zeros((0, size, size), dtype=np.uint8), index, rejected, {}, absent=why)


def open_store(folder: str | Path, verify: bool = False) -> Store:
    """Open a store.

    The checksums of its tables, the length of its pixels and the checksums of 16 images are looked at.

    Args:
        folder: where it is.
        verify: look at the checksum of every image too: the whole file is read.

    Raises:
        FileNotFoundError: if there is no store, or one that is not whole yet.
        ValueError: if a part of it was changed after it was built (names the part, or the image).
    """
    folder = Path(folder)
    provenance = read_provenance(folder)
    if provenance is None:
        if (folder / "building").is_dir():
            raise FileNotFoundError(f"the image store {folder} is not whole yet; run the command that began it again")
        raise FileNotFoundError(f"there is no image store at {folder}; monai-simclr store builds one")
    if provenance.get("format") != FORMAT:
        raise ValueError(f"{folder} is a store of format {provenance.get('format', 1)}, not {FORMAT}; build it again")
    for name in TABLES:
        if not (folder / name).is_file() or sha256_of(folder / name) != provenance["sha256"][name]:
            raise ValueError(_altered(f"{folder / name} was changed"))
    store = Store(
        _checked_map(folder, provenance),
        read_index(folder / "index.csv"),
        read_table(folder / "rejected.csv"),
        provenance,
        folder,
    )
    _check_images(store, folder, range(len(store.images)) if verify else _spread(len(store.images)))
    if verify and sha256_of(folder / "images.npy") != provenance["sha256"]["images.npy"]:
        raise ValueError(_altered(f"{folder / 'images.npy'} was changed"))
    return store


def read_provenance(folder: str | Path) -> dict[str, Any] | None:
    """The provenance of a whole store, None where there is none."""
    path = Path(folder) / "provenance.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _altered(what: str) -> str:
    return f"{what} after the store was built; run monai-simclr store with --rebuild, or remove the folder"


def _map(folder: Path) -> np.ndarray:
    """The pixels as a plain array over the mapped file: indexing a `np.memmap` costs several times as much."""
    return np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _checked_map(folder: Path, provenance: dict[str, Any]) -> np.ndarray:
    try:
        images = _map(folder)
    except (OSError, ValueError) as error:
        raise ValueError(_altered(f"{folder / 'images.npy'} cannot be mapped ({error}), so it was changed")) from error
    shape = (provenance["images"], provenance["size"], provenance["size"])
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(
            _altered(f"{folder / 'images.npy'} is {images.dtype} {images.shape}, not uint8 {shape}: changed")
        )
    return images


def _spread(total: int) -> Sequence[int]:
    return np.unique(np.linspace(0, total - 1, _LOOKED_AT).astype(int)).tolist()


def _check_images(store: Store, folder: Path, places: Sequence[int]) -> None:
    checksums = [int(pixels) for pixels in read_table(folder / "sources.csv")["pixels"] if pixels != "-1"]
    bad = [place for place in places if zlib.crc32(store.images[place]) != checksums[place]]
    if bad:
        name = shown(Path(store.index["image"].iloc[bad[0]]).name)
        raise ValueError(_altered(f"{len(bad)} images of {folder} were changed, the first is row {bad[0]} ({name}),"))
