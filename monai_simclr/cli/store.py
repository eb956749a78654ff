"""What `monai-simclr store` does: a store of an archive, with progress, and a sentence at the end however it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from monai_simclr.data.open import open_index
from monai_simclr.data.radiograph import DEFAULT_SETTINGS, ReaderSettings
from monai_simclr.data.store.build import StoreOptions, fill_store
from monai_simclr.data.store.opened import Store, open_store
from monai_simclr.runtime.progress import shown_progress
from monai_simclr.runtime.signals import stoppable


def make_store(
    archive: Path, folder: Path, size: int, workers: int | None, max_rejected: float, options: StoreOptions
) -> str:
    """Build the store of an archive, or bring it up to date, and say so in a sentence.

    Args:
        archive: anything that `open_index` recognises.
        folder: of the store.
        size: side of the stored images in pixels.
        workers: processes that decode; None takes all cores that this process may use.
        max_rejected: see `build_store`.
        options: see `StoreOptions`; its progress is replaced by what suits the terminal.

    Returns:
        The closing line.

    Raises:
        KeyboardInterrupt: on Ctrl-C, and `Stopped` on SIGTERM and SIGUSR1, which clusters send before they take a
            machine away; what is decoded is kept.
    """
    started = time.perf_counter()
    workers = len(os.sched_getaffinity(0)) if workers is None and hasattr(os, "sched_getaffinity") else workers
    with stoppable("what is decoded is kept"), shown_progress() as progress:
        options = replace(options, progress=progress)
        whole = fill_store(
            open_index(archive),
            folder,
            size,
            os.cpu_count() or 1 if workers is None else workers,
            max_rejected,
            options,
        )
    if not whole:
        return f"rank {os.environ['RANK']} has decoded its share of {folder}; rank 0 makes the store of all shares"
    return _describe(open_store(folder), folder, time.perf_counter() - started)


def parse_reader(texts: Sequence[str]) -> ReaderSettings:
    """Reader settings from texts as a person types them.

    Raises:
        ValueError: if there is no such setting, or it cannot have that value.

    Example:
        >>> parse_reader(["voi=percentile", "crop_collimation=true"]).crop_collimation
        True
    """
    kinds = {field.name: type(getattr(DEFAULT_SETTINGS, field.name)) for field in fields(ReaderSettings)}
    changes: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in kinds:
            raise ValueError(f"--reader {text}: there is no setting {name!r}; there are {', '.join(kinds)}")
        if kinds[name] is bool and value not in ("true", "false"):
            raise ValueError(f"--reader {text}: {name} is true or false")
        if kinds[name] is int and not value.isdigit():
            raise ValueError(f"--reader {text}: {name} is a whole number")
        changes[name] = value == "true" if kinds[name] is bool else kinds[name](value)
    return replace(DEFAULT_SETTINGS, **changes)


def _describe(store: Store, folder: Path, seconds: float) -> str:
    side, megabytes = store.images.shape[1], store.images.nbytes / 1e6
    made = f"made {folder}: {len(store.images):,} images of {side} x {side} pixels ({megabytes:,.1f} MB)"
    rejected = f", {len(store.rejected):,} rejected (see {folder / 'rejected.csv'})" if len(store.rejected) else ""
    return f"{made}{rejected}, in {seconds:.0f} s; next: --dataset_dir {folder.absolute()} in a bundle's commands"
