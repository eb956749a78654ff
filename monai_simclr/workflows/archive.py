"""The archive of a bundle's config: its image store, or an empty one where the archive is missing."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_simclr import recipes
from monai_simclr.data import Store, get_store, label_fraction

logger = logging.getLogger("monai_simclr")


def find_store(dataset_dir: str | Path, store_dir: str | Path, size: int, workers: int = 2) -> Store:
    """`get_store`, or an empty store where there is no folder, or an empty one.

    MONAI and its apps build a bundle's parts to inspect them (`check_properties` of MONAI's `ConfigWorkflow`), also
    without data. Every ``run`` begins with `check_store`, and batches of an empty store raise its message, so a run
    without data is an error all the same.

    Args:
        dataset_dir: the archive, anything that `open_index` recognises.
        store_dir: where stores are kept.
        size: side of the network's images in pixels; the store keeps `recipes.stored_size(size)`.
        workers: processes that decode.
    """
    root, stored = Path(dataset_dir), recipes.stored_size(size)
    try:
        return get_store(root, store_dir, stored, workers)
    except FileNotFoundError as error:
        if root.exists() and (root.is_file() or any(root.iterdir())):
            raise
        return Store.empty(stored, str(error))


def check_store(store: Store, findings: Sequence[str] = (), allow_missing: bool = False) -> None:
    """Begin a run: the archive must exist, and its labels must be those of the bundle.

    Args:
        store: the archive.
        findings: what the bundle predicts; an archive without any labels is fine here.
        allow_missing: an archive with labels may lack some of them, as for pretraining on another archive than the
            one with the labels.

    Raises:
        FileNotFoundError: if it does not exist (the message of `get_store`).
        ValueError: if it has labels, and lacks a finding (names each, and the nearest that it has).
    """
    if store.absent:
        raise FileNotFoundError(store.absent)
    columns = store.findings
    missing = {name: difflib.get_close_matches(name, columns, 1) for name in findings if name not in columns}
    if not columns or not missing:
        return
    names = ", ".join(f"{name} (the nearest is {near[0]})" if near else name for name, near in missing.items())
    problem = f"the archive has no labels for {names}; it has {', '.join(columns)}"
    if not allow_missing:
        raise ValueError(
            f"{problem}; make the bundle for these (monai-simclr bundle --findings), or, to pretrain on this archive "
            "and train on another, pass --allow_missing_findings True to pretraining"
        )
    logger.warning(problem)


def labelled_rows(store: Store, fraction: float, draw: int, findings: Sequence[str]) -> np.ndarray:
    """Rows of a store whose labels are used, see `label_fraction`; none of an empty store."""
    if store.absent:
        return np.zeros(0, dtype=int)
    return label_fraction(store.index, fraction, draw, findings)
