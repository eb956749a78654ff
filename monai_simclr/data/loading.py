"""From the image store to batches: a dataset whose randomness has a key, and the sampler that hands it out.

A run's pictures are a function of (seed, epoch, row) and nothing else: not of the number of workers, the rank, or what
was drawn before. So the sampler yields `(epoch, position)` and the dataset seeds its transform from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from monai_simclr.data.index import records
from monai_simclr.data.store import Store

__all__ = ["KeyedSampler", "StoreDataset", "keyed_state"]


def keyed_state(*key: int) -> np.random.RandomState:
    """The random state that belongs to a key of up to four numbers, whatever was drawn before (NumPy's Philox).

    Example:
        >>> bool(keyed_state(7, 1, 42).uniform() == keyed_state(7, 1, 42).uniform() != keyed_state(7, 2, 42).uniform())
        True
    """
    return np.random.RandomState(np.random.Philox(np.random.SeedSequence(key)))


class StoreDataset(Dataset):
    """Records of a store with their pixels, transformed with keyed randomness.

    Args:
        store: an open image store.
        splits: names of the splits whose rows to use; ``""`` is an index without splits.
        findings: names of the findings that go into ``label``; none for training without labels.
        transform: dictionary transform of an item; when it is `Randomizable` it is seeded anew for every item.
        seed: first number of the key.
        rows: positions in the store's index, when not all rows of the splits are wanted.

    An item is ``{"image": uint8 (1, S, S), "row": int, "patient": int}``, with ``"label"`` float32 (K,) where there are
    findings, as `transform` leaves it. `data` lists the records without pixels.

    Raises:
        ValueError: if no row is left (says which splits there are).
    """

    def __init__(
        self,
        store: Store,
        splits: Sequence[str] = ("train",),
        findings: Sequence[str] = (),
        transform: Callable[[dict[str, Any]], Any] | None = None,
        seed: int = 0,
        rows: np.ndarray | None = None,
    ) -> None:
        chosen = store.index["split"].isin(list(splits)).to_numpy()
        if rows is not None:
            chosen = chosen & np.isin(np.arange(len(chosen)), rows)
        if not chosen.any():
            there = sorted(set(store.index["split"]))
            raise ValueError(f"no image is in the splits {list(splits)}; the index has {there}; see split_by_patient()")
        self.store, self.splits, self.transform, self.seed = store, tuple(splits), transform, seed
        everything = records(store.index, findings)
        self.data = [everything[row] for row in np.flatnonzero(chosen)]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        record = self.data[position]
        item: dict[str, Any] = {"row": record["row"], "patient": record["patient"]}
        item["image"] = torch.from_numpy(np.array(self.store.images[record["row"]]))[None]
        if record.get("label"):
            item["label"] = torch.tensor(record["label"], dtype=torch.float32)
        if self.transform is None:
            return item
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(state=keyed_state(self.seed, epoch, record["row"]))
        return self.transform(item)


class KeyedSampler(DistributedSampler):
    """Yields ``(epoch, position)`` in an order that is a function of (seed, epoch), shared out evenly over ranks.

    MONAI's trainers call `set_epoch` on it, as on every `DistributedSampler`. Without `torch.distributed` it is one
    rank.

    Args:
        dataset: what to sample from.
        seed: the same on every rank.
        shuffle: keep the order of the dataset when false.
    """

    def __init__(self, dataset: Dataset, seed: int = 0, shuffle: bool = True) -> None:
        ranks = torch.distributed.is_available() and torch.distributed.is_initialized()
        world = torch.distributed.get_world_size() if ranks else 1
        rank = torch.distributed.get_rank() if ranks else 0
        super().__init__(dataset, world, rank, shuffle=shuffle, seed=seed, drop_last=True)

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        return ((self.epoch, position) for position in super().__iter__())
