"""From an archive to batches."""

from __future__ import annotations

import atexit
import functools
import hashlib
import logging
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import torch
from monai.data.meta_obj import set_track_meta
from torch.utils.data import DataLoader, Dataset, Sampler

from monai_simclr import recipes
from monai_simclr.data import Store, store_of
from monai_simclr.ranks import world_size

__all__ = ["loader", "open_archive"]

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
    name = f"{root.name}-{stored}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    return store_of(root, Path(store_dir) / name, stored, workers=workers)


def loader(dataset: Dataset, sampler: Sampler, batch_size: int, num_workers: int, seed: int) -> DataLoader:
    """Batches of equal size; its own random generator, so that opening it changes no other random number.

    Args:
        dataset: the images.
        sampler: their order.
        batch_size: images in a step, over all ranks together.
        num_workers: processes that read and make views; Ctrl-C and SIGTERM are left to the process that trains.
        seed: of the generator.

    Raises:
        ValueError: if the dataset has fewer images than one batch, or the ranks cannot share a batch evenly.
    """
    images = len(dataset)  # type: ignore[arg-type]
    if images < batch_size:
        raise ValueError(
            f"batch_size is {batch_size}, but there are only {images} images; pass --batch_size {images} or less"
        )
    here, over = divmod(batch_size, world_size())
    if over:
        raise ValueError(f"batch_size is {batch_size} over all ranks, which {world_size()} ranks cannot share evenly")
    ending = multiprocessing.RawValue("b", 0)  # shared with the workers
    atexit.register(setattr, ending, "value", 1)  # runs before multiprocessing's own, which was registered earlier
    start_worker = functools.partial(_start_worker, ending=ending)
    return DataLoader(
        dataset, here, sampler=sampler, num_workers=num_workers, drop_last=True,
        generator=torch.Generator().manual_seed(seed), worker_init_fn=start_worker,
        persistent_workers=num_workers > 0, pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def _start_worker(worker: int, ending: Any) -> None:
    """Leave signals to the process that trains, and metadata out: a store has none, and it takes a fifth of the time.

    A terminal's Ctrl-C and a cluster's SIGTERM go to all processes; the one that trains finishes its step first. When
    it ends, Python ends its workers by SIGTERM and waits for them: then it is meant for us.
    """
    set_track_meta(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0) if ending.value else None)
