"""Loader against loader: two views of every image, from stored pixels to the batch that a network takes.

Run: python benchmarks/loaders.py [RESULT.json] [--rounds 7] [--size 96]   (makes .venv-bench the first time)

What is timed is what training waits for: PyTorch's loader, with everything that it calls, and the conversion to float32
in [0, 1] of the views, stacked. lightly and MONAI get the same pixels from memory, and do the same operations with the
same probabilities: crop of 0.3 to 1, 10 degrees, mirror image, brightness and contrast, blur. "batch op" is our
operation alone, on pixels that are in memory already: draw, apply, convert. One thread, CPU time, medians of
interleaved rounds. Two workers are wall time: they need two cores that nobody else uses.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from peers import peer, run_beside_peers

if __name__ == "__main__":
    run_beside_peers("lightly")

import cv2
import numpy as np
import pandas as pd
import torch
from monai import transforms as mt
from monai.data import DataLoader as MonaiLoader
from monai.data import Dataset as MonaiDataset
from record import RESULTS, save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from monai_simclr.cli import demo
from monai_simclr.data import KeyedSampler, Store, StoreDataset, loader
from monai_simclr.data.index import COLUMNS
from monai_simclr.data.phantoms import FINDINGS, write_nih_phantoms
from monai_simclr.engines import PrepareLabelled, PrepareTwoViews
from monai_simclr.recipes import augmentation, stored_size, to_network_input, views
from monai_simclr.transforms import MultiViewd, RandRadiographView, ViewDetector, ViewExposure, ViewPositioning
from monai_simclr.workflows.bundle import copy_bundle, run_bundle

SIZES, BATCH, IMAGES = (56, 96, 224), 64, 512
PAIRS = 10  # comparisons of a size
PRESETS = ("mild", "default", "moco_cxr", "simclr", "phantom")
PACKAGES = ("torch", "monai", "lightly", "torchvision", "opencv-python-headless", "pillow")
Side = Callable[[], int]
"""Makes the views of some images, and says of how many."""


def make_store(folder: Path, size: int, images: int = IMAGES) -> Store:
    """A memory-mapped store of smooth pictures, each another, for views of `size` pixels."""
    side, random = stored_size(size), np.random.default_rng(0)
    picture = cv2.GaussianBlur(random.random((side, side), dtype=np.float32), (0, 0), 2)
    pixels = np.rint((picture - picture.min()) / np.ptp(picture) * 255).astype(np.uint8)
    path = folder / f"images_{size}.npy"
    np.save(path, np.stack([np.roll(pixels, tuple(random.integers(0, side, 2)), (0, 1)) for _ in range(images)]))
    rows = [
        {"image": f"{row}.png", "patient_id": str(row), "study_id": str(row), "split": "train"} for row in range(images)
    ]
    index = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).fillna({"view_position": "PA", "sex": "", "age": 50.0})
    index["Effusion"] = 0.0
    return Store(np.load(path, mmap_mode="r"), index, pd.DataFrame(columns=["image", "reason"]), {})


def lightlys_view(size: int) -> RandRadiographView:
    """The operations that lightly has too, with its probabilities."""
    return RandRadiographView(
        size,
        ViewPositioning(scale=(0.3, 1.0), min_lung_coverage=0.0, flip_prob=0.5),
        ViewExposure(gamma=(1.0, 1.0), brightness=0.4, contrast=0.4, prob=0.8),
        ViewDetector(blur_sigma=(0.1, 2.0), prob_blur=0.5, prob_noise=0.0),
    )


def ours(store: Store, view: RandRadiographView, workers: int = 0) -> DataLoader:
    """The loader of ``configs/pretrain.json``."""
    data = StoreDataset(store, transform=MultiViewd("image", view), replace_damaged=True)
    return loader(data, KeyedSampler(data), BATCH, workers, 0, fewest=2)


def run_through(batches: Iterable, prepare: Callable[[Any], Any]) -> int:
    """Take every batch of a loader and prepare it for a network."""
    count = 0
    for batch in batches:
        prepare(batch)
        count += BATCH
    return count


def our_side(store: Store, view: RandRadiographView) -> Side:
    """Our loader, and the conversion that the trainer does."""
    batches, prepare = ours(store, view), PrepareTwoViews()
    return lambda: run_through(batches, prepare)


def in_memory(store: Store) -> tuple[torch.Tensor, ...]:
    """All images of a store in memory, as batches."""
    return torch.from_numpy(np.array(store.images))[:, None].split(BATCH)


def batch_op(store: Store, view: RandRadiographView) -> Side:
    """Our operation alone, on a batch in memory: draws, views, conversion."""
    prepare, batches = PrepareTwoViews(), in_memory(store)

    def run() -> int:
        for images in batches:
            prepare({"image_1": view.batch(images), "image_2": view.batch(images)})
        return IMAGES

    return run


class PilImages(Dataset):
    """Stored pixels as lightly takes them."""

    def __init__(self, images: np.ndarray, transform: Callable[[Any], list[Tensor]]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> list[Tensor]:
        return self.transform(peer("PIL.Image").fromarray(self.images[row]))


def lightly_batches(images: np.ndarray, size: int, batch_size: int, workers: int = 0) -> DataLoader:
    """lightly's `SimCLRTransform` without color, in PyTorch's loader, as its tutorials have it."""
    transform = peer("lightly.transforms").SimCLRTransform(
        input_size=size,
        cj_prob=0.8,
        cj_strength=1.0,
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.0,
        cj_hue=0.0,
        min_scale=0.3,
        random_gray_scale=0.0,
        gaussian_blur=0.5,
        sigmas=(0.1, 2.0),
        hf_prob=0.5,
        rr_prob=1.0,
        rr_degrees=10,
        normalize=None,
    )
    data = PilImages(np.array(images), transform)
    return DataLoader(data, batch_size, shuffle=True, drop_last=True, num_workers=workers)


def lightly_side(store: Store, size: int) -> Side:
    """lightly's loader."""
    batches = lightly_batches(store.images[: 2 * BATCH], size, BATCH)
    return lambda: run_through(batches, torch.cat)


