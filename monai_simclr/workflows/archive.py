"""From an archive to batches."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_simclr import recipes
from monai_simclr.data import Store, finding_columns, label_fraction, store_of
from monai_simclr.data.store import absent_store
from monai_simclr.runtime.names import encode_name

logger = logging.getLogger("monai_simclr")


def get_store(dataset_dir: str | Path, store_dir: str | Path, size: int, workers: int = 2) -> Store:
    """The image store of an archive: opened when it is there and fits, built otherwise.

    Args:
        dataset_dir: the archive, anything that `open_index` recognises.
        store_dir: where stores are kept; each archive and size has a folder of its own in it.
        size: side of the network's images in pixels; the store keeps `recipes.stored_size(size)`.
        workers: processes that decode.
    """
    root = Path(dataset_dir).resolve()
    stored = recipes.stored_size(size)
    name = f"{root.name}-{stored}-{hashlib.sha256(encode_name(str(root))).hexdigest()[:8]}"
    return store_of(root, Path(store_dir) / name, stored, workers=workers)


def find_store(dataset_dir: str | Path, store_dir: str | Path, size: int, workers: int = 2) -> Store:
    """`get_store`, or an absent store where there is no folder, or an empty one.

    MONAI and its apps build a bundle's parts to look at them (`check_properties` of MONAI's `ConfigWorkflow`), also
    where no data is. Every ``run`` begins with `check_store`, and batches of an absent store raise its sentence, so a
    run without data is an error all the same. What is wrong with an archive that is there is raised here.
    """
    root = Path(dataset_dir)
    try:
        return get_store(root, store_dir, size, workers)
    except FileNotFoundError as error:
        if root.exists() and (root.is_file() or any(root.iterdir())):
            raise
        return absent_store(recipes.stored_size(size), str(error))


def check_store(store: Store, findings: Sequence[str] = (), allow_missing: bool = False) -> None:
    """Begin a run: the archive must be there, and its labels those of the bundle.

    Args:
        store: the archive.
        findings: what the bundle predicts; an archive without any labels is fine here.
        allow_missing: state that an archive with labels may lack some of them, as for pretraining on another archive
            than the one with the labels.

    Raises:
        FileNotFoundError: if it is not there (the sentence of `get_store`).
        ValueError: if it has labels, and lacks a finding (names each, and the nearest that it has).
    """
    if store.absent:
        raise FileNotFoundError(store.absent)
    there = finding_columns(store.index)
    missing = [name for name in findings if name not in there]
    if not there or not missing:
        return
    nearest = {name: difflib.get_close_matches(name, there, 1) for name in missing}
    said = ", ".join(f"{name} (the nearest is {near[0]})" if near else name for name, near in nearest.items())
    problem = f"the archive has no labels for {said}; it has {', '.join(there)}"
    if not allow_missing:
        raise ValueError(
            f"{problem}; make the bundle for these (monai-simclr bundle --findings), or, to pretrain on this archive "
            "and train on another, pass --allow_missing_findings True to pretraining"
        )
    logger.warning(problem)


def labelled_rows(store: Store, fraction: float, draw: int, findings: Sequence[str]) -> np.ndarray:
    """Rows of a store whose labels are used, see `label_fraction`; none of an absent one."""
    if store.absent:
        return np.zeros(0, dtype=int)
    return label_fraction(store.index, fraction, draw, findings)
