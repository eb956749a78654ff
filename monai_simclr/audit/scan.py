"""Every file of an index looked at once, in parallel processes, with progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.audit.header import header_facts
from monai_simclr.audit.look import look_at

_FEW = 2000


def scan(
    paths: Sequence[str], pixels: bool, workers: int = 2, tick: Callable[[int], object] = lambda _: None
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Facts of every file.

    Args:
        paths: of the files.
        pixels: read the pixels too.
        workers: processes; 0 reads here, as fewer than 2,000 headers are anyway.
        tick: called with the number of files that are done, now and then.

    Returns:
        A table with `HEADER_FIELDS` (and, with pixels, `damage`, `frontal`, `border`, `saturated` and `contrast`), one
        row a path; the hashes, uint64 ``(N, 4)``; the thumbnails, uint8 ``(N, 32, 32)``, both empty without pixels.

    Raises:
        OSError: if a worker dies (a decoder crashed, or memory ran out).
    """
    rows: list[dict[str, Any]] = []
    here = workers == 0 or (not pixels and len(paths) < _FEW)
    for facts in map(partial(_facts, pixels=pixels), paths) if here else _spread(paths, pixels, workers):
        rows.append(facts)
        if len(rows) % 16 == 0 or len(rows) == len(paths):
            tick(len(rows))
    hashes = np.array([row.pop("hash") for row in rows]) if pixels else np.zeros((0, 4), np.uint64)
    thumbs = np.array([row.pop("thumb") for row in rows]) if pixels else np.zeros((0, 32, 32), np.uint8)
    return pd.DataFrame(rows), hashes, thumbs


def _facts(path: str, pixels: bool) -> dict[str, Any]:
    return {**header_facts(path), **(look_at(path) if pixels else {})}


def _spread(paths: Sequence[str], pixels: bool, workers: int) -> Iterator[dict[str, Any]]:
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield from pool.map(partial(_facts, pixels=pixels), paths, chunksize=16)
    except BrokenProcessPool as error:
        raise OSError(
            "a worker of the audit died (memory, or a decoder crashed on a file); run it with --workers 0 to see where"
        ) from error