def monai_side(store: Store, size: int) -> Side:
    """MONAI's Dataset, transforms and DataLoader; its stock has no resized crop: rotate, crop, resize."""
    share = 0.3**0.5
    steps: list[Any] = [
        mt.EnsureTyped("first", dtype=torch.float32),
        mt.ScaleIntensityRanged("first", 0, 255, 0, 1),
        mt.CopyItemsd("first", names="second"),
    ]
    for key in ("first", "second"):
        steps += [
            mt.RandRotated(key, range_x=np.deg2rad(10), prob=1.0, padding_mode="border"),
            mt.RandScaleCropd(key, roi_scale=share, max_roi_scale=1.0, random_size=True),
            mt.Resized(key, (size, size), mode="bilinear"),
            mt.RandFlipd(key, prob=0.5, spatial_axis=1),
            mt.RandScaleIntensityd(key, factors=0.4, prob=0.8),
            mt.RandShiftIntensityd(key, offsets=0.2, prob=0.8),
            mt.RandGaussianSmoothd(key, sigma_x=(0.1, 2.0), sigma_y=(0.1, 2.0), prob=0.5),
        ]
    data = MonaiDataset([{"first": image[None]} for image in np.array(store.images[:BATCH])], mt.Compose(steps))
    batches = MonaiLoader(data, batch_size=BATCH, shuffle=True)  # its second argument is num_workers
    return lambda: run_through(batches, lambda batch: torch.cat([batch["first"], batch["second"]]))


def fine_tuning_sides(store: Store, size: int) -> dict[str, Side]:
    """One mild view with its label, as in ``configs/train.json``, and the operation alone."""
    transform, prepare = augmentation(size), PrepareLabelled()
    data = StoreDataset(store, findings=["Effusion"], transform=transform)
    batches, view = loader(data, KeyedSampler(data), BATCH, 0, 0), views("mild", size)
    pixels, labels = in_memory(store), torch.zeros(BATCH, 1)

    def alone() -> int:
        for images in pixels:
            prepare({"image": view.batch(images), "label": labels})
        return IMAGES

    return {"fine-tuning": lambda: run_through(batches, prepare), "fine-tuning, batch op": alone}


def embedding_sides(store: Store, size: int) -> dict[str, Side]:
    """What `engines.embed` does to hand a network its images, and the operation alone."""
    from monai_simclr.engines import embed

    tiny, pixels = torch.nn.Sequential(torch.nn.AvgPool2d(size), torch.nn.Flatten()), in_memory(store)

    def alone() -> int:
        for images in pixels:
            tiny(to_network_input(images, size)).numpy()
        return IMAGES

    def whole() -> int:
        embed(tiny, store.images, lambda batch: to_network_input(batch, size), batch_size=BATCH)
        return IMAGES

    return {"embedding": whole, "embedding, batch op": alone}


def milliseconds(sides: dict[str, Side], rounds: int, clock: Callable[[], float] = time.process_time) -> dict[str, Any]:
    """Milliseconds an image in every interleaved round, after one that warms up."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            start = clock()
            images = side()
            if number:
                spent[name].append(1000 * (clock() - start) / images)
    return spent


def ratio(spent: dict[str, list[float]], one: str, other: str) -> float:
    """How many times as long one takes as the other: the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(spent[one], spent[other], strict=True))


