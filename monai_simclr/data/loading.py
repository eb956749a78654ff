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
from torch.utils.data import Dataset, default_collate
from torch.utils.data.distributed import DistributedSampler

from monai_simclr.data.index import records
from monai_simclr.data.partners import Partners, SecondView
from monai_simclr.data.radiograph import problem_of
from monai_simclr.data.store import Store
from monai_simclr.ops.keyed import KeyedRandom
from monai_simclr.runtime.distributed import rank, world_size
from monai_simclr.runtime.names import bytes_of

__all__ = ["KeyedSampler", "StoreDataset", "keyed_state"]

_DAMAGE = (ValueError, OSError, RuntimeError)
"""What a reader or a transform raises for one bad image."""

_TRIES = 16
_SAMPLED = 64
_PARTNER = 1 << 16
"""Stream of the keyed numbers that choose partners; views have the streams from 0."""


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
        second_view: which film `MultiViewd` makes the second view of: ``"image"``, the same one (SimCLR); or another
            film of the same ``"patient"``, ``"study"`` or ``"view_position"`` (of the patient), where there is one
            (MedAug, Vu et al., MLHC 2021). It is drawn anew in every epoch and stands under ``"partner"``.

    An item is ``{"image": uint8 (1, S, S), "row": int, "patient": int}``, with ``"label"`` float32 (K,) where there are
    findings, as `transform` leaves it. Two images have the same `patient` when their patients are known and the same.
    `data` lists the records without pixels; of an absent store there are none.

    Our transforms that draw and apply (`takes_batches`) make whole batches: with `whole_batches`, PyTorch's loader gets
    a batch as one dictionary of tensors, in a fraction of the time. An item is the same, bit for bit, either way.

    Raises:
        ValueError: if no row is left (says which splits there are), or `second_view` is unknown.
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
        second_view: SecondView = "image",
    ) -> None:
        chosen = store.index["split"].isin(list(splits)).to_numpy()
        if rows is not None:
            chosen = chosen & np.isin(np.arange(len(chosen)), rows)
        if not chosen.any() and not store.absent:
            there = sorted(set(store.index["split"]))
            raise ValueError(f"no image is in the splits {list(splits)}; the index has {there}; see split_by_patient()")
        self.store, self.splits, self.transform, self.seed = store, tuple(splits), transform, seed
        self.replace_damaged = replace_damaged
        self.rows = np.flatnonzero(chosen)
        everything = [] if store.absent else records(store.index, findings)
        self.data = [everything[row] for row in self.rows]
        for record in self.data:
            if store.index["patient_id"].iat[record["row"]] == "":
                record["patient"] = -1 - record["row"]  # unknown patients are not one patient
        self.patients = np.array([record["patient"] for record in self.data], dtype=np.int64)
        self.labels = np.array([record["label"] for record in self.data], dtype=np.float32) if findings else None
        self.partners = None if second_view == "image" else Partners(store.index.iloc[self.rows], second_view)
        self.whole_batches = False

    def __len__(self) -> int:
        return len(self.data)

    @property
    def takes_batches(self) -> bool:
        """Whether the transform makes whole batches."""
        return self.transform is None or getattr(self.transform, "takes_batches", False)

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

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> Any:
        """Fetch a batch: a list of items, or with `whole_batches` one dictionary (PyTorch's loader calls this)."""
        if not self.whole_batches:
            return [self[key] for key in keys]
        epochs, positions = np.array([_as_pair(key) for key in keys]).T
        try:
            batch = self._batch(epochs, positions)
        except _DAMAGE:
            if not self.replace_damaged:
                raise
            return default_collate([self[key] for key in keys])
        return {**batch, "damage": [""] * len(keys)} if self.replace_damaged else batch

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        epoch, position = _as_pair(key)
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
        if self.takes_batches:
            return _first(self._batch(np.array([epoch]), np.array([position])))
        item = _first(self._pixels(np.array([epoch]), np.array([position])))
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(state=keyed_state(self.seed, epoch, item["row"]))
        return self.transform(item)  # type: ignore[misc]

    def _batch(self, epochs: np.ndarray, positions: np.ndarray) -> dict[str, Any]:
        batch = self._pixels(epochs, positions)
        if self.transform is None:
            return batch
        return self.transform.batch(batch, KeyedRandom(self.seed, epochs, self.rows[positions]))  # type: ignore[attr-defined,no-any-return]

    def _pixels(self, epochs: np.ndarray, positions: np.ndarray) -> dict[str, Any]:
        """The items at some positions as they are stored, as one dictionary of tensors."""
        rows = self.rows[positions]
        batch: dict[str, Any] = {
            "row": torch.from_numpy(rows),
            "patient": torch.from_numpy(self.patients[positions]),
            "image": torch.from_numpy(self.store.images[rows][:, None]),
        }
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[positions])
        if self.partners is not None:
            u = KeyedRandom(self.seed, epochs, rows, _PARTNER).random_sample(len(rows))
            others = self.rows[self.partners.draw(positions, u)]
            batch["partner"] = torch.from_numpy(self.store.images[others][:, None])
        return batch


