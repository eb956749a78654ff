"""Whole shards to one store: pixels of the kept rows, tables, provenance; and putting it in its place."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.index import write_index
from monai_simclr.data.store.journal import Journal, Ledger
from monai_simclr.data.store.opened import FORMAT, TABLES
from monai_simclr.data.store.shard import Shard
from monai_simclr.runtime.artefacts import DamagedFileError, read_json, write_sealed_json
from monai_simclr.runtime.files import file_sha256, sync, write_atomically
from monai_simclr.runtime.tables import write_rows

logger = logging.getLogger("monai_simclr.data")

_BLOCK = 8 * 2**20  # bytes that are copied at a time
_SECONDS = 0.2


def await_shards(shards: list[Shard], patience: float) -> None:
    """Wait until all shards are whole.

    Raises:
        ChildProcessError: if one is not, and nothing was written in the building folder for `patience` seconds.
    """
    for shard in shards:
        if not await_change(shard.building, shard.path("whole").is_file, patience):
            raise ChildProcessError(
                f"shard {shard.rank} of {shard.world} is missing: rank {shard.rank} of WORLD_SIZE={shard.world} has "
                f"written nothing in {shard.building} for {patience:.0f} s; run the same command again with all ranks, "
                "what is decoded is kept"
            )


def await_change(folder: Path, is_done: Any, patience: float) -> bool:
    """Wait until something is done, as long as the files of a folder change; whether it was done.

    Neither clocks of other machines nor locks are asked, so that it works over a network's file system.
    """
    seen, since = _pulse(folder), time.monotonic()
    while not is_done():
        time.sleep(_SECONDS)
        now = _pulse(folder)
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > patience:
            return bool(is_done())
    return True


def _pulse(folder: Path) -> list[tuple[str, int]]:
    try:
        return sorted((entry.name, entry.stat().st_size) for entry in os.scandir(folder))
    except OSError:
        return []


def join(index: pd.DataFrame, shards: list[Shard], ledger: Ledger, made: dict[str, Any]) -> None:
    """Make the store of whole shards, ready to be put in its place.

    Args:
        index: all rows.
        shards: whole ones.
        ledger: the records of all rows.
        made: size, settings and versions, for the provenance.
    """
    building = shards[0].building
    moves = {name: name for name in TABLES}
    if len(shards) == 1 and ledger.kept.all():
        moves["images.npy"] = shards[0].path("images.npy").name
    else:
        moves["images.npy"] = "images.npy"
        _copy_kept(shards, ledger, made["size"], building / "images.npy")
    write_tables(index, ledger, building)
    sums = {target: file_sha256(building / source) for target, source in moves.items()}
    counts = {"images": int(ledger.kept.sum()), "rejected": int((~ledger.kept).sum())}
    write_sealed_json(building / "provenance.json", {"format": FORMAT, **made, **counts, "sha256": sums})
    write_sealed_json(building / "ready.json", moves)


def write_tables(index: pd.DataFrame, ledger: Ledger, folder: Path) -> None:
    """Write ``index.csv``, ``rejected.csv`` and ``sources.csv``, each whole or not at all."""
    write_index(index.iloc[np.flatnonzero(ledger.kept)], folder / "index.csv")
    images = index["image"].to_numpy()
    rejected = ([images[row], ledger.reasons[row]] for row in np.flatnonzero(~ledger.kept).tolist())
    write_rows(folder / "rejected.csv", ["image", "reason"], rejected)
    records = (ledger.record(row) for row in range(ledger.total))
    lines = ([images[r.row], r.bytes, r.modified, r.sha256, r.pixels] for r in records)
    write_rows(folder / "sources.csv", ["image", "bytes", "modified", "sha256", "pixels"], lines)


def publish(folder: Path) -> bool:
    """Put a store that is ready in its place, or go on with that; whether there was one.

    The old provenance goes first and the new one comes last, so that a kill in between leaves a store that says it is
    not whole, and the next call goes on. Who has the old pixels mapped keeps them.
    """
    building = folder / "building"
    if not (building / "ready.json").is_file():
        return False
    if (building / "provenance.json").is_file():
        try:
            moves = read_json(building / "ready.json", "the end of a build", "it is made again")
        except DamagedFileError as error:
            logger.warning(str(error))
            (building / "ready.json").unlink()
            return False
        (folder / "provenance.json").unlink(missing_ok=True)
        for target, source in moves.items():
            if (building / source).is_file():
                os.replace(building / source, folder / target)
        sync(folder)
        os.replace(building / "provenance.json", folder / "provenance.json")
        sync(folder)
    _remove(building)
    return True


def _remove(building: Path) -> None:
    """Remove the folder of a build; ``ready.json`` goes last, so that a kill in between is seen and gone on with."""
    with suppress(OSError):
        for path in sorted(building.iterdir(), key=lambda path: path.name == "ready.json"):
            path.unlink()
        building.rmdir()


def ledger_of(shards: list[Shard], total: int) -> Ledger:
    """The records of all shards."""
    ledger = Ledger(0, total)
    for shard in shards:
        for record in Journal.read(shard.path("journal")):
            ledger.add(record)
    return ledger


def _copy_kept(shards: list[Shard], ledger: Ledger, size: int, target: Path) -> None:
    with write_atomically(target) as part:
        kept = int(ledger.kept.sum())
        with open(part, "wb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": (kept, size, size)}
            np.lib.format.write_array_header_1_0(out, header)
            for shard in shards:
                _copy_shard(shard, ledger, size * size, out)


def _copy_shard(shard: Shard, ledger: Ledger, area: int, out: Any) -> None:
    rows = shard.rows(ledger.total)
    with open(shard.path("images.npy"), "rb") as file:
        start = shard.offset()
        for first, last in _runs(ledger.kept[rows.start : rows.stop], max(1, _BLOCK // area)):
            file.seek(start + first * area)
            out.write(file.read((last - first) * area))


def _runs(kept: np.ndarray, longest: int) -> Iterator[tuple[int, int]]:
    """Runs of kept rows, none longer than `longest`.

    Example:
        >>> list(_runs(np.array([True, True, False, True, True, True]), 2))
        [(0, 2), (3, 5), (5, 6)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2).tolist():
        for at in range(first, last, longest):
            yield at, min(at + longest, last)