def of_size(store: Store, size: int, rounds: int) -> list[dict[str, Any]]:
    """The rows of one size: who, against whom, milliseconds an image, ratio, bar."""
    same = lightlys_view(size)
    sides = {
        "our loader": our_side(store, same),
        "batch op": batch_op(store, same.set_random_state(0)),
        "lightly's loader": lightly_side(store, size),
        "MONAI's loader": monai_side(store, size),
        **fine_tuning_sides(store, size),
        **embedding_sides(store, size),
    }
    for preset in PRESETS:
        sides[f"our loader, {preset}"] = our_side(store, views(preset, size))
        sides[f"batch op, {preset}"] = batch_op(store, views(preset, size).set_random_state(0))
    spent = milliseconds(sides, rounds)
    pairs = [
        ("lightly's loader", "our loader", "at least", {56: None, 96: 6.0, 224: 7.0}[size]),
        ("MONAI's loader", "our loader", "at least", 40.0),
        ("our loader", "batch op", "at most", 1.25),
        *((f"our loader, {preset}", f"batch op, {preset}", "at most", 1.25) for preset in PRESETS),
        ("fine-tuning", "fine-tuning, batch op", "at most", 1.25),
        ("embedding", "embedding, batch op", "at most", 1.25),
    ]
    return [
        {
            "size": size,
            "slower": one,
            "faster": other,
            "slower_ms": statistics.median(spent[one]),
            "faster_ms": statistics.median(spent[other]),
            "ratio": ratio(spent, one, other),
            how: bar,
        }
        for one, other, how, bar in pairs
    ]


def with_workers(store: Store, size: int, rounds: int) -> dict[str, float]:
    """Images a second (wall) of one and of two workers, their ratio, and what it would be on idle cores.

    The last is from CPU time: two workers give twice the images of one, less what each image costs them more, as long
    as the process that trains keeps up (`main_share`, its CPU time beside one worker's).
    """
    loaders = {count: ours(store, views("default", size), count) for count in (1, 2)}
    rates: dict[int, list[float]] = {count: [] for count in loaders}
    busy: dict[int, list[float]] = {count: [] for count in loaders}
    main: list[float] = []
    for number in range(rounds + 1):
        for count, batches in loaders.items():
            before, own, start = _worker_seconds(batches), time.process_time(), time.perf_counter()
            images = run_through(batches, lambda batch: None)
            if number:
                rates[count].append(images / (time.perf_counter() - start))
                busy[count].append(_worker_seconds(batches) - before)
                main.append(time.process_time() - own)
    gains = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    one, two = (statistics.median(seconds) for seconds in busy.values())
    return {
        "size": size,
        "one": statistics.median(rates[1]),
        "two": statistics.median(rates[2]),
        "ratio": statistics.median(gains),
        "ratio_by_cpu_time": 2 * one / two,
        "main_share": statistics.median(main) / one,
        "at least": 1.8,
    }


def _worker_seconds(batches: DataLoader) -> float:
    """CPU time of a loader's workers until now (Linux)."""
    workers = [] if batches._iterator is None else batches._iterator._workers  # type: ignore[attr-defined]
    return sum(int(Path(f"/proc/{each.pid}/schedstat").read_text().split()[0]) for each in workers) / 1e9


def waiting(folder: Path, workers: int, epochs: int = 4) -> dict[str, float]:
    """The share of the time that the demo's pretraining waits for data: the median of its epochs but the first."""
    bundle = copy_bundle(folder / f"bundle_{workers}", FINDINGS, size=demo._SIZE, width=demo._WIDTH)
    settings = {"max_epochs": epochs, "batch_size": demo._BATCH, "learning_rate": 0.002, "strength": "phantom"}
    archive = {"dataset_dir": str(folder / "phantoms"), "num_workers": workers, "store_dir": str(folder / "stores")}
    run_bundle(bundle, "pretrain", **archive, **settings)
    history = json.loads((bundle / "output" / "pretrain" / "history.json").read_text(encoding="utf-8"))
    share = statistics.median(epoch["data_share"] for epoch in history[1:])
    return {"workers": workers, "share": share, **({"at most": 0.05} if workers else {})}


def show(row: dict[str, Any]) -> None:
    """Print a row of the comparison."""
    bar = next((f"{how} {row[how]:g}" for how in ("at least", "at most") if row.get(how) is not None), "")
    print(
        f"{row['size']:3d} px  {row['slower']:24s} {row['slower_ms']:7.3f} ms  {row['faster']:24s} "
        f"{row['faster_ms']:7.3f} ms  {row['ratio']:6.2f}  {bar}",
        flush=True,
    )


def main(path: Path, rounds: int, sizes: tuple[int, ...]) -> None:
    """Compare, print, and store with what it ran on; after every part, so that a cut loses nothing."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    settings = {"batch": BATCH, "images": IMAGES, "rounds": rounds, "unit": "CPU ms an image, medians"}
    content: dict[str, Any] = {"settings": settings, "results": [], "workers": [], "waiting": []}

    def keep() -> None:
        content["load"] = {"load_average": os.getloadavg()[1], "cores": os.cpu_count()}
        save(path, PACKAGES, **content)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in sizes:
            store = make_store(folder, size)
            content["results"] += of_size(store, size, rounds)
            for row in content["results"][-PAIRS:]:
                show(row)
            content["workers"].append(with_workers(store, size, rounds))
            print(content["workers"][-1], flush=True)
            keep()
        write_nih_phantoms(folder / "phantoms", n_patients=600, size=128)  # as many as in the demo
        for count in (0, 1):
            content["waiting"].append(waiting(folder, count))
            print(content["waiting"][-1], flush=True)
            keep()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, default=RESULTS / "loaders.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, action="append", choices=SIZES)
    arguments = parser.parse_args()
    main(arguments.path, arguments.rounds, tuple(arguments.size or SIZES))
