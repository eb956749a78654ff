"""CPU minutes to a quality: our pretraining and lightly's SimCLR, on the same radiographs and network, in one run.

    python benchmarks/real_pack.py ../shared IDX
    python benchmarks/time_to_quality.py IDX OUT [RESULT.json] [--minutes 10] [--points 8] [--size 64] [--seed 0]

Every arm gets the same box of CPU minutes, one thread, from the same random weights, and the same films: all of
`real_pack.py` but those of test patients, in one store. At equal shares of the box, outside its clock, the encoder is
scored as in `scaling.py`: linear probes on all train patients of nih128, macro AUROC of six findings on validation
patients. No test patient is scored.

ours, defaults      `configs/pretrain.json`: its preset of views, loader, loss, trainer, AdamW, bfloat16 where there is
lightly, defaults   `SimCLRTransform` and `NTXentLoss` with their defaults in its tutorial's loop: SGD 0.06, float32
ours, matched       the operations that lightly has too, with the same probabilities
lightly, matched    the same operations by its transform, in its loop, with our temperature, optimizer, schedule,
                    precision and channels_last: what is left is loader, loss and loop

All have batches of 256 and a cosine that ends with the box; what lightly's transform does to colors has no effect on
gray images, and its normalization is left out, as the network's first layer normalizes. A ratio is how many times as
long lightly needed to an AUROC that both reach: the best that the slower of the two reached, and half the way there.
A score takes ten seconds: with 10 minutes an arm it is three quarters of an hour on a quiet core.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers import peer, run_beside_peers

if __name__ == "__main__":
    run_beside_peers("lightly")

import itertools

import numpy as np
import torch
from loaders import PilImages, lightly_batches, lightlys_view
from real_pack import MAIN_FINDINGS
from record import RESULTS, save
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tries_scores import questions_of

from monai_simclr.data import KeyedSampler, Store, StoreDataset, get_store, loader, open_index
from monai_simclr.data.index import COLUMNS
from monai_simclr.engines import embed
from monai_simclr.engines.precision import resolve_precision
from monai_simclr.evaluation import Embeddings, probe_scores
from monai_simclr.losses import NTXentLoss
from monai_simclr.networks import SimCLR, encoder
from monai_simclr.optimizers import make_optimizer
from monai_simclr.recipes import stored_size, to_network_input, views
from monai_simclr.transforms import MultiViewd, RandRadiographView
from monai_simclr.workflows import contrastive_trainer

STORED, WIDTH, BATCH, TEMPERATURE = 128, 0.3, 256, 0.2
WARM_UP = 0.05  # share of the box
Score = Callable[[nn.Module], float]


@dataclass
class Box:
    """CPU time that an arm may use, its marks, and what was scored at them; scoring stops the clock."""

    seconds: float
    points: int
    score: Score
    curve: list[dict[str, float]] = field(default_factory=list)
    started: float = 0.0
    images: int = 0

    @property
    def share(self) -> float:
        """How much of the box is used."""
        return (time.process_time() - self.started) / self.seconds

    def start(self, network: nn.Module) -> None:
        """Score the random weights and start the clock."""
        self.curve = [{"minutes": 0.0, "images": 0, "auroc": self.score(network)}]
        self.started = time.process_time()

    def step(self, network: nn.Module) -> bool:
        """After each batch; whether the box is used up."""
        self.images += BATCH
        share, now = self.share, time.process_time()
        if share >= len(self.curve) / self.points:
            auroc = self.score(network.train(False))
            network.train()
            self.curve.append({"minutes": share * self.seconds / 60, "images": self.images, "auroc": auroc})
            print(f"  {share * self.seconds / 60:5.2f} min  {self.images:7d} images  {auroc:.4f}", flush=True)
            self.started += time.process_time() - now
        return share >= 1

    def cosine(self, optimizer: torch.optim.Optimizer, warm_up: float = 0.0) -> LambdaLR:
        """A cosine that ends when the box does."""

        def factor(step: int) -> float:
            share = min(1.0, self.share) if self.started else 0.0
            if share < warm_up:
                return max(share, 0.01 * warm_up) / warm_up
            return 0.5 * (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up)))

        return LambdaLR(optimizer, factor)


def network_of(seed: int, channels_last: bool) -> SimCLR:
    """The same random weights for all."""
    torch.manual_seed(seed)
    network = SimCLR(encoder("resnet18", WIDTH)).train()
    return network.to(memory_format=torch.channels_last) if channels_last else network


def ours(store: Store, rows: np.ndarray, view: RandRadiographView, box: Box, seed: int) -> None:
    """The trainer of ``configs/pretrain.json``."""
    network = network_of(seed, channels_last=True)
    data = StoreDataset(store, ["train", "val"], transform=MultiViewd("image", view), seed=seed, rows=rows)
    batches = loader(data, KeyedSampler(data, seed), BATCH, 0, seed)
    optimizer = make_optimizer("adamw", network, 0.001, 1e-4)
    schedule, loss = box.cosine(optimizer, WARM_UP), NTXentLoss(TEMPERATURE)
    trainer = contrastive_trainer(network, batches, loss, optimizer, schedule, 10**6, seed, precision="auto")

    def after_step(engine: Any) -> None:
        if box.step(network):
            engine.terminate()

    trainer.add_event_handler("ITERATION_COMPLETED", after_step)
    box.start(network.eval())
    trainer.run()


def lightlys(batches: DataLoader, box: Box, seed: int, matched: bool) -> None:
    """The loop of lightly's tutorial."""
    network = network_of(seed, channels_last=matched)
    layout = torch.channels_last if matched else torch.contiguous_format
    low = matched and resolve_precision("auto", torch.device("cpu")) == "bfloat16"
    if matched:
        optimizer = make_optimizer("adamw", network, 0.001, 1e-4)
        schedule, loss = box.cosine(optimizer, WARM_UP), peer("lightly.loss").NTXentLoss(TEMPERATURE)
    else:
        optimizer = torch.optim.SGD(network.parameters(), 0.06, momentum=0.9, weight_decay=5e-4)
        schedule, loss = box.cosine(optimizer), peer("lightly.loss").NTXentLoss()
    box.start(network.eval())
    network.train()
    while True:
        for pair in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                first, second = (network(view.to(memory_format=layout)) for view in pair)
            value = loss(first.float(), second.float())
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            if box.step(network):
                return


