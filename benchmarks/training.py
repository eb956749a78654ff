"""SimCLR from end to end: ours, lightly's loop and a loop of MONAI's parts, from the store and from 1024-pixel PNG.

Run: python benchmarks/training.py [RESULT.json] [--rounds 3]     (about five minutes; makes .venv-bench the first time)

The same for all: the network (ResNet-18 with a one-channel stride-2 stem, projection head), batch, size, gray images,
AdamW's settings, one thread, no workers, CPU time. Each has its own data pipeline, loss and loop, as its documentation
shows them: lightly and MONAI send the views through the network one after the other. The operations of a view are
cropping, rotation, brightness and contrast, and blur; ours has gamma, noise and CLAHE in the same time. What lightly
reads from the store is the same bytes; MONAI has its CacheDataset in the place of a store. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers import peer, run_beside_peers

if __name__ == "__main__":
    run_beside_peers("lightly")

import numpy as np
import torch
from monai import transforms as mt
from monai.data import CacheDataset
from monai.data import Dataset as MonaiDataset
from monai.engines.utils import IterationEvents
from monai.losses import ContrastiveLoss
from record import RESULTS, save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from monai_simclr.data import KeyedSampler, Store, StoreDataset, get_store
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.engines import AutocastInferer, ContrastiveTrainer
from monai_simclr.losses import NTXentLoss
from monai_simclr.networks import SimCLR, encoder
from monai_simclr.optimizers import make_optimizer
from monai_simclr.recipes import preprocessing, stored_size, views
from monai_simclr.transforms import MultiViewd

SIZE, BATCH, ITERATIONS, TEMPERATURE = 224, 16, 2, 0.1
PHASES = ("data", "forward", "loss", "backward", "optimizer")
# What the issue asks for: who, against whom, how many times the images a second.
TARGETS = [
    ("ours, store, bfloat16", "lightly, store, bfloat16", 1.15),
    ("ours, store, bfloat16", "ours, store, float32, channels_last", 1.8),
]


@dataclass
class Stopwatch:
    """CPU time by phase: `mark` books what has passed since the last mark."""

    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    images: int = 0
    since: float = 0.0

    def start(self) -> None:
        self.since = time.process_time()

    def mark(self, phase: str) -> None:
        now = time.process_time()
        self.spent[phase] += now - self.since
        self.since = now


Loop = Callable[[Stopwatch], None]


def network_and_optimizer(channels_last: bool, stock: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The same network for all, on random weights; `stock` is AdamW as torch has it by default."""
    torch.manual_seed(0)
    network = SimCLR(encoder("resnet18")).train()
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    if stock:
        return network, torch.optim.AdamW(network.parameters(), 1e-4)
    return network, make_optimizer("adamw", network, 1e-4)


class PngDataset(Dataset):
    """Ours without a store: read, pad and resize the file every time, then what a `StoreDataset` does."""

    def __init__(self, store: Store, transform: Callable[[dict], dict]) -> None:
        self.paths = list(store.index["image"])
        self.decode = mt.Compose(preprocessing(SIZE).transforms[:2])
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        image = self.decode({"image": self.paths[key[1]]})["image"]
        return self.transform({"image": torch.as_tensor(np.asarray(image)), "row": key[1], "patient": key[1]})


def ours(store: Store, from_png: bool, precision: str, channels_last: bool = True) -> Loop:
    """`ContrastiveTrainer`, timed by its own events."""
    transform = MultiViewd("image", views("default", SIZE))
    dataset = PngDataset(store, transform) if from_png else StoreDataset(store, ("train", "test", ""), (), transform)
    loader = DataLoader(dataset, BATCH, sampler=KeyedSampler(dataset), drop_last=True)
    network, optimizer = network_and_optimizer(channels_last, stock=False)

    def run(watch: Stopwatch) -> None:
        trainer = ContrastiveTrainer(
            torch.device("cpu"),
            1,
            loader,
            network,
            optimizer,
            NTXentLoss(TEMPERATURE),
            epoch_length=ITERATIONS,
            inferer=AutocastInferer(precision),
        )
        events = [IterationEvents.FORWARD_COMPLETED, IterationEvents.LOSS_COMPLETED, IterationEvents.BACKWARD_COMPLETED]
        for event, phase in zip(events, ("forward", "loss", "backward"), strict=True):
            trainer.add_event_handler(event, lambda engine, p=phase: watch.mark(p))
        trainer.add_event_handler(
            IterationEvents.FORWARD_COMPLETED, lambda engine: _book_loss(engine.state.output["pred"], watch)
        )
        trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda engine: watch.mark("optimizer"))
        trainer.add_event_handler("GET_BATCH_COMPLETED", lambda engine: watch.mark("data"))
        watch.start()
        trainer.run()
        watch.images += BATCH * ITERATIONS

    return run


