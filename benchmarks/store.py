"""The image store against MONAI: reading an image, building from 1024-pixel PNG, two processes against one.

Everything on one thread, interleaved, medians of rounds; CPU time, but wall-clock time where processes are compared.

    python benchmarks/store.py [RESULT.json]

What is compared:

reading    one item of a dataset whose pixels the caller may write to, 256 x 256, all in the page cache or in memory.
           Ours: `StoreDataset` without transform (a copy out of the memory map). MONAI: `CacheDataset` and
           `PersistentDataset` of LoadImaged, EnsureChannelFirstd, Resized, and a random transform that does nothing,
           because without any random transform `CacheDataset` hands out the cached object itself, without a copy.
           Every item is let go before the next one, as after a batch is put together.
           "equal bytes": MONAI's cache holds uint8 as ours does, and plain tensors. "as usual": float32 with metadata.
building   files to stored images. Ours: all of `build_store(workers=0)`, with SHA-256 of every file, journal, fsync,
           tables and checksums. MONAI: LoadImage, EnsureChannelFirst, Resize(mode="area"), nothing written.
           The share of the decoder is what OpenCV alone takes to decode the same files, of all of ours.
processes  `build_store` with 1 and with 2 processes, wall-clock time, start of the processes included.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import pandas as pd
import torch
from monai.data import CacheDataset, PersistentDataset
from monai.transforms import (
    CastToTyped,
    Compose,
    EnsureChannelFirst,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImage,
    LoadImaged,
    Randomizable,
    Resize,
    Resized,
    Transform,
)
from PIL import Image
from record import RESULTS, save

from monai_simclr.data import StoreDataset, build_store
from monai_simclr.data.phantoms import draw_phantom

SIZE, SIDE = 256, 1024
PICTURES = 160
CXR = Path(os.environ.get("MONAI_SIMCLR_CXR", Path(__file__).resolve().parents[2] / "shared" / "cxr"))


class DoNothing(Randomizable, Transform):
    """The cheapest random transform."""

    def __call__(self, data: Any) -> Any:
        return data


def write_archive(folder: Path, sources: list[Path], count: int) -> pd.DataFrame:
    """An index of `count` files, copies of the sources in turn."""
    folder.mkdir()
    images = [str(shutil.copy(sources[n % len(sources)], folder / f"{n:05d}.png")) for n in range(count)]
    columns = dict.fromkeys(["study_id", "view_position", "sex", "split"], "")
    return pd.DataFrame({"image": images, "patient_id": [str(n) for n in range(count)], **columns, "age": np.nan})


def phantoms(folder: Path) -> list[Path]:
    """Drawn 1024-pixel PNG, 8 bits, as OpenCV writes them."""
    folder.mkdir()
    paths = [folder / f"{n}.png" for n in range(20)]
    for n, path in enumerate(paths):
        cv2.imwrite(str(path), np.rint(draw_phantom(n + 1, 0, SIDE).pixels * 255).astype(np.uint8))
    return paths


def interleaved(works: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median milliseconds of each over the rounds, after one round to warm up."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            start = clock()
            work()
            if number:
                spent[name].append(1000 * (clock() - start))
    return {name: statistics.median(times) for name, times in spent.items()}


def reading(index: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Milliseconds an item."""
    store = build_store(index, folder / "reading", SIZE, 0)
    data = [{"image": path} for path in index["image"]]
    load = [LoadImaged("image"), EnsureChannelFirstd("image"), Resized("image", (SIZE, SIZE), mode="area")]
    plain = [CastToTyped("image", dtype=np.uint8), EnsureTyped("image", track_meta=False)]
    chains = {"equal bytes": Compose([*load, *plain, DoNothing()]), "as usual": Compose([*load, DoNothing()])}
    sets: dict[str, Any] = {"ours": StoreDataset(store, [""])}
    for name, chain in chains.items():
        sets[f"CacheDataset, {name}"] = CacheDataset(data, chain, progress=False)
        sets[f"PersistentDataset, {name}"] = PersistentDataset(data, chain, folder / name, track_meta=False)
    for name, dataset in sets.items():
        item = dataset[0]["image"]
        print(f"{name:32s} {type(item).__name__} {item.dtype} {tuple(item.shape)}, {item.nbytes} bytes")

    def read(dataset: Any) -> None:
        for n in range(len(data)):
            dataset[n]

    works = {name: lambda dataset=dataset: read(dataset) for name, dataset in sets.items()}
    times = {name: spent / len(data) for name, spent in interleaved(works, 15, time.process_time).items()}
    return {"cpu_ms": times, "times_ours": {name: spent / times["ours"] for name, spent in times.items()}}


def building(index: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Milliseconds an image."""
    images = index["image"].tolist()
    chain = Compose([LoadImage(), EnsureChannelFirst(), Resize((SIZE, SIZE), mode="area")])

    def decoder(path: str) -> None:
        cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)

    def ours() -> None:
        shutil.rmtree(folder / "built", ignore_errors=True)
        build_store(index, folder / "built", SIZE, 0)

    works = {
        "ours": ours,
        "MONAI": lambda: [chain(path) for path in images],
        "decoder": lambda: [*map(decoder, images)],
    }
    times = {name: spent / len(images) for name, spent in interleaved(works, 5, time.process_time).items()}
    return {
        "cpu_ms": times,
        "times_ours": times["MONAI"] / times["ours"],
        "share_of_decoder": times["decoder"] / times["ours"],
    }


def processes(index: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """Milliseconds an image with one and with two processes."""

    def build(workers: int) -> None:
        shutil.rmtree(folder / "built", ignore_errors=True)
        build_store(index, folder / "built", SIZE, workers)

    works = {str(workers): lambda workers=workers: build(workers) for workers in (1, 2)}
    times = {name: spent / len(index) for name, spent in interleaved(works, 5, time.perf_counter).items()}
    return {"wall_ms": times, "gain": times["1"] / times["2"], "images": len(index)}


def said(result: dict[str, Any]) -> dict[str, Any]:
    """Print a result, and give it back."""
    print(json.dumps(result, indent=2), flush=True)
    return result


def main(path: Path) -> None:
    """Compare, print, and store with what it ran on."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    result: dict[str, Any] = {"settings": {"stored_pixels": SIZE, "file_pixels": SIDE}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = phantoms(folder / "phantoms")
        index = write_archive(folder / "few", drawn, PICTURES)
        result["reading"] = said(reading(index, folder))
        result["building, phantoms"] = said(building(index, folder))
        real = [path for path in sorted((CXR / "nih" / "originals_1024").glob("*.png")) if Image.open(path).mode == "L"]
        if real:
            result["building, NIH"] = said(building(write_archive(folder / "real", real, PICTURES), folder))
        result["processes"] = said(processes(write_archive(folder / "many", drawn, 600), folder))
    save(path, ("torch", "monai", "numpy", "opencv-python-headless", "pillow"), **result)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "store.json")
