"""From an archive to batches."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from monai_simclr import recipes
from monai_simclr.data import Store, store_of

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

    Raises:
        ValueError: if the dataset has fewer images than one batch.
    """
    if len(dataset) < batch_size:  # type: ignore[arg-type]
        raise ValueError(
            f"batch_size is {batch_size}, but there are only {len(dataset)} images; pass --batch_size "  # type: ignore[arg-type]
            f"{len(dataset)} or less"  # type: ignore[arg-type]
        )
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(
        dataset, batch_size, sampler=sampler, num_workers=num_workers, drop_last=True, generator=generator,
        persistent_workers=num_workers > 0, pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
