"""What `monai-simclr store` does: the store of an archive, with progress and a closing line."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from monai_simclr.data.open import open_index
from monai_simclr.data.radiograph import DEFAULT_SETTINGS, ReaderSettings
from monai_simclr.data.store.build import StoreOptions, build_store
from monai_simclr.runtime.progress import shown_progress
from monai_simclr.runtime.signals import stoppable


def run_store_command(
    archive: Path, folder: Path, size: int, workers: int | None, max_rejected: float, options: StoreOptions
) -> tuple[str, dict[str, Any]]:
    """Build the store of an archive, or update it; the closing line, and the facts in it.

    Args:
        archive: anything that `open_index` recognises.
        folder: of the store.
        size: side of the stored images in pixels.
        workers: processes that decode; None takes all cores that this process may use.
        max_rejected: see `build_store`.
        options: see `StoreOptions`; its progress is replaced by what suits the terminal.

    Raises:
        KeyboardInterrupt: on Ctrl-C, and `Stopped` on SIGTERM and SIGUSR1, which clusters send before they take a
            machine away; what is decoded is kept.
    """
    started = time.perf_counter()
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with stoppable("what is decoded is kept"), shown_progress() as progress:
        options = replace(options, progress=progress)
        store = build_store(open_index(archive, engine=options.engine), folder, size, workers, max_rejected, options)
    rejected = f", {len(store.rejected):,} rejected (see {folder / 'rejected.csv'})" if len(store.rejected) else ""
    seconds = time.perf_counter() - started
    facts = {"store": folder, "images": len(store.images), "size": size, "rejected": len(store.rejected)}
    return (
        f"made {folder}: {len(store.images):,} images of {size} x {size} pixels ({store.images.nbytes / 1e6:,.1f} MB)"
        f"{rejected}, in {seconds:.0f} s; next: --dataset_dir {folder.absolute()} in a bundle's commands",
        {**facts, "bytes": store.images.nbytes, "seconds": seconds},
    )


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