def plain_loop(
    loader: Iterable[Any], loss: Callable[[Tensor, Tensor], Tensor], precision: str, channels_last: bool = False
) -> Loop:
    """The loop of lightly's and MONAI's tutorials: view by view through the network, loss, step."""
    network, optimizer = network_and_optimizer(channels_last, stock=True)
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def run(watch: Stopwatch) -> None:
        watch.start()
        batches = iter(loader)
        for _ in range(ITERATIONS):
            pair = [view.to(memory_format=layout) for view in next(batches)]
            watch.mark("data")
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                first, second = (network(view) for view in pair)
            watch.mark("forward")
            _book_loss(first, watch)
            value = loss(first.float(), second.float())
            watch.mark("loss")
            optimizer.zero_grad()
            value.backward()
            watch.mark("backward")
            optimizer.step()
            watch.mark("optimizer")
            watch.images += BATCH

    return run


def _book_loss(projections: Tensor, watch: Stopwatch) -> None:
    """When the gradient reaches the projections, what the backward pass took so far was the loss."""
    projections.register_hook(lambda gradient: watch.mark("loss"))


class PilDataset(Dataset):
    """Gray PIL images for lightly, from the bytes of the store or from the files."""

    def __init__(self, store: Store, from_png: bool, transform: Callable[[Any], list[Tensor]]) -> None:
        self.images, self.paths, self.from_png = store.images, list(store.index["image"]), from_png
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> list[Tensor]:
        image = peer("PIL.Image")
        if self.from_png:
            return self.transform(image.open(self.paths[row]).convert("L"))
        return self.transform(image.fromarray(np.asarray(self.images[row])))


def of_lightly(store: Store, from_png: bool, precision: str, channels_last: bool = False) -> Loop:
    """lightly's SimCLR transform without color and mirroring, its loss, and the loop of its tutorial."""
    transform = peer("lightly.transforms").SimCLRTransform(
        input_size=SIZE,
        min_scale=0.3,
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.0,
        cj_hue=0.0,
        random_gray_scale=0.0,
        hf_prob=0.0,
        rr_prob=1.0,
        rr_degrees=10.0,
        normalize=None,
    )
    loader = DataLoader(PilDataset(store, from_png, transform), BATCH, shuffle=True, drop_last=True)
    return plain_loop(loader, peer("lightly.loss").NTXentLoss(TEMPERATURE), precision, channels_last)


def of_monai(store: Store, from_png: bool, precision: str, channels_last: bool = False) -> Loop:
    """MONAI's dictionary transforms, two draws for two keys, and its loss; decoded once in a CacheDataset."""
    stored = stored_size(SIZE)
    steps: list[Any] = [
        mt.LoadImaged("first", image_only=True, ensure_channel_first=True),
        mt.Resized("first", (stored, stored), mode="area"),
        mt.ScaleIntensityd("first"),
        mt.EnsureTyped("first", track_meta=False),
        mt.CopyItemsd("first", names="second"),
    ]
    for key in ("first", "second"):
        steps += [
            mt.RandRotated(key, range_x=np.deg2rad(10), prob=1.0, padding_mode="zeros"),
            mt.RandScaleCropd(key, roi_scale=0.3**0.5, max_roi_scale=1.0, random_size=True),
            mt.Resized(key, (SIZE, SIZE), mode="bilinear"),
            mt.RandShiftIntensityd(key, offsets=0.4, prob=0.8),
            mt.RandScaleIntensityd(key, factors=0.4, prob=0.8),
            mt.RandGaussianSmoothd(key, sigma_x=(0.1, 2.0), sigma_y=(0.1, 2.0), prob=0.5),
        ]
    data = [{"first": path} for path in store.index["image"]]
    pipeline = mt.Compose(steps)
    dataset = MonaiDataset(data, pipeline) if from_png else CacheDataset(data, pipeline, progress=False)
    loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, collate_fn=_pair)
    return plain_loop(loader, ContrastiveLoss(temperature=TEMPERATURE), precision, channels_last)


