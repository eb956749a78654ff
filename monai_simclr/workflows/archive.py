"""From an archive to batches."""

from __future__ import annotations

import atexit
import difflib
import functools
import hashlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import set_track_meta
from torch.utils.data import DataLoader, Dataset, Sampler

from monai_simclr import recipes
from monai_simclr.data import Store, StoreDataset, findings_of, label_fraction, store_of
from monai_simclr.data.store import absent_store
from monai_simclr.runtime.distributed import world_size
from monai_simclr.runtime.exit_codes import STOP_SIGNALS, SettingError
from monai_simclr.runtime.names import bytes_of

__all__ = ["find_archive", "labelled_rows", "leave_signals", "loader", "need_archive", "open_archive"]

logger = logging.getLogger("monai_simclr")


def open_archive(dataset_dir: str | Path, store_dir: str | Path, size: int, workers: int = 2) -> Store:
    """The image store of an archive: opened when it is there and fits, built otherwise.

    Args:
        dataset_dir: the archive, anything that `open_index` recognises.
        store_dir: where stores are kept; each archive and size has a folder of its own in it.
        size: side of the network's images in pixels; the store keeps `recipes.stored_size(size)`.
        workers: processes that decode.
    """
    root = Path(dataset_dir).resolve()
    stored = recipes.stored_size(size)
    name = f"{root.name}-{stored}-{hashlib.sha256(bytes_of(str(root))).hexdigest()[:8]}"
    return store_of(root, Path(store_dir) / name, stored, workers=workers)


def find_archive(dataset_dir: str | Path, store_dir: str | Path, size: int, workers: int = 2) -> Store:
    """`open_archive`, or an absent store where there is no folder, or an empty one.

    MONAI and its apps build a bundle's parts to look at them (`check_properties` of MONAI's `ConfigWorkflow`), also
    where no data is. Every ``run`` begins with `need_archive`, and batches of an absent store raise its sentence, so a
    run without data is an error all the same. What is wrong with an archive that is there is raised here.
    """
    root = Path(dataset_dir)
    try:
        return open_archive(root, store_dir, size, workers)
    except FileNotFoundError as error:
        if root.exists() and (root.is_file() or any(root.iterdir())):
            raise
        return absent_store(recipes.stored_size(size), str(error))


def need_archive(store: Store, findings: Sequence[str] = (), allow_missing: bool = False) -> None:
    """Begin a run: the archive must be there, and its labels those of the bundle.

    Args:
        store: the archive.
        findings: what the bundle predicts; an archive without any labels is fine here.
        allow_missing: state that an archive with labels may lack some of them, as for pretraining on another archive
            than the one with the labels.

    Raises:
        FileNotFoundError: if it is not there (the sentence of `open_archive`).
        ValueError: if it has labels, and lacks a finding (names each, and the nearest that it has).
    """
    if store.absent:
        raise FileNotFoundError(store.absent)
    there = findings_of(store.index)
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


def labelled_rows(store: Store, fraction: float, seed: int, findings: Sequence[str]) -> np.ndarray:
    """Rows of a store whose labels are used, see `label_fraction`; none of an absent one."""
    if store.absent:
        return np.zeros(0, dtype=int)
    return label_fraction(store.index, fraction, seed, findings)


def loader(
    dataset: StoreDataset, sampler: Sampler, batch_size: int, num_workers: int, seed: int, fewest: int = 1
) -> DataLoader:
    """Batches of equal size; its own random generator, so that opening it changes no other random number.

    Args:
        dataset: the images.
        sampler: their order.
        batch_size: images in a step, over all ranks together.
        num_workers: processes that read and make views; signals are left to the process that trains.
        seed: of the generator.
        fewest: images that a rank needs in a step, see `fewest_images`; 2 for a contrastive loss.

    Raises:
        FileNotFoundError: when a batch is asked for and the dataset's store is absent.
        ValueError: if the dataset has fewer images than one batch, or the ranks cannot share a batch evenly.
        SettingError: if a rank would have fewer images than it needs, of a dataset that has as many.
    """
    if dataset.store.absent:
        return DataLoader(_Absent(dataset.store))
    images = len(dataset)
    if images < batch_size:
        raise ValueError(
            f"batch_size is {batch_size}, but there are only {images} images; pass --batch_size {images} or less"
        )
    here, over = divmod(batch_size, world_size())
    if over:
        raise ValueError(f"batch_size is {batch_size} over all ranks, which {world_size()} ranks cannot share evenly")
    if here < fewest <= images:
        raise SettingError(
            f"batch_size is {batch_size}, so a step of a rank has {here} image, and it needs {fewest}, since batch "
            f"statistics and a contrastive loss compare images; pass --batch_size {fewest * world_size()} or more, or "
            "fine-tune with --norm group"
        )
    dataset.whole_batches = dataset.takes_batches
    batches: DataLoader = DataLoader(
        dataset, here, sampler=sampler, num_workers=num_workers, drop_last=True,
        collate_fn=_as_it_is if dataset.whole_batches else None,
        generator=torch.Generator().manual_seed(seed), worker_init_fn=_without_metadata,
        persistent_workers=num_workers > 0, pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    return leave_signals(batches)


def leave_signals(batches: DataLoader) -> DataLoader:
    """Let the workers of a loader leave Ctrl-C, SIGTERM and SIGUSR1 to this process; the same loader.

    A terminal and a cluster send them to all processes; the one that trains, or predicts, finishes its step first. When
    it ends, Python ends its workers by SIGTERM and waits for them: then it is meant for them.
    """
    ending = multiprocessing.RawValue("b", 0)  # shared with the workers
    atexit.register(setattr, ending, "value", 1)  # runs before multiprocessing's own, which was registered earlier
    batches.worker_init_fn = functools.partial(_start_worker, ending=ending, before=batches.worker_init_fn)
    return batches


def _as_it_is(batch: Any) -> Any:
    """A batch that the dataset has made as a whole."""
    return batch


class _Absent(Dataset):
    """One item that raises: of an empty loader MONAI's engines would skip the run with a warning."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __len__(self) -> int:
        return 1

    def __getitem__(self, row: int) -> None:
        need_archive(self.store)


def _without_metadata(worker: int) -> None:
    """A store has no metadata, and tracking it takes a fifth of the time."""
    set_track_meta(False)


def _start_worker(worker: int, ending: Any, before: Callable[[int], None] | None) -> None:
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0) if ending.value else None)
    if before is not None:
        before(worker)
