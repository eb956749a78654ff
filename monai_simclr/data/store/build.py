"""Building an image store: one process lists and writes the journal, others decode; the same call resumes it."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.decoding import DecodeInto, Record, file_identity
from monai_simclr.data.open import open_index
from monai_simclr.data.radiograph import DEFAULT_SETTINGS, ReaderSettings
from monai_simclr.data.store.opened import FORMAT, TABLES, Store, open_store, read_provenance
from monai_simclr.data.store.previous import PreviousStore
from monai_simclr.data.store.rows import ROWS
from monai_simclr.data.store.unfinished import Journal, Ledger, UnfinishedStore, pixels_offset
from monai_simclr.runtime.artefacts import DamagedFileError
from monai_simclr.runtime.cluster import check_engine, open_executor
from monai_simclr.runtime.files import FULL, LOCKED, NoSpaceError
from monai_simclr.runtime.locks import locked
from monai_simclr.runtime.metrics import installed_versions
from monai_simclr.runtime.names import encode_name, shown
from monai_simclr.runtime.progress import LoggedProgress, Progress
from monai_simclr.runtime.spread import map_chunks, reason_of_loss
from monai_simclr.runtime.tables import table_text

logger = logging.getLogger("monai_simclr.data")

TIME_LIMIT = 300.0
"""Seconds that one image may take before its process is ended and the image rejected."""

_CHUNK = 8  # images that a process decodes at a time
_SILENCE = 1800.0  # seconds without a sign of rank 0 after which other ranks give up
_DECODERS = (
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pydicom",
    "nibabel",
    "python-gdcm",
    "pyjpegls",
    "pylibjpeg-openjpeg",
)


@dataclass(frozen=True)
class StoreOptions:
    """What of a build has a default.

    Attributes:
        squash: resize without padding to a square.
        reader: how files are read.
        rebuild: replace a store of other settings, or a damaged one; refused when false.
        progress: called with the number of images that are done, the number of all, and of those rejected.
        engine: what spreads the decoding, see `monai_simclr.runtime.cluster.open_executor`. Workers on other machines
            see the archive and the store below the same paths.

    Raises:
        SettingError: if there is no such engine.
    """

    squash: bool = False
    reader: ReaderSettings = DEFAULT_SETTINGS
    rebuild: bool = False
    progress: Progress = field(default_factory=LoggedProgress, compare=False)
    engine: str = ""

    def __post_init__(self) -> None:
        check_engine(self.engine)


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
    that exists is opened when nothing has changed; when files have changed, come or gone, the log names them and only
    those are decoded. In a job of several ranks (RANK in the environment) rank 0 builds, and the others wait.

    Args:
        index: a checked image index.
        folder: of the store; an older store there serves until the new one is complete.
        size: side of the stored images in pixels.
        workers: processes that decode; 0 decodes in this one.
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
        ChildProcessError: if a decoding process was killed twice, or rank 0 is silent.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    build = _Build(index, Path(folder), size, workers, max_rejected, options or StoreOptions())
    with _explain_errors(build.folder):
        try:
            return build.run()
        except DamagedFileError as error:
            build.discard(error)
            return build.run()


def get_store(archive: str | Path, cache_dir: str | Path, size: int, workers: int = 2) -> Store:
    """The store of an archive: opened when it is current, built when it is missing, updated or rebuilt otherwise.

    What has changed since it was built is named in the log: files, or settings, which mean building it again.

    Args:
        archive: anything that `open_index` recognises, or a store, which is then opened as it is.
        cache_dir: where stores are kept; each archive and size has a folder of its own in it.
        size: side of the stored images in pixels.
        workers: processes that decode.

    Raises:
        ValueError: if `archive` is a store of another size; and as `build_store` does.
    """
    root = Path(archive).resolve()
    parts = ("images.npy", "sources.csv")  # other archives may have a file of the name provenance.json
    if (root / "provenance.json").exists() and any((root / name).exists() for name in parts):
        found = (read_provenance(root) or {}).get("size")
        if found != size:
            raise ValueError(
                f"the store {archive} holds images of {found} pixels, {size} are needed; run monai-simclr store with "
                f"--size {size}"
            )
        return open_store(archive)
    name = f"{root.name}-{size}-{hashlib.sha256(encode_name(str(root))).hexdigest()[:8]}"
    return build_store(open_index(root), Path(cache_dir) / name, size, workers, options=StoreOptions(rebuild=True))


def versions() -> dict[str, str]:
    """Versions of everything that turns files into pixels, as far as it is installed."""
    return installed_versions("monai-simclr", *_DECODERS)


class _Build:
    """One call of `build_store`."""

    def __init__(
        self, index: pd.DataFrame, folder: Path, size: int, workers: int, max_rejected: float, options: StoreOptions
    ) -> None:
        self.index, self.folder, self.workers, self.max_rejected = index, folder, workers, max_rejected
        self.options, self.unfinished = options, UnfinishedStore(folder, size)
        self.paths: list[str] = index["image"].tolist()
        self.settings: dict[str, Any] = {"size": size, "squash": options.squash, "reader": options.reader.recorded()}
        self.versions = versions()
        self.decoders = dict.fromkeys(_DECODERS, "") | self.versions
        self.index_sha256 = hashlib.sha256(table_text(index).encode()).hexdigest()

    def run(self) -> Store:
        """Do what is left to do, and open the store."""
        if int(os.environ.get("RANK", 0)):
            return self._await_rank_0()
        if not self._is_current():
            self._make_folder()
            with locked(self.unfinished.lock, str(self.folder)):
                if not (self.unfinished.publish() and self._is_current()):
                    self._build()
        elif self.unfinished.is_ready:  # a kill after the very last step left this folder
            with suppress(OSError), locked(self.unfinished.lock, str(self.folder)):
                self.unfinished.publish()
        return open_store(self.folder)

    def discard(self, error: DamagedFileError) -> None:
        """Remove a store that is damaged, to be made again; raise the error where that is not asked for, or not ours.

        A folder with a ``provenance.json`` of somebody else is not a store.
        """
        is_store = all((self.folder / name).exists() for name in ("images.npy", "index.csv"))
        if not self.options.rebuild or not (is_store or self.unfinished.folder.is_dir()):
            raise error
        logger.warning(f"{error.path} {error.problem}; the store {self.folder} is made again")
        for name in ("provenance.json", "images.npy", ROWS, *TABLES):  # one of them may be a folder now
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.unfinished.folder.mkdir(exist_ok=True)

    def _is_current(self) -> bool:
        """Whether a complete store exists that this build would make again, byte for byte; reads no pixels."""
        previous = PreviousStore.read(self.folder)
        if previous is None or self._other_settings(previous.provenance) or not previous.is_untouched(self.paths):
            return False
        if previous.provenance["index"] != self.index_sha256:
            return False
        new_decoder = self.versions != previous.provenance["versions"] and not self._mixed(previous.provenance)
        return not (new_decoder and previous.provenance["rejected"])  # rejected files are tried again

    def _other_settings(self, provenance: Mapping[str, Any]) -> list[str]:
        now = {"format": FORMAT, **self.settings}
        return differences({name: provenance.get(name) for name in now}, now)

    def _mixed(self, provenance: Mapping[str, Any]) -> list[str]:
        """Versions that differ from those of a store; images by both would be mixed."""
        return differences(provenance.get("versions") or {}, self.versions, added=False)

    def _make_folder(self) -> None:
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file; a store is a folder, give another name")
        ours = any((folder / name).exists() for name in ("provenance.json", "building"))
        if folder.is_dir() and any(folder.iterdir()) and not ours:
            raise FileExistsError(f"{folder} holds other things than a store; give a new folder")
        self.unfinished.folder.mkdir(parents=True, exist_ok=True)

    def _await_rank_0(self) -> Store:
        """Open the store that rank 0 makes, as long as it shows signs of work; needs no locks over a network."""
        signs, since = None, time.monotonic()
        while True:
            now = [file_identity(self.folder / name) for name in ("provenance.json", "building/journal", "building")]
            if now != signs:
                if signs is None or now[0] != signs[0]:
                    with suppress(DamagedFileError, FileNotFoundError):  # rank 0 is making it again
                        if self._is_current():
                            return open_store(self.folder)
                signs, since = now, time.monotonic()
            if time.monotonic() - since > _SILENCE:
                raise ChildProcessError(
                    f"the store {self.folder} is not complete, and rank 0 has written nothing for "
                    f"{_SILENCE / 60:.0f} min; run the same command again, what is decoded is kept"
                )
            time.sleep(0.2)

    def _build(self) -> None:
        self.unfinished.folder.mkdir(exist_ok=True)
        ledger = self._decode(self._previous())
        self._check_rejected(ledger)
        made = {**self.settings, "versions": self.versions, "index": self.index_sha256}
        self.unfinished.finish(self.index, ledger, made)
        self.unfinished.publish()

    def _previous(self) -> PreviousStore | None:
        """The complete store that exists, when its images may be kept; logs what has changed since it was built."""
        provenance = read_provenance(self.folder)
        if provenance is None:
            return None
        other = self._other_settings(provenance)
        previous = None if other else PreviousStore.read(self.folder)
        described = previous.describe(self.paths, previous.changed(self.paths)) if previous else ""
        if other := other or self._mixed(provenance):
            reasons = [*other, described] if described else other
            self._refuse(f"{self.folder} was built otherwise: {', '.join(reasons)}")
            return None
        logger.info(f"{self.folder} is updated: {described or 'the pixels are the same, the tables are not'}")
        return previous

    def _refuse(self, problem: str) -> None:
        """Begin again when that was asked for, and log why; otherwise raise."""
        if not self.options.rebuild:
            raise FileExistsError(f"{problem}; give another folder, or pass --rebuild to replace it")
        logger.info(f"{problem}; it is built again")

    def _decode(self, previous: PreviousStore | None) -> Ledger:
        """Decode what is missing, or copy it from the previous store."""
        unfinished = self.unfinished
        self._begin()
        ledger, changed = unfinished.resume(self.paths)
        if changed:
            first = shown(Path(self.paths[changed[0]]).name)
            logger.warning(
                f"{len(changed)} files have changed since they were decoded, the first is {first}; read again"
            )
        if ledger.count:
            logger.info(f"resuming in {self.folder}: {ledger.count:,} of {ledger.total:,} images are decoded already")
        with closing(Journal(unfinished.journal, unfinished.pixels)) as journal:

            def keep(record: Record) -> None:
                journal.add(record)
                ledger.add(record)
                self.options.progress(ledger.count, ledger.total, len(ledger.reasons))
                if len(ledger.reasons) > self.max_rejected * ledger.total:
                    self._check_rejected(ledger)

            if previous is not None:
                for record in previous.copy_unchanged(unfinished, self.paths, np.flatnonzero(~ledger.done).tolist()):
                    keep(record)
            missing = np.flatnonzero(~ledger.done)
            chunks = (
                [(row, self.paths[row]) for row in missing[start : start + _CHUNK].tolist()]
                for start in range(0, len(missing), _CHUNK)
            )
            offset, options = pixels_offset(unfinished.pixels), self.options
            target, size = unfinished.pixels.absolute(), unfinished.size
            decode = DecodeInto(target, offset, size, options.squash, options.reader, self.decoders)
            workers = min(self.workers, -(-len(missing) // _CHUNK))
            with open_executor(options.engine, workers) if len(missing) else nullcontext() as executor:
                for record in map_chunks(decode, chunks, executor, _blame, time_limit=TIME_LIMIT):
                    keep(record)
        return ledger

    def _begin(self) -> None:
        """Begin the build, or check that the one that was begun is this one."""
        plan = {
            "format": FORMAT,
            **self.settings,
            "versions": self.versions,
            "images": len(self.paths),
            "list": _list_sha256(self.paths),
        }
        before = self.unfinished.plan()
        if before is not None:
            other = self._other_settings(before) or self._mixed(before)
            if not other and before["list"] != plan["list"]:
                other = [f"the list of images was another ({before['images']} images, now {len(self.paths)})"]
            if not other:
                return
            self._refuse(f"{self.unfinished.folder} was begun otherwise: {', '.join(other)}")
        self.unfinished.begin(plan)

    def _check_rejected(self, ledger: Ledger) -> None:
        if not ledger.reasons:
            return
        row = min(ledger.reasons)
        first = f"the first is {shown(Path(self.paths[row]).name)}: {ledger.reasons[row]}"
        problem = f"{len(ledger.reasons)} of {ledger.count} images could not be read, {first}"
        if len(ledger.reasons) > self.max_rejected * ledger.total:
            raise ValueError(
                f"{problem}; more than max_rejected={self.max_rejected:.0%} are damaged, so something is wrong with "
                "the archive"
            )
        logger.warning(f"{problem}; they are left out and listed in rejected.csv")


def _list_sha256(paths: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(encode_name(path) + b"\0")
    return digest.hexdigest()


def _blame(task: tuple[int, str], error: BaseException) -> Record:
    """The record of an image that ended its process twice; raises where the process was killed from outside."""
    row, path = task
    return Record(row, *file_identity(path), "", -1, reason_of_loss(error, path, TIME_LIMIT))


def differences(before: Mapping[str, Any], now: Mapping[str, Any], added: bool = True) -> list[str]:
    """Name what differs between two nested mappings; without `added`, names that `before` lacks do not count.

    Example:
        >>> differences({"size": 32, "reader": {"voi": "auto"}}, {"size": 64, "reader": {"voi": "none"}})
        ['size was 32, is 64', "reader.voi was 'auto', is 'none'"]
    """

    def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in mapping.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    old, new = dict(flat(before)), dict(flat(now))
    names = [name for name in {**old, **new} if added or name in old]
    return [f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names if old.get(name) != new.get(name)]


@contextmanager
def _explain_errors(folder: Path) -> Iterator[None]:
    """Add to an error of the system what it means for a store, and what to do."""
    try:
        yield
    except OSError as error:
        again = "what is decoded is kept, run the same command again"
        if error.errno in FULL:
            problem = os.strerror(error.errno) if isinstance(error, NoSpaceError) else error.strerror
            raise NoSpaceError(
                error.errno, f"no room for the store {folder} ({problem}); make room: {again}"
            ) from error
        if error.errno in LOCKED:
            raise PermissionError(error.errno, f"the store {folder} cannot be written ({error.strerror})") from error
        raise