def _as_pair(key: int | tuple[int, int]) -> tuple[int, int]:
    return key if isinstance(key, tuple) else (0, key)


def _first(batch: dict[str, Any]) -> dict[str, Any]:
    """The only item of a batch of one."""
    return {
        name: _first(value) if isinstance(value, dict) else value[0].item() if value.ndim == 1 else value[0]
        for name, value in batch.items()
    }


class KeyedSampler(DistributedSampler):
    """Yields ``(epoch, position)`` in an order that is a function of (seed, epoch), shared out evenly over ranks.

    MONAI's trainers call `set_epoch` on it, as on every `DistributedSampler`. Without `torch.distributed` it is one
    rank. R ranks that take B / R images a step see in every step the same B images as one rank that takes B.

    Args:
        dataset: what to sample from.
        seed: the same on every rank.
        shuffle: keep the order of the dataset when false.
        strata: columns of the dataset's index; the images of a batch then agree in all of them (say source and view
            position), so that they cannot be told apart by these. What is left of the strata fills batches together.
        batch_size: images in a step over all ranks; needed with `strata`.

    Raises:
        ValueError: if there are strata without a batch size, or a column is missing.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int = 0,
        shuffle: bool = True,
        strata: Sequence[str] = (),
        batch_size: int = 0,
    ) -> None:
        super().__init__(dataset, world_size(), rank(), shuffle=shuffle, seed=seed, drop_last=True)
        self._start = (0, 0)
        self.batch_size = batch_size
        self.strata = _strata(dataset, strata, batch_size) if strata else None

    def start_at(self, epoch: int, done: int) -> None:
        """Leave out the first `done` items of an epoch: a run was stopped there. Other epochs are whole."""
        self._start = (epoch, done)

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        order = self._order()
        mine = order[: self.total_size][self.rank :: self.num_replicas]
        start = self._start[1] if self._start[0] == self.epoch else 0
        return ((self.epoch, int(position)) for position in mine[start:])

    def _order(self) -> np.ndarray:
        images = len(self.dataset)  # type: ignore[arg-type]
        if not self.shuffle:
            return np.arange(images)
        random = keyed_state(self.seed, self.epoch)
        order = random.permutation(images)
        if self.strata is None:
            return order
        order = order[np.argsort(self.strata[order], kind="stable")]
        edges = np.cumsum(np.bincount(self.strata))[:-1]
        parts = [(part, len(part) // self.batch_size * self.batch_size) for part in np.split(order, edges)]
        pure = np.concatenate([part[:whole] for part, whole in parts]).reshape(-1, self.batch_size)
        rest = np.concatenate([part[whole:] for part, whole in parts])
        mixed = rest[: len(rest) // self.batch_size * self.batch_size].reshape(-1, self.batch_size)
        batches = np.concatenate([pure, mixed])
        return np.concatenate([batches[random.permutation(len(batches))].ravel(), rest[mixed.size :]])


def _strata(dataset: Any, columns: Sequence[str], batch_size: int) -> np.ndarray:
    """The number of each image's stratum."""
    if batch_size < 1:
        raise ValueError(f"batches of one stratum need the batch_size of all ranks, got {batch_size}")
    index = dataset.store.index
    missing = [name for name in columns if name not in index]
    if missing:
        raise ValueError(f"strata need columns of the index, which lacks {missing}; it has {list(index.columns)}")
    return index.iloc[dataset.rows].groupby(list(columns), sort=True, dropna=False).ngroup().to_numpy()
