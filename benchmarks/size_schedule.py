"""CPU time of size schedules: each trained in turn with a sixth of the images, beside 96 px throughout, on one machine.

Run: python benchmarks/size_schedule.py IDX OUT [RESULT.json]     (six minutes on one core; IDX and OUT as `scaling.py`)

What the features are worth is `scaling.py`'s to say, with all images; its own seconds are of several machines and days.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from record import RESULTS, save
from scaling import STORED, TRIES, Try, pretrain

from monai_simclr import recipes
from monai_simclr.data import Store, get_store

ROUNDS = 3
NAMES = ("base", *(f"48, 64, 96 px{epochs}, seed 0" for epochs in ("", " for 3, 1, 2 epochs", " for 3, 2, 1 epochs")))


def cpu_seconds(settings: Try, store: Store) -> float:
    """What a pretraining with a sixth of the images takes."""
    few = dataclasses.replace(settings, images=1 / 6)
    with tempfile.TemporaryDirectory() as folder:
        return float(pretrain(few, store, Path(folder) / "try", probe=lambda network, size: [])[1]["cpu_seconds"])


def main(folder: Path, out: Path, path: Path) -> None:
    """Take turns, print and store the seconds and their shares of the first one's."""
    torch.set_num_threads(1)
    store = get_store(folder / "pretraining", out / "store", recipes.stored_size(STORED), workers=1)
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(ROUNDS):
        for name, spent in seconds.items():
            spent.append(cpu_seconds(TRIES[name], store))
    first = seconds[NAMES[0]]
    shares = {name: statistics.median(a / b for a, b in zip(s, first, strict=True)) for name, s in seconds.items()}
    for name in NAMES:
        print(f"{name}: {seconds[name]} CPU s, {shares[name]:.2f}", flush=True)
    save(path, ("torch", "monai"), seconds=seconds, shares=shares)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else RESULTS / "size_schedule.json"
    )
