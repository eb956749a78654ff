"""From the image store to batches: a dataset with keyed randomness, and the samplers that hand out the keys.

The images of a run are a function of (seed, epoch, row) and nothing else: not of the number of workers, the rank, or
what was drawn before. So the sampler yields `(epoch, position)` and the dataset seeds its transform from that.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import set_track_meta
from monai.transforms import Randomizable
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torch.utils.data.distributed import DistributedSampler

from monai_simclr.data.partners import Partners, SecondView
from monai_simclr.data.radiograph import describe_problem
from monai_simclr.data.store import Store
from monai_simclr.data.store.rows import text_keys
from monai_simclr.ops.keyed import KeyedRandom
from monai_simclr.runtime.distributed import rank, world_size
from monai_simclr.runtime.exit_codes import SettingError
from monai_simclr.runtime.signals import STOP_SIGNALS

_DAMAGE = (ValueError, OSError, RuntimeError)
"""What a reader or a transform raises for one bad image."""

_TRIES = 16  # images that are drawn for a damaged one
_SAMPLED = 64  # images whose pixels are in a fingerprint
_BLOCK = 1 << 20  # rows that a fingerprint takes at a time
_PARTNER = 1 << 16
"""Stream of the keyed numbers that choose partners; views have the streams from 0."""


def keyed_state(*key: int) -> np.random.RandomState:
    """The random state of a key of up to four numbers (NumPy's Philox), independent of what was drawn before.

    Example:
        >>> bool(keyed_state(7, 1, 42).uniform() == keyed_state(7, 1, 42).uniform() != keyed_state(7, 2, 42).uniform())
        True
    """
    return np.random.RandomState(np.random.Philox(np.random.SeedSequence(key)))


class StoreRecords(Sequence[Mapping[str, Any]]):
    """Images of a store as the list of dictionaries that a bundle's ``dataset#data`` is, held as columns.

    Args:
        store: an open image store.
        rows: positions in its index, int64 ``(N,)``.
        patients: numbers of the patients, int64 ``(N,)``.
        labels: float32 ``(N, K)``, or None.

    Example:
        >>> from monai_simclr.data import build_store, open_index
        >>> from monai_simclr.data.phantoms import write_nih_phantoms
        >>> store = build_store(open_index(write_nih_phantoms("nih", n_patients=4)), "store", 64, workers=0)
        >>> data = store_records(store, ["train"], ["Effusion"])
        >>> sorted(data[0]), len(data[:2])
        (['image', 'label', 'patient', 'row'], 2)
    """

    def __init__(self, store: Store, rows: np.ndarray, patients: np.ndarray, labels: np.ndarray | None) -> None:
        self.store, self.rows, self.patients, self.labels = store, rows, patients, labels

    @classmethod
    def from_list(cls, store: Store, data: Sequence[Mapping[str, Any]]) -> StoreRecords:
        """The same from dictionaries with ``row``, ``patient`` and, in all or none, ``label``."""
        rows, patients = (np.array([record[name] for record in data], dtype=np.int64) for name in ("row", "patient"))
        labels = [record["label"] for record in data if "label" in record]
        return cls(store, rows, patients, np.array(labels, dtype=np.float32) if labels else None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            labels = None if self.labels is None else self.labels[key]
            return StoreRecords(self.store, self.rows[key], self.patients[key], labels)
        row = int(self.rows[key])
        record = {"image": self.store.index["image"].iat[row], "row": row, "patient": int(self.patients[key])}
        return record if self.labels is None else {**record, "label": self.labels[key].tolist()}


def store_records(
    store: Store, splits: Sequence[str] = ("train",), findings: Sequence[str] = (), rows: np.ndarray | None = None
) -> StoreRecords:
    """List the images of some splits of a store, as `StoreDataset` takes them.

    Args:
        store: an open image store.
        splits: names of the splits whose rows to use; ``""`` is an index without splits.
        findings: names of the findings that go into ``label``; none for training without labels.
        rows: positions in the store's index, when not all rows of the splits are wanted.

    Returns:
        A sequence of dictionaries with ``image``, ``row``, ``patient`` (negative where it is unknown: unknown patients
        are not one patient) and, with `findings`, ``label``; none for an empty store.

    Raises:
        ValueError: if no row is left (names the splits that exist).
    """
    chosen = np.isin(store.rows["split"], text_keys(splits))
    if rows is not None:
        chosen &= np.isin(np.arange(len(chosen)), rows)
    if not chosen.any() and not store.absent:
        found = sorted(set(store.index["split"]))
        raise ValueError(f"no image is in the splits {list(splits)}; the index has {found}; see split_by_patient()")
    kept = np.flatnonzero(chosen)
    labels = _labels(store, kept, findings) if findings else None
    return StoreRecords(store, kept, _patient_numbers(store, kept), labels)


class StoreDataset(Dataset):
    """Records of a store with their pixels, transformed with keyed randomness.

    Args:
        store: an open image store.
        splits, findings, rows: which images, with which labels; see `store_records`.
        transform: dictionary transform of an item; when it is `Randomizable` it is seeded anew for every item.
        seed: first number of the key.
        replace_damaged: when an image cannot be read or transformed, draw another one in its place, with its row under
            ``"damaged_row"`` (otherwise -1) and the reason under ``"damage"`` (otherwise ""); the draw is keyed, so a
            resumed run draws the same. Otherwise the error is raised.
        second_view: which film `MultiViewd` makes the second view of: ``"image"``, the same one (SimCLR); or another
            film of the same ``"patient"``, ``"study"`` or ``"view_position"`` (of the patient), where there is one
            (MedAug, Vu et al., MLHC 2021). It is drawn anew in every epoch and is the item's ``"partner"``.
        data: the images as `store_records` lists them, in the place of `splits`, `findings` and `rows`.

    An item is ``{"image": uint8 (1, S, S), "row": int, "patient": int}``, with ``"label"`` float32 (K,) where there are
    findings, as `transform` leaves it. Two images have the same `patient` when their patients are known and the same.
    In memory a row takes 24 bytes, those of the sampler included, and 4 a finding. A `second_view` of other films and
    `strata` of a sampler read the text of the index besides.
    `data` are the records without pixels, and `splits` the names of their splits; an empty store has none.

    Our transforms that draw and apply (`takes_batches`) make whole batches: with `whole_batches`, PyTorch's loader gets
    a batch as one dictionary of tensors, in a fraction of the time. An item is the same, bit for bit, either way.

    Raises:
        ValueError: if no row is left (names the splits that exist), or `second_view` is unknown.
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
        data: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.store, self.transform, self.seed = store, transform, seed
        self.replace_damaged = replace_damaged
        given = store_records(store, splits, findings, rows) if data is None else data
        self.data = given if isinstance(given, StoreRecords) else StoreRecords.from_list(store, given)
        self.rows, self.patients, self.labels = self.data.rows, self.data.patients, self.data.labels
        self.partners = None if second_view == "image" else Partners(store.index.iloc[self.rows], second_view)
        self.whole_batches = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the images are of."""
        found = np.unique(self.store.rows["split"][self.rows])
        return tuple(name for name in ("train", "val", "test", "") if np.isin(text_keys([name]), found).any())

    @property
    def takes_batches(self) -> bool:
        """Whether the transform makes whole batches."""
        return self.transform is None or getattr(self.transform, "takes_batches", False)

    @property
    def fingerprint(self) -> str:
        """Number of images, and a checksum of their rows and of some pixels; not of folders: an archive may move."""
        digest = hashlib.sha256(self.rows.data)
        for name in ("image", "patient_id", "split"):
            column = self.store.rows[name]
            for start in range(0, len(self), _BLOCK):
                digest.update(column[self.rows[start : start + _BLOCK]].tobytes())
        for row in self.rows[:: max(1, len(self) // _SAMPLED)]:
            digest.update(np.ascontiguousarray(self.store.images[row]).tobytes())
        return f"{len(self)} images, {digest.hexdigest()[:12]}"

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
        if self.replace_damaged:
            batch |= {"damaged_row": torch.full((len(keys),), -1), "damage": [""] * len(keys)}
        return batch

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        epoch, position = _as_pair(key)
        if not self.replace_damaged:
            return self._item(epoch, position)
        try:
            return {**self._item(epoch, position), "damaged_row": -1, "damage": ""}
        except _DAMAGE as error:
            damage = {"damaged_row": int(self.rows[position]), "damage": describe_problem(error)}
            for other in keyed_state(self.seed, epoch, position, 1).randint(len(self), size=_TRIES):
                with contextlib.suppress(*_DAMAGE):
                    return {**self._item(epoch, int(other)), **damage}
            raise

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


def _patient_numbers(store: Store, rows: np.ndarray) -> np.ndarray:
    """Numbers of the rows' patients; below 0, each its own, where the patient is unknown."""
    keys = store.rows["patient_id"][rows]
    unknown = np.flatnonzero(keys == text_keys([""]))
    keys >>= np.uint64(1)
    numbers = keys.view(np.int64)
    numbers[unknown] = -1 - rows[unknown]
    return numbers


def _labels(store: Store, rows: np.ndarray, findings: Sequence[str]) -> np.ndarray:
    names = store.findings
    unknown = [name for name in findings if name not in names]
    if store.absent:
        return np.zeros((0, len(findings)), dtype=np.float32)
    if unknown:
        raise ValueError(f"the index has no labels for {unknown}; it has {list(names)}; see --findings")
    return store.rows["labels"][rows][:, [names.index(name) for name in findings]]


def _as_pair(key: int | tuple[int, int]) -> tuple[int, int]:
    return key if isinstance(key, tuple) else (0, key)


def _whole(batch: Any) -> Any:
    """A batch that is one already: PyTorch's own conversion would look at each word of it."""
    return batch


def _first(batch: dict[str, Any]) -> dict[str, Any]:
    """The only item of a batch of one."""
    return {
        name: _first(value) if isinstance(value, dict) else value[0].item() if value.ndim == 1 else value[0]
        for name, value in batch.items()
    }


class KeyedSampler(DistributedSampler):
    """Yields ``(epoch, position)`` in an order that is a function of (seed, epoch), divided evenly over ranks.

    MONAI's trainers call `set_epoch` on it, as on every `DistributedSampler`. Without `torch.distributed` there is one
    rank. R ranks that take B / R images a step see in every step the same B images as one rank that takes B.

    Args:
        dataset: what to sample from.
        seed: the same on every rank.
        shuffle: keep the order of the dataset when false.
        strata: columns of the dataset's index; the images of a batch then agree in all of them (say source and view
            position), so that they cannot be distinguished by these. Remainders of strata fill batches together.
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
        self._start, self.batch_size, self.strata = (0, 0), batch_size, None
        if not strata:
            return
        if batch_size < 1:
            raise ValueError(f"batches of one stratum need the batch_size of all ranks, got {batch_size}")
        index = dataset.store.index  # type: ignore[attr-defined]
        missing = [name for name in strata if name not in index]
        if missing:
            raise ValueError(f"strata need columns of the index, which lacks {missing}; it has {list(index.columns)}")
        rows = index.iloc[dataset.rows]  # type: ignore[attr-defined]
        self.strata = rows.groupby(list(strata), sort=True, dropna=False).ngroup().to_numpy()

    def start_at(self, epoch: int, done: int) -> None:
        """Skip the first `done` items of an epoch, in which a run was stopped. Other epochs are complete."""
        self._start = (epoch, done)

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        own = self._order()[: self.total_size][self.rank :: self.num_replicas]
        start = self._start[1] if self._start[0] == self.epoch else 0
        return ((self.epoch, int(position)) for position in own[start:])

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


class BalancedSampler(KeyedSampler):
    """Yields ``(epoch, position)`` with replacement, so that rare findings are as frequent as others.

    An image's weight is that of its rarest positive finding, the inverse of how many images have it; images without
    positives share the weight of one finding. The images are a function of (seed, epoch).

    Args:
        dataset: with labels.
        seed: the same on every rank.

    Raises:
        ValueError: if the dataset has no labels.
    """

    def __init__(self, dataset: StoreDataset, seed: int = 0) -> None:
        super().__init__(dataset, seed)
        if dataset.labels is None:
            raise ValueError("balanced sampling needs labels; give the dataset its findings")
        positive = dataset.labels == 1
        of_findings = positive / np.maximum(positive.sum(axis=0), 1)
        none = ~positive.any(axis=1)
        weights = np.where(none, 1 / max(1, none.sum()), of_findings.max(axis=1, initial=0))
        self.weights = weights / weights.sum()

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        generator = keyed_state(self.seed, self.epoch, 0, 0)
        drawn = generator.choice(len(self.weights), size=self.total_size, p=self.weights)
        return ((self.epoch, int(position)) for position in drawn[self.rank : self.total_size : self.num_replicas])


def finetuning_sampler(dataset: StoreDataset, seed: int, balance: str) -> KeyedSampler:
    """`BalancedSampler` for "balanced_sampling", otherwise every image once an epoch."""
    return BalancedSampler(dataset, seed) if balance == "balanced_sampling" else KeyedSampler(dataset, seed)


def loader(
    dataset: StoreDataset, sampler: Sampler, batch_size: int, num_workers: int, seed: int, fewest: int = 1
) -> DataLoader:
    """Batches of equal size; its own random generator, so that opening it changes no other random number.

    Args:
        dataset: the images.
        sampler: their order.
        batch_size: images in a step, over all ranks together.
        num_workers: processes that read and make views; they leave signals to the process that trains.
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
        able = ", ".join(str(ranks) for ranks in range(1, batch_size + 1) if batch_size % ranks == 0)
        raise ValueError(
            f"batch_size is {batch_size} over all ranks, which {world_size()} ranks cannot share evenly; start as many "
            f"ranks as divide it ({able}), also to resume a run, or begin a new run with another --batch_size"
        )
    if here < fewest <= images:
        raise SettingError(
            f"batch_size is {batch_size}, so a step of a rank has {here} image, and it needs {fewest}, since batch "
            f"statistics and a contrastive loss compare images; pass --batch_size {fewest * world_size()} or more, or "
            "fine-tune with --norm group"
        )
    dataset.whole_batches = dataset.takes_batches
    batches: DataLoader = DataLoader(
        dataset,
        here,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=True,
        collate_fn=_whole if dataset.whole_batches else None,
        generator=torch.Generator().manual_seed(seed),
        worker_init_fn=_without_metadata,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    return leave_signals(batches)


def ordered_batches(dataset: StoreDataset, batch_size: int) -> DataLoader:
    """Every image once, in the order of the dataset, for validation; the last batch may be smaller.

    Args:
        dataset: the images.
        batch_size: images in a batch.
    """
    dataset.whole_batches = dataset.takes_batches
    return DataLoader(dataset, batch_size, collate_fn=_whole if dataset.whole_batches else None)


def leave_signals(batches: DataLoader) -> DataLoader:
    """Let the workers of a loader leave Ctrl-C, SIGTERM and SIGUSR1 to this process; returns the same loader.

    A terminal and a cluster send them to all processes; the one that trains, or predicts, finishes its step first. When
    it exits, Python ends its workers by SIGTERM and waits for them, so from then on SIGTERM ends them.
    """
    ending = multiprocessing.RawValue("b", 0)  # shared with the workers
    atexit.register(setattr, ending, "value", 1)  # runs before multiprocessing's own, which was registered earlier
    batches.worker_init_fn = functools.partial(_start_worker, ending=ending, before=batches.worker_init_fn)
    return batches


class _Absent(Dataset):
    """One item that raises: of an empty loader MONAI's engines would skip the run with a warning."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __len__(self) -> int:
        return 1

    def __getitem__(self, row: int) -> None:
        raise FileNotFoundError(self.store.absent)


def _without_metadata(worker: int) -> None:
    """A store has no metadata, and tracking it takes a fifth of the time."""
    set_track_meta(False)


def _start_worker(worker: int, ending: Any, before: Callable[[int], None] | None) -> None:
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0) if ending.value else None)
    if before is not None:
        before(worker)
