"""Building an image store: in parallel, by one process or by the ranks of a job, resumed by the same call."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from monai_simclr.data.open import open_index
from monai_simclr.data.radiograph import DEFAULT_SETTINGS, ReaderSettings
from monai_simclr.data.store.earlier import PreviousStore
from monai_simclr.data.store.join import await_change, await_shards, join, ledger_of, publish
from monai_simclr.data.store.journal import Ledger
from monai_simclr.data.store.opened import FORMAT, TABLES, Store, open_store, read_provenance
from monai_simclr.data.store.pool import decoded
from monai_simclr.data.store.settings import StoreSettings, differences, versions
from monai_simclr.data.store.shard import Shard
from monai_simclr.runtime.artefacts import DamagedFileError
from monai_simclr.runtime.files import FULL, LOCKED, NoSpaceError, write_text
from monai_simclr.runtime.locks import locked
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.progress import LoggedProgress, Progress
from monai_simclr.runtime.tables import table_text

logger = logging.getLogger("monai_simclr.data")


@dataclass(frozen=True)
class StoreOptions:
    """What of a build has a default.

    Attributes:
        squash: resize without padding to a square.
        reader: how files are read.
        rebuild: when what is there was built with other settings, replace it; refused when false.
        patience: seconds that a rank waits for the others while nothing is written.
        progress: called with the number of images that are done, the number of all, and of those rejected.
    """

    squash: bool = False
    reader: ReaderSettings = DEFAULT_SETTINGS
    rebuild: bool = False
    patience: float = 120.0
    progress: Progress = field(default_factory=LoggedProgress, compare=False)


@dataclass(frozen=True)
class _Job:
    """One call of `build_store`."""

    index: pd.DataFrame
    folder: Path
    settings: StoreSettings
    workers: int
    most: float
    options: StoreOptions
    shard: Shard

    @cached_property
    def paths(self) -> list[str]:
        """Of all images, in order."""
        return self.index["image"].tolist()

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of what decodes."""
        return versions()

    @cached_property
    def table(self) -> str:
        """Checksum of the index."""
        return hashlib.sha256(table_text(self.index).encode()).hexdigest()

    @property
    def shards(self) -> list[Shard]:
        """Those of all ranks."""
        return [Shard(self.shard.building, rank, self.shard.world) for rank in range(self.shard.world)]


def build_store(
    index: pd.DataFrame,
    folder: str | Path,
    size: int,
    workers: int = 2,
    max_rejected: float = 0.05,
    options: StoreOptions | None = None,
) -> Store:
    """Decode every image of an index into a store.

    Killed at any moment, it is resumed by the same call: only the images that were in flight are decoded again. A store
    that is there already is opened when nothing has changed; when files have changed, come or gone, the log names
    them and only those are decoded. In a job that torchrun started (RANK and WORLD_SIZE) each rank decodes its
    share, rank 0 joins them, and all return the store.

    Args:
        index: a checked image index.
        folder: where the store shall be; an older store there serves until the new one is whole.
        size: side of the stored images in pixels.
        workers: processes that decode; 0 decodes here.
        max_rejected: share of the images that may be damaged.
        options: see `StoreOptions`.

    Returns:
        The open store. Damaged images are listed in ``rejected.csv`` and left out.

    Raises:
        ValueError: if more than `max_rejected` of the images cannot be read (names the first and why).
        FileExistsError: if the folder holds something else, was built with other settings (names them), or another
            process is at work on it.
        PermissionError: if the folder cannot be written.
        OSError: if there is no room on the disk.
        ChildProcessError: if a decoding process was killed, or another rank is missing.
    """
    job = _job(index, folder, size, workers, max_rejected, options)
    try:
        return _built(job)
    except DamagedFileError as error:
        _discard(job, error)
        return _built(job)


def fill_store(
    index: pd.DataFrame,
    folder: str | Path,
    size: int,
    workers: int = 2,
    max_rejected: float = 0.05,
    options: StoreOptions | None = None,
) -> bool:
    """Do what `build_store` does, and do not wait for rank 0: whether the store is whole."""
    job = _job(index, folder, size, workers, max_rejected, options)
    try:
        with _said(job.folder):
            return _filled(job)
    except DamagedFileError as error:
        _discard(job, error)
        with _said(job.folder):
            return _filled(job)


def store_of(dataset_dir: str | Path, folder: str | Path, size: int, workers: int = 2) -> Store:
    """The store of an archive: opened when it fits, built when it is missing, brought up to date otherwise.

    What has changed since it was built is named in the log: files, or settings, which mean building it again.

    Args:
        dataset_dir: anything that `open_index` recognises, or a store, which is then opened as it is.
        folder: where the store is, or shall be.
        size: side of the stored images in pixels.
        workers: processes that decode.

    Raises:
        ValueError: if `dataset_dir` is a store of another size; and as `build_store` does.
    """
    given = read_provenance(dataset_dir) if _is_store(Path(dataset_dir)) else None
    if given is not None:
        if given.get("size") != size:
            raise ValueError(
                f"the store {dataset_dir} holds images of {given.get('size')} pixels, {size} are needed; "
                f"run monai-simclr store with --size {size}"
            )
        return open_store(dataset_dir)
    return build_store(open_index(dataset_dir), folder, size, workers, options=StoreOptions(rebuild=True))