def _pair(items: list[dict[str, Tensor]]) -> list[Tensor]:
    return [torch.stack([torch.as_tensor(item[key]) for item in items]) for key in ("first", "second")]


def loops(store: Store) -> dict[str, Loop]:
    """Everything that is compared, by name."""
    return {
        "ours, store, bfloat16": ours(store, False, "bfloat16"),
        "lightly, store, bfloat16": of_lightly(store, False, "bfloat16"),
        "lightly, store, bfloat16, channels_last": of_lightly(store, False, "bfloat16", True),
        "MONAI, cache, bfloat16": of_monai(store, False, "bfloat16"),
        "ours, PNG, bfloat16": ours(store, True, "bfloat16"),
        "lightly, PNG, bfloat16": of_lightly(store, True, "bfloat16"),
        "MONAI, PNG, bfloat16": of_monai(store, True, "bfloat16"),
        "ours, store, float32": ours(store, False, "float32", channels_last=False),
        "ours, store, float32, channels_last": ours(store, False, "float32"),
        "lightly, store, float32": of_lightly(store, False, "float32"),
    }


def measure(every: dict[str, Loop], rounds: int) -> list[dict]:
    """Images a second of CPU time (median over rounds) and the share of every phase, after a round to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in every}
    phases = {name: dict.fromkeys(PHASES, 0.0) for name in every}
    for number in range(rounds + 1):
        for name, loop in every.items():
            watch = Stopwatch()
            loop(watch)
            if number:
                rates[name].append(watch.images / sum(watch.spent.values()))
                phases[name] = {phase: phases[name][phase] + spent for phase, spent in watch.spent.items()}
    return [
        {
            "loop": name,
            "images_per_second": statistics.median(rates[name]),
            "all_rounds": rates[name],
            "share": {phase: spent / sum(phases[name].values()) for phase, spent in phases[name].items()},
        }
        for name in every
    ]


def main(path: Path, rounds: int, only: str = "") -> None:
    """Draw phantoms, build the store, compare, print, and save with what it ran on."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        archive = write_nih_phantoms(Path(folder) / "archive", n_patients=BATCH * ITERATIONS, size=1024)
        every = loops(get_store(archive, Path(folder) / "store", stored_size(SIZE), workers=1))
        results = measure({name: loop for name, loop in every.items() if only in name}, rounds)
    rate = {entry["loop"]: entry["images_per_second"] for entry in results}
    for entry in results:
        shares = "  ".join(f"{phase} {100 * share:4.1f} %" for phase, share in entry["share"].items())
        print(f"{entry['loop']:42s} {entry['images_per_second']:6.2f} images/s  {shares}")
    targets = [
        {"loop": one, "against": other, "at_least": wanted, "measured": rate[one] / rate[other]}
        for one, other, wanted in TARGETS
        if one in rate and other in rate
    ]
    for target in targets:
        print("reached" if target["measured"] >= target["at_least"] else "MISSED", target)
    settings = {"network": "resnet18", "size": SIZE, "batch": BATCH, "iterations": ITERATIONS, "rounds": rounds}
    packages = ("torch", "monai", "lightly", "torchvision", "opencv-python-headless", "pillow")
    save(path, packages, settings=settings, results=results, targets=targets)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, default=RESULTS / "training.json")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="compare only loops with this in their name")
    arguments = parser.parse_args()
    main(arguments.path, arguments.rounds, arguments.only)