def default_batches(images: np.ndarray, size: int) -> DataLoader:
    """lightly's `SimCLRTransform` as it comes, but for the size and the normalization of three channels."""
    transform = peer("lightly.transforms").SimCLRTransform(input_size=size, normalize=None)
    return DataLoader(PilImages(images, transform), BATCH, shuffle=True, drop_last=True)


def scorer(store: Store, folder: Path, size: int) -> Score:
    """Macro AUROC on validation patients of a probe on all train patients of nih128."""
    asked = questions_of({"nih128": open_index(folder / "nih128")[[*COLUMNS, *MAIN_FINDINGS]]})["nih128"]
    place = {image: row for row, image in enumerate(store.index["image"])}
    images = np.array(store.images[np.array([place[image] for image in asked["image"]])])
    labels = asked.loc[asked["split"] == "test", list(MAIN_FINDINGS)].to_numpy()

    def score(network: nn.Module) -> float:
        features = embed(network.encoder, images, lambda batch: to_network_input(batch, size))  # type: ignore[arg-type]
        scores = probe_scores(Embeddings(features, asked), MAIN_FINDINGS)[0]
        return float(np.mean([roc_auc_score(labels[:, k], scores[:, k]) for k in range(len(MAIN_FINDINGS))]))

    return score


def minutes_to(curve: list[dict[str, float]], auroc: float) -> float:
    """When a curve first reaches an AUROC, on a line between its points; infinite where it does not.

    Example:
        >>> minutes_to([{"minutes": 0.0, "auroc": 0.5}, {"minutes": 4.0, "auroc": 0.7}], 0.6)
        2.0
    """
    for before, after in itertools.pairwise(curve):
        if before["auroc"] >= auroc:
            return before["minutes"]
        if after["auroc"] >= auroc:
            share = (auroc - before["auroc"]) / (after["auroc"] - before["auroc"])
            return before["minutes"] + share * (after["minutes"] - before["minutes"])
    return curve[-1]["minutes"] if curve[-1]["auroc"] >= auroc else math.inf


def compared(curves: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """For each kind of arm: minutes to the best AUROC that both reach, and to half the way from random weights."""
    found = []
    for kind in ("defaults", "matched"):
        if not {f"ours, {kind}", f"lightly, {kind}"} <= set(curves):
            continue
        mine, theirs = (curves[f"{who}, {kind}"] for who in ("ours", "lightly"))
        both = min(max(point["auroc"] for point in curve) for curve in (mine, theirs))
        if both <= mine[0]["auroc"]:
            print(f"{kind}: one of them is not above its random weights in this box", flush=True)
            continue
        for name, auroc in (("both reach", both), ("half the way", (mine[0]["auroc"] + both) / 2)):
            minutes = {"ours": minutes_to(mine, auroc), "lightly": minutes_to(theirs, auroc)}
            times = minutes["lightly"] / minutes["ours"]
            found.append({"kind": kind, "which": name, "auroc": auroc, "minutes": minutes, "times_as_long": times})
            print(found[-1], flush=True)
    return found


def main(folder: Path, out: Path, path: Path, minutes: float, points: int, size: int, seed: int) -> None:
    """Train every arm in its box, and store all curves after each, so that a cut loses nothing."""
    torch.set_num_threads(1)
    store = get_store(folder / "pretraining", out / "store", stored_size(STORED), workers=1)
    rows = np.flatnonzero((store.index["split"] != "test").to_numpy())
    images, score = np.array(store.images[rows]), scorer(store, folder, size)
    arms: dict[str, Callable[[Box], None]] = {
        "ours, matched": lambda box: ours(store, rows, lightlys_view(size), box, seed),
        "lightly, matched": lambda box: lightlys(lightly_batches(images, size, BATCH), box, seed, matched=True),
        "ours, defaults": lambda box: ours(store, rows, views("default", size), box, seed),
        "lightly, defaults": lambda box: lightlys(default_batches(images, size), box, seed, matched=False),
    }
    curves: dict[str, list[dict[str, float]]] = {}
    settings = {"network": "resnet18", "width": WIDTH, "size": size, "batch": BATCH, "minutes": minutes, "seed": seed}
    for name, train in arms.items():
        print(name, flush=True)
        box = Box(60 * minutes, points, score)
        train(box)
        curves[name] = box.curve
        packages = ("torch", "monai", "lightly", "torchvision", "scikit-learn")
        save(path, packages, settings=settings, images=len(rows), curves=curves, ratios=compared(curves))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("path", nargs="?", type=Path, default=RESULTS / "time_to_quality.json")
    parser.add_argument("--minutes", type=float, default=10, help="CPU minutes an arm")
    parser.add_argument("--points", type=int, default=8, help="how often each arm is scored")
    parser.add_argument("--size", type=int, default=64, help="pixels along each side")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