def _is_store(folder: Path) -> bool:
    """Whether a folder is a store, be it a damaged one; others' archives may have a file of that name too."""
    beside = any((folder / name).exists() for name in ("images.npy", "sources.csv"))
    return beside and (folder / "provenance.json").exists()


def _job(
    index: pd.DataFrame, folder: str | Path, size: int, workers: int, most: float, options: StoreOptions | None
) -> _Job:
    options, shard = options or StoreOptions(), Shard.of_environment(Path(folder) / "building")
    return _Job(index, Path(folder), StoreSettings(size, options.squash, options.reader), workers, most, options, shard)


def _built(job: _Job) -> Store:
    """The store, filled where something is left to do."""
    with _said(job.folder):
        if not _filled(job):
            _await_rank_0(job)
    return open_store(job.folder)


def _discard(job: _Job, error: DamagedFileError) -> None:
    """Give up a store that is damaged, for it to be made again: a cache can be, from the images.

    Only where that was asked for, and only a store: a folder in which somebody else's ``provenance.json`` lies is not.
    """
    ours = all((job.folder / name).exists() for name in ("images.npy", "index.csv"))
    if not job.options.rebuild or not (ours or job.shard.building.is_dir()):
        raise error
    logger.warning(f"{error.path} {error.problem}; the store {job.folder} is made again")
    for name in ("provenance.json", "images.npy", *TABLES):  # one of them may be a folder now
        path = job.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    job.shard.building.mkdir(exist_ok=True)


def _filled(job: _Job) -> bool:
    """Do this rank's part of what is left to do; whether the store is whole then."""
    if _fits(job):
        _tidy(job)
        return True
    _make_folder(job)
    with locked(job.shard.path("lock"), str(job.folder)):
        return _build(job)


def _tidy(job: _Job) -> None:
    """Remove what a kill after the very last step has left."""
    if (job.shard.building / "ready.json").is_file():
        with suppress(OSError), locked(job.shard.path("lock"), str(job.folder)):
            publish(job.folder)


def _fits(job: _Job) -> bool:
    """Whether a whole store is there that this job would make again, byte for byte; reads no pixels."""
    earlier = PreviousStore.at(job.folder)
    if earlier is None or _other_settings(job, earlier.provenance) or not earlier.same_images(job.paths):
        return False
    if earlier.provenance["index"] != job.table or earlier.touched(job.paths):
        return False
    more = job.versions != earlier.provenance["versions"] and not _mixed(job, earlier.provenance)
    return not (more and earlier.provenance["rejected"])  # a decoder was installed: rejected files are tried again


def _other_settings(job: _Job, made: Mapping[str, Any]) -> list[str]:
    now = {"format": FORMAT, **job.settings.as_dict()}
    return differences({name: made.get(name) for name in now}, now)


def _mixed(job: _Job, made: Mapping[str, Any]) -> list[str]:
    """Versions that differ from those that there were; images by both would be mixed in one store."""
    return differences(made.get("versions") or {}, job.versions, added=False)


def _make_folder(job: _Job) -> None:
    folder, ours = job.folder, ("provenance.json", "building")
    if len(job.index) < job.shard.world:
        raise ValueError(f"{len(job.index)} images are fewer than the {job.shard.world} ranks that shall decode them")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; a store is a folder, give another name")
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).exists() for name in ours):
        raise FileExistsError(f"{folder} holds other things than a store; give a new folder")
    job.shard.building.mkdir(parents=True, exist_ok=True)


def _build(job: _Job) -> bool:
    """Fill this rank's shard; rank 0 waits for the others, and makes the store of them."""
    if publish(job.folder) and _fits(job):
        return True
    job.shard.building.mkdir(exist_ok=True)
    ledger = _fill(job, _earlier(job))
    if job.shard.rank:
        return False
    await_shards(job.shards, job.options.patience)
    if job.shard.world > 1:
        ledger = ledger_of(job.shards, len(job.index))
    _check_rejected(job, ledger)
    made = {**job.settings.as_dict(), "versions": job.versions, "index": job.table}
    join(job.index, job.shards, ledger, made)
    return publish(job.folder)


def _await_rank_0(job: _Job) -> None:
    """Wait until rank 0 has put the store in its place."""
    building = job.shard.building
    if not await_change(building, lambda: not building.is_dir(), job.options.patience) or not _fits(job):
        raise ChildProcessError(
            f"the store {job.folder} is not whole: rank 0 of WORLD_SIZE={job.shard.world} has written nothing for "
            f"{job.options.patience:.0f} s; run the same command again with all ranks, what is decoded is kept"
        )


