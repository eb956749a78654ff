"""An open image store, and the checks that its parts are what they were when it was built."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.index import COLUMNS, read_index
from monai_simclr.runtime.artefacts import DamagedFileError, read_json, reading
from monai_simclr.runtime.files import file_sha256
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import read_table

BUILD_AGAIN = "run monai-simclr store with --rebuild, or remove the folder"
"""What to do about a damaged store, as `DamagedFileError` says it."""

FORMAT = 2
"""Of the folder; stores of another format are built again."""

_SUM = re.compile("[0-9a-f]{64}")
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

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ if self.folder is None else {**self.__dict__, "images": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["images"] is None:
            state = {**state, "images": _map(state["folder"])}
        self.__dict__.update(state)


def open_store(folder: str | Path, verify: bool = False) -> Store:
    """Open a store.

    The checksums of its tables, the length of its pixels and the checksums of 16 images are looked at.

    Args:
        folder: where it is.
        verify: look at the checksum of every image too: the whole file is read.

    Raises:
        FileNotFoundError: if there is no store, or one that is not whole yet.
        ValueError: if a part of it is damaged, or was changed after it was built (names the part, or the image).
    """
    folder = Path(folder)
    provenance = read_provenance(folder)
    if provenance is None:
        if (folder / "building").is_dir():
            raise FileNotFoundError(f"the image store {folder} is not whole yet; run the command that began it again")
        raise FileNotFoundError(f"there is no image store at {folder}; monai-simclr store builds one")
    if provenance.get("format") != FORMAT:
        raise ValueError(
            f"by its provenance.json {folder} is a store of format {provenance.get('format', 1)}, not {FORMAT}; build "
            "it again"
        )
    for name in TABLES:
        if not (folder / name).is_file() or file_sha256(folder / name) != provenance["sha256"][name]:
            raise _altered(folder / name, "was changed after the store was built")
    rejected = folder / "rejected.csv"
    with reading(rejected, "a table of a store", BUILD_AGAIN):
        table = read_table(rejected)
    store = Store(_checked_map(folder, provenance), read_index(folder / "index.csv"), table, provenance, folder)
    _check_images(store, folder, range(len(store.images)) if verify else _spread(len(store.images)))
    if verify and file_sha256(folder / "images.npy") != provenance["sha256"]["images.npy"]:
        raise _altered(folder / "images.npy", "was changed after the store was built")
    return store


def read_provenance(folder: str | Path) -> dict[str, Any] | None:
    """The provenance of a whole store, None where there is none.

    Raises:
        DamagedFileError: if the file cannot be read, or was altered.
    """
    path = Path(folder) / "provenance.json"
    if not path.exists():
        return None
    found: dict[str, Any] = read_json(path, "the provenance of a store", BUILD_AGAIN)
    if found.get("format") == FORMAT:
        _check_parts(Path(folder), found)
    return found


def _check_parts(folder: Path, provenance: dict[str, Any]) -> None:
    """See that a provenance of our format says what is read from it."""
    sums, numbers = provenance.get("sha256"), [provenance.get(name) for name in ("images", "size", "rejected")]
    names = (*TABLES, "images.npy")
    whole = isinstance(sums, dict) and all(_SUM.fullmatch(str(sums.get(name))) for name in names)
    whole = whole and isinstance(provenance.get("versions"), dict) and isinstance(provenance.get("index"), str)
    if not whole or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise _altered(folder / "provenance.json", "lacks what the provenance of a store says")


def _altered(path: Path, problem: str) -> DamagedFileError:
    return DamagedFileError(path, problem, BUILD_AGAIN)


def _map(folder: Path) -> np.ndarray:
    """The pixels as a plain array over the mapped file: indexing a `np.memmap` costs several times as much."""
    return np.lib.format.open_memmap(folder / "images.npy", mode="r").view(np.ndarray)


def _checked_map(folder: Path, provenance: dict[str, Any]) -> np.ndarray:
    try:
        images = _map(folder)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        said = str(error) if "pickle" not in str(error) else "it is no .npy file"
        raise _altered(folder / "images.npy", f"cannot be mapped ({said}), so it was changed") from error
    shape = (provenance["images"], provenance["size"], provenance["size"])
    if images.shape != shape or images.dtype != np.uint8:
        raise _altered(
            folder / "images.npy", f"is {images.dtype} {images.shape}, not uint8 {shape} as provenance.json says"
        )
    return images


def _spread(total: int) -> Sequence[int]:
    return np.unique(np.linspace(0, total - 1, _LOOKED_AT).astype(int)).tolist()


def _check_images(store: Store, folder: Path, places: Sequence[int]) -> None:
    checksums = [int(pixels) for pixels in read_table(folder / "sources.csv")["pixels"] if pixels != "-1"]
    bad = [place for place in places if zlib.crc32(store.images[place]) != checksums[place]]
    if bad:
        name = shown(Path(store.index["image"].iloc[bad[0]]).name)
        problem = f"{len(bad)} images of {folder} were changed, the first is row {bad[0]} ({name})"
        raise _altered(folder / "images.npy", f"was changed after the store was built: {problem}")
