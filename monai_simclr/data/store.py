"""The image store: every radiograph of an archive decoded once, uint8, in one memory map."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr._version import __version__
from monai_simclr.data.index import read_index, write_index
from monai_simclr.data.open import open_index
from monai_simclr.data.reader import RadiographError, read_radiograph
from monai_simclr.files import sha256_of, write_json
from monai_simclr.ops.stored import quantize

__all__ = ["Store", "build_store", "decode", "open_store", "store_of"]

logger = logging.getLogger("monai_simclr.data")


@dataclass(frozen=True)
class Store:
    """An open image store.

    Attributes:
        images: uint8 ``(N, S, S)``, a read-only memory map.
        index: the N rows of the index that were decoded, in the same order.
        rejected: `image` and `reason` of those that were not.
        provenance: what the store was made of and with.
    """

    images: np.ndarray
    index: pd.DataFrame
    rejected: pd.DataFrame
    provenance: dict[str, Any]


def decode(path: str | Path, size: int) -> np.ndarray:
    """Read a radiograph as the store keeps it: canonical, padded to a square, area-resized, uint8 ``(size, size)``."""
    return quantize(read_radiograph(path)[0], size)


def build_store(
    index: pd.DataFrame, folder: str | Path, size: int, workers: int = 2, max_rejected: float = 0.05
) -> Store:
    """Decode every image of an index into a store.

    Args:
        index: a checked image index.
        folder: where the store shall be; an older store there is replaced when the new one is whole.
        size: side of the stored images in pixels.
        workers: processes that decode; 0 decodes here.
        max_rejected: share of the images that may be damaged.

    Returns:
        The open store. Damaged images are listed in ``rejected.csv`` and left out.

    Raises:
        ValueError: if more than `max_rejected` of the images cannot be read (names the first and why).
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _fill(index, part, size, workers, max_rejected)
        old = part.with_suffix(".old")
        if folder.exists():
            os.replace(folder, old)
        os.replace(part, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_store(folder)


def _fill(index: pd.DataFrame, part: Path, size: int, workers: int, max_rejected: float) -> None:
    images = np.lib.format.open_memmap(part / "images.npy", mode="w+", dtype=np.uint8, shape=(len(index), size, size))
    kept: list[int] = []
    rejected: list[dict[str, str]] = []
    for row, found in enumerate(_decoded(index["image"], size, workers)):
        if isinstance(found, str):
            rejected.append({"image": index["image"].iloc[row], "reason": found})
        else:
            images[len(kept)] = found
            kept.append(row)
    _check_rejected(rejected, len(index), max_rejected)
    images.flush()
    del images
    if rejected:
        _shorten(part / "images.npy", len(kept))
    write_index(index.iloc[kept], part / "index.csv")
    pd.DataFrame(rejected, columns=["image", "reason"]).to_csv(part / "rejected.csv", index=False)
    provenance = {"size": size, "fingerprint": _fingerprint(index), "version": __version__}
    write_json(part / "provenance.json", {**provenance, "index_sha256": sha256_of(part / "index.csv")})


def _decoded(paths: pd.Series, size: int, workers: int) -> Iterator[np.ndarray | str]:
    read = partial(_decode_or_reason, size=size)
    if workers == 0:
        yield from map(read, paths)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(read, paths, chunksize=16)


def _decode_or_reason(path: str, size: int) -> np.ndarray | str:
    try:
        return decode(path, size)
    except RadiographError as error:
        return error.problem


def _check_rejected(rejected: list[dict[str, str]], total: int, most: float) -> None:
    if not rejected:
        return
    first = rejected[0]
    which = f"the first is {Path(first['image']).name}: {first['reason']}"
    sentence = f"{len(rejected)} of {total} images could not be read, {which}"
    if len(rejected) > most * total:
        raise ValueError(
            f"{sentence}; more than max_rejected={most:.0%} are damaged, so something is wrong with the archive"
        )
    logger.warning(f"{sentence}; they are left out and listed in rejected.csv")


def _shorten(path: Path, length: int) -> None:
    whole = np.load(path, mmap_mode="r", allow_pickle=False)
    short = np.lib.format.open_memmap(f"{path}.short", mode="w+", dtype=np.uint8, shape=(length, *whole.shape[1:]))
    for start in range(0, length, 1024):
        short[start : start + 1024] = whole[start : min(start + 1024, length)]
    short.flush()
    del short, whole
    os.replace(f"{path}.short", path)


def open_store(folder: str | Path) -> Store:
    """Open a store.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if its parts do not belong together.
    """
    folder = Path(folder)
    if not (folder / "provenance.json").is_file():
        raise FileNotFoundError(f"there is no image store at {folder}; store_of() builds one")
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    if sha256_of(folder / "index.csv") != provenance["index_sha256"]:
        raise ValueError(
            f"{folder}/index.csv was changed after the store was built; remove the folder and build it again"
        )
    index, rejected = (
        read_index(folder / "index.csv"),
        pd.read_csv(folder / "rejected.csv", dtype=str, keep_default_na=False),
    )
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    if images.shape != (len(index), provenance["size"], provenance["size"]):
        raise ValueError(
            f"{folder} has images {images.shape} but {len(index)} index rows; remove it and build it again"
        )
    return Store(images, index, rejected, provenance)


def store_of(dataset_dir: str | Path, folder: str | Path, size: int, workers: int = 2) -> Store:
    """The store of an archive: opened when it fits, built when it is missing or the archive has changed.

    Args:
        dataset_dir: anything that `open_index` recognises.
        folder: where the store is, or shall be.
        size: side of the stored images in pixels.
        workers: processes that decode.
    """
    index = open_index(dataset_dir)
    provenance = Path(folder) / "provenance.json"
    if provenance.is_file():
        found = json.loads(provenance.read_text(encoding="utf-8"))
        if (found["size"], found["fingerprint"]) == (size, _fingerprint(index)):
            return open_store(folder)
        logger.info(f"the archive or the size has changed since {folder} was built; building it again")
    logger.info(f"decoding {len(index)} images once into {folder}")
    return build_store(index, folder, size, workers)


def _fingerprint(index: pd.DataFrame) -> str:
    """Checksum of the table, and of the images' names and sizes."""
    digest = hashlib.sha256(index.to_csv(index=False).encode())
    for path in index["image"]:
        digest.update(f"{path}:{os.path.getsize(path) if os.path.isfile(path) else -1}".encode())
    return digest.hexdigest()
