"""From the image store to batches: a dataset whose randomness has a key, and the sampler that hands it out.

A run's pictures are a function of (seed, epoch, row) and nothing else: not of the number of workers, the rank, or what
was drawn before. So the sampler yields `(epoch, position)` and the dataset seeds its transform from that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from monai_simclr.data.index import records
from monai_simclr.data.radiograph import problem_of
from monai_simclr.data.store import Store
from monai_simclr.names import bytes_of
from monai_simclr.ranks import rank, world_size

__all__ = ["KeyedSampler", "StoreDataset", "keyed_state"]

_DAMAGE = (ValueError, OSError, RuntimeError)
"""What a reader or a transform raises for one bad image."""

_TRIES = 16
_SAMPLED = 64


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
        replace_damaged: when an image cannot be read or transformed, draw another one in its place, and say so under
            ``"damage"``; the draw is keyed, so a resumed run draws the same. Otherwise the error is raised.

    An item is ``{"image": uint8 (1, S, S), "row": int, "patient": int}``, with ``"label"`` float32 (K,) where there are
    findings, as `transform` leaves it. Two images have the same `patient` when their patients are known and the same.
    `data` lists the records without pixels; of an absent store there are none.

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
        replace_damaged: bool = False,
    ) -> None:
        chosen = store.index["split"].isin(list(splits)).to_numpy()
        if rows is not None:
            chosen = chosen & np.isin(np.arange(len(chosen)), rows)
        if not chosen.any() and not store.absent:
            there = sorted(set(store.index["split"]))
            raise ValueError(f"no image is in the splits {list(splits)}; the index has {there}; see split_by_patient()")
        self.store, self.splits, self.transform, self.seed = store, tuple(splits), transform, seed
        self.replace_damaged = replace_damaged
        everything = [] if store.absent else records(store.index, findings)
        self.data = [everything[row] for row in np.flatnonzero(chosen)]
        for record in self.data:
            if store.index["patient_id"].iat[record["row"]] == "":
                record["patient"] = -1 - record["row"]  # unknown patients are not one patient

    def __len__(self) -> int:
        return len(self.data)

    @property
    def fingerprint(self) -> str:
        """What tells this set of images from another: how many, and a checksum of their rows and of some pixels.

        Folders are not in it: an archive may move.
        """
        index, digest = self.store.index, hashlib.sha256()
        for record in self.data:
            row = record["row"]
            name = Path(str(record["image"])).name
            digest.update(bytes_of(f"{row},{name},{index['patient_id'].iat[row]},{index['split'].iat[row]};"))
        for record in self.data[:: max(1, len(self.data) // _SAMPLED)]:
            digest.update(np.ascontiguousarray(self.store.images[record["row"]]).tobytes())
        return f"{len(self.data)} images, {digest.hexdigest()[:12]}"

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        if not self.replace_damaged:
            return self._item(epoch, position)
        try:
            return {**self._item(epoch, position), "damage": ""}
        except _DAMAGE as error:
            return self._another(epoch, position, error)

    def _another(self, epoch: int, damaged: int, error: Exception) -> Any:
        draws = keyed_state(self.seed, epoch, damaged, 1).randint(len(self.data), size=_TRIES)
        damage = f"{self.data[damaged]['row']}: {problem_of(error)}"
        for position in draws:
            try:
                return {**self._item(epoch, int(position)), "damage": damage}
            except _DAMAGE:
                continue
        raise error

    def _item(self, epoch: int, position: int) -> Any:
        record = self.data[position]
        item: dict[str, Any] = {"row": record["row"], "patient": record["patient"]}
        item["image"] = torch.from_numpy(self.store.images[record["row"] : record["row"] + 1].copy())
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
    rank. R ranks that take B / R images a step see in every step the same B images as one rank that takes B.

    Args:
        dataset: what to sample from.
        seed: the same on every rank.
        shuffle: keep the order of the dataset when false.
    """

    def __init__(self, dataset: Dataset, seed: int = 0, shuffle: bool = True) -> None:
        super().__init__(dataset, world_size(), rank(), shuffle=shuffle, seed=seed, drop_last=True)
        self._start = (0, 0)

    def start_at(self, epoch: int, done: int) -> None:
        """Leave out the first `done` items of an epoch: a run was stopped there. Other epochs are whole."""
        self._start = (epoch, done)

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        images = len(self.dataset)  # type: ignore[arg-type]
        order = keyed_state(self.seed, self.epoch).permutation(images) if self.shuffle else np.arange(images)
        mine = order[: self.total_size][self.rank :: self.num_replicas]
        start = self._start[1] if self._start[0] == self.epoch else 0
        return ((self.epoch, int(position)) for position in mine[start:])