def _earlier(job: _Job) -> PreviousStore | None:
    """The whole store that is there, when its images may be kept; says what has changed since it was built."""
    made = read_provenance(job.folder)
    if made is None:
        return None
    earlier = None if _other_settings(job, made) else PreviousStore.at(job.folder)
    changed = earlier.changed(job.paths) if earlier else []
    said = earlier.describe(job.paths, changed) if earlier else ""
    other = _other_settings(job, made) or _mixed(job, made)
    if other:
        _refuse(job, f"{job.folder} was built otherwise: {', '.join([*other, said] if said else other)}")
        return None
    logger.info(f"{job.folder} is brought up to date: {said or 'the pixels are the same, the tables are not'}")
    return earlier


def _refuse(job: _Job, what: str) -> None:
    """Begin again when that was asked for, and say why; otherwise an error."""
    if not job.options.rebuild:
        raise FileExistsError(f"{what}; give another folder, or pass --rebuild to replace it")
    logger.info(f"{what}; it is built again")


def _fill(job: _Job, earlier: PreviousStore | None) -> Ledger:
    """Decode what this rank's shard lacks."""
    shard, size, rows = job.shard, job.settings.size, job.shard.rows(len(job.index))
    _begin(job)
    ledger, changed = shard.resume(job.paths, size)
    if changed:
        first = shown(Path(job.paths[changed[0]]).name)
        logger.warning(f"{len(changed)} files have changed since they were decoded, the first is {first}; read again")
    if ledger.count:
        logger.info(f"going on in {job.folder}: {ledger.count:,} of {len(rows):,} images are decoded already")

    def on_progress(now: Ledger) -> None:
        job.options.progress(now.count, len(rows), len(now.reasons))
        if len(now.reasons) > job.most * len(job.index):
            _check_rejected(job, now)

    if earlier is not None:
        left = [row for row in rows if not ledger.done[row - rows.start]]
        shard.fill(ledger, earlier.copy_unchanged(shard, job.paths, left, size), on_progress)
    tasks = [(row, job.paths[row]) for row in rows if not ledger.done[row - rows.start]]
    start = {
        "target": str(shard.path("images.npy")),
        "offset": shard.offset(),
        "first": rows.start,
        "settings": job.settings.as_dict(),
    }
    shard.fill(ledger, decoded(tasks, start, min(job.workers, len(tasks))), on_progress)
    write_text(shard.path("whole"), "")
    return ledger


def _begin(job: _Job) -> None:
    """Begin this rank's shard, or see that the one that was begun is of this job."""
    shard, plan = job.shard, {"format": FORMAT, **job.settings.as_dict(), "versions": job.versions, "paths": job.paths}
    _check_world(job)
    before = shard.plan()
    if before is not None:
        other = _other_settings(job, before) or _mixed(job, before) or _other_images(before["paths"], job.paths)
        if not other:
            return
        _refuse(job, f"{shard.building} was begun otherwise: {', '.join(other)}")
    shard.begin(plan, len(shard.rows(len(job.paths))), job.settings.size)


def _check_world(job: _Job) -> None:
    """See that the folder was not begun by another number of ranks."""
    mine = f"of{job.shard.world}"
    for lock in sorted(job.shard.building.glob("*of*.lock")):
        if not lock.stem.endswith(mine) or not lock.stem.removesuffix(mine).isdigit():
            world = lock.stem.partition("of")[2]
            _refuse(job, f"{lock.parent} was begun by {world} processes (WORLD_SIZE), not by {job.shard.world}")
            with locked(lock, str(job.folder)):
                for path in lock.parent.glob(f"{lock.stem}.*"):
                    path.unlink()


def _other_images(before: list[str], now: list[str]) -> list[str]:
    if before == now:
        return []
    pair = next(((b, n) for b, n in zip(before, now, strict=False) if b != n), (before[-1], now[-1]))
    names = " -> ".join(shown(Path(path).name) for path in pair)
    return [f"the list of images was another ({len(before)} images, now {len(now)}; the first that differs: {names})"]


def _check_rejected(job: _Job, ledger: Ledger) -> None:
    if not ledger.reasons:
        return
    row = min(ledger.reasons)
    which = f"the first is {shown(Path(job.paths[row]).name)}: {ledger.reasons[row]}"
    sentence = f"{len(ledger.reasons)} of {ledger.count} images could not be read, {which}"
    if len(ledger.reasons) > job.most * len(job.index):
        raise ValueError(
            f"{sentence}; more than max_rejected={job.most:.0%} are damaged, so something is wrong with the archive"
        )
    logger.warning(f"{sentence}; they are left out and listed in rejected.csv")


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    """Say of an error of the system what it means for a store, and what to do."""
    try:
        yield
    except OSError as error:
        again = "what is decoded is kept, run the same command again"
        if error.errno in FULL:
            raise NoSpaceError(
                error.errno, f"no room for the store {folder} ({error.strerror}); make room: {again}"
            ) from error
        if error.errno in LOCKED:
            raise PermissionError(error.errno, f"the store {folder} cannot be written ({error.strerror})") from error
        raise
