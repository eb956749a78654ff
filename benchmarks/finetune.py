"""Recipes for fine-tuning with few labels: tries on validation patients of nih128, for the defaults of train.json.

    python benchmarks/real_pack.py ../shared IDX
    python benchmarks/finetune.py IDX OUT [NAME ... | table]

Every try trains a classifier of the six findings on the films of 2, 10 or 100 % of the train patients and is scored on
*validation* patients: the step is chosen on one half of them and scored on the other half, and the other way round, so
that a recipe does not win by having more steps to choose from. Step 0 is what a recipe starts from ("start"). Beside
the trained weights ("raw") three averages are scored: an exponential moving average of the weights at the end ("ema"),
the mean of the weights at start and end ("interpolated", Wortsman et al., WiSE-FT, CVPR 2022), and the mean of the
logits at the start and at a step ("averaged"). No test patient is scored. Logits stay in OUT, so tries that are there
are not run again, only scored. The table goes to `results/finetune.json` and `.csv`.

Two smaller comparisons at 96 px were made once with the same parts, by scripts that are not kept: the penalty of the
probe, on images and on views (`results/finetune_heads.csv`, all validation patients), and training of the last stage
only (`results/finetune_last_stage.csv`).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from real_pack import MAIN_FINDINGS
from record import RESULTS, save
from sklearn.metrics import roc_auc_score
from torch import nn

from monai_simclr import recipes
from monai_simclr.data import Store, get_store, label_fraction
from monai_simclr.engines import embed
from monai_simclr.evaluation import probe_layer
from monai_simclr.losses import MaskedBCEWithLogits
from monai_simclr.networks import FindingClassifier, encoder, freeze_stages, load_encoder
from monai_simclr.networks.chunks import batch_norms
from monai_simclr.ops.keyed import KeyedRandom
from monai_simclr.optimizers import layerwise_optimizer, warmup_cosine
from monai_simclr.runtime.tables import write_table

ENCODER = "chest_xray_resnet18"
WIDTH, STORED, BATCH, C = 0.5, 96, 32, 0.01
MOST_VIEWS = 20_000
RUNS = ((0.1, 0), (0.02, 0), (0.1, 1), (0.02, 1), (0.1, 2), (0.02, 2), (1.0, 0))
"""Fractions of the train patients, and draws."""
KINDS = ("raw", "ema", "interpolated", "averaged")
POINTS = (0.0, 0.2, 0.4, 0.7, 1.0)
"""Shares of the steps after which validation patients are scored."""
HALVINGS = 10


@dataclass(frozen=True)
class Try:
    """Settings of one recipe."""

    pretrained: bool = True
    probe_head: bool = True
    head_views: int = 0
    learning_rate: float = 1e-4
    freeze_batch_norm: bool = True
    n_trainable_stages: int | None = None
    layer_decay: float = 1.0
    steps: int = 200
    strength: str = "mild"
    ema: float = 0.98
    weight_decay: float = 1e-4
    size: int = 96

    @property
    def key(self) -> str:
        """A name for these settings on disk, made of what is not at its default: a new setting renames no try."""
        changed = {f.name: v for f in dataclasses.fields(self) if (v := getattr(self, f.name)) != f.default}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:10]


TRIES: dict[str, Try] = {
    "probe on views first, 1e-4, batch norm frozen": Try(head_views=8),
    "probe on views first, 3e-4, batch norm frozen": Try(head_views=8, learning_rate=3e-4),
    "random head, 5e-4, batch norm trained (train.json before)": Try(
        probe_head=False, learning_rate=5e-4, freeze_batch_norm=False
    ),
    "probe on views first, 1e-3, batch norm frozen": Try(head_views=8, learning_rate=1e-3),
    "scratch, 1e-3": Try(pretrained=False, probe_head=False, learning_rate=1e-3, freeze_batch_norm=False),
    "probe on views first, 3e-4, batch norm trained": Try(head_views=8, learning_rate=3e-4, freeze_batch_norm=False),
    "probe first, 1e-4, batch norm frozen": Try(),
}
"""The tries, the most telling first."""


def views_to_input(images: torch.Tensor) -> torch.Tensor:
    """Views, uint8, as the network takes them."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def predict(network: nn.Module, images: np.ndarray, size: int) -> np.ndarray:
    """Outputs for stored images."""
    with torch.autocast("cpu", torch.bfloat16):
        return embed(network, images, functools.partial(recipes.to_network_input, size=size), torch.device("cpu"))


def start(settings: Try, images: np.ndarray, labels: np.ndarray) -> FindingClassifier:
    """The classifier before its first step."""
    torch.manual_seed(0)
    backbone = load_encoder(ENCODER) if settings.pretrained else encoder("resnet18", WIDTH)
    network = FindingClassifier(backbone, MAIN_FINDINGS).to(memory_format=torch.channels_last)
    if settings.probe_head:
        parts, view = [predict(network.encoder, images, settings.size)], recipes.views(settings.strength, settings.size)
        rows = np.arange(len(images))
        for number in range(min(settings.head_views, MOST_VIEWS // len(images))):
            drawn = [
                view.batch(torch.from_numpy(images[some][:, None]), KeyedRandom(1, number, some))
                for some in np.array_split(rows, -(-len(rows) // 64))
            ]
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                parts.append(np.concatenate([network.encoder(views_to_input(one)).float().numpy() for one in drawn]))
        weights, biases = probe_layer(np.concatenate(parts), np.tile(labels, (len(parts), 1)), c=C / len(parts))
        network.classifier.weight.data = torch.from_numpy(weights).float()
        network.classifier.bias.data = torch.from_numpy(biases).float()
    return freeze_stages(network, settings.n_trainable_stages)


def train(settings: Try, images: np.ndarray, labels: np.ndarray, val: np.ndarray, long: bool) -> np.ndarray:
    """Logits of val images ``(points, N, K)``: at the `POINTS` of time, and of two averages of weights at the end."""
    network = start(settings, images, labels)
    first, average = copy.deepcopy(network), copy.deepcopy(network)
    steps = settings.steps * (4 if long else 1)
    optimizer = layerwise_optimizer(network, settings.learning_rate, settings.weight_decay, settings.layer_decay)
    schedule = warmup_cosine(optimizer, steps // 20, steps)
    view, loss, rng = recipes.views(settings.strength, settings.size), MaskedBCEWithLogits(), np.random.default_rng(0)
    batch = min(BATCH, len(images))
    logits, order = [predict(network, val, settings.size)], np.zeros(0, dtype=int)
    for step in range(steps):
        if len(order) < batch:
            order = np.r_[order, rng.permutation(len(images))]
        rows, order = order[:batch], order[batch:]
        network.train()
        if settings.freeze_batch_norm:
            for layer in batch_norms(network):
                layer.eval()
        views = views_to_input(view.batch(torch.from_numpy(images[rows][:, None]), KeyedRandom(0, step, rows)))
        with torch.autocast("cpu", torch.bfloat16):
            predicted = network(views)
        optimizer.zero_grad()
        loss(predicted.float(), torch.from_numpy(labels[rows])).backward()
        optimizer.step()
        schedule.step()
        mix(average, network, 1 - min(settings.ema, (1 + step) / (10 + step)))
        if step + 1 in [round(share * steps) for share in POINTS[1:]]:
            logits.append(predict(network, val, settings.size))
    mix(first, network, 0.5)
    return np.asarray([*logits, *(predict(one, val, settings.size) for one in (average, first))], dtype=np.float32)


@torch.no_grad()
def mix(one: nn.Module, other: nn.Module, share: float) -> None:
    """Move the weights and batch statistics of one network towards another's by a share of the way."""
    for mine, theirs in zip([*one.parameters(), *one.buffers()], [*other.parameters(), *other.buffers()], strict=True):
        mine.lerp_(theirs, share) if mine.is_floating_point() else mine.copy_(theirs)


def macro(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean AUROC of the findings."""
    return float(np.mean([roc_auc_score(labels[:, k], logits[:, k]) for k in range(labels.shape[1])]))


def score(logits: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> dict[str, float]:
    """AUROC at step 0 and, for each kind, with the step chosen on other patients."""
    raw, ema, between = logits[: len(POINTS)], logits[-2:-1], logits[-1:]
    averaged = np.r_[raw[:1], (raw[1:] + raw[:1]) / 2]
    kinds = dict(zip(KINDS, (raw, np.r_[raw[:1], ema], np.r_[raw[:1], between], averaged), strict=True))
    names = np.unique(patients)
    found: dict[str, list[float]] = {kind: [] for kind in ("start", *KINDS, "raw, last")}
    for halving in range(HALVINGS):
        first = np.isin(patients, np.random.default_rng(halving).permutation(names)[: len(names) // 2])
        for chosen, scored in ((first, ~first), (~first, first)):
            found["start"].append(macro(raw[0, scored], labels[scored]))
            found["raw, last"].append(macro(raw[-1, scored], labels[scored]))
            for kind, points in kinds.items():
                best = int(np.argmax([macro(point[chosen], labels[chosen]) for point in points]))
                found[kind].append(macro(points[best, scored], labels[scored]))
    return {kind: round(float(np.mean(values)), 4) for kind, values in found.items()}


def main(folder: Path, out: Path, names: list[str]) -> None:
    """Run what is missing (nothing, if asked for the table), score what is there, and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    store: Store = get_store(folder / "nih128", out / "store", recipes.stored_size(STORED), workers=1)
    index, images = store.index, np.asarray(store.images)
    labels = index[list(MAIN_FINDINGS)].to_numpy(np.float32)
    val = np.flatnonzero(index["split"] == "val")
    patients = index["patient_id"].to_numpy(str)[val]
    for fraction, draw in [] if names == ["table"] else RUNS:
        rows = label_fraction(index, fraction, draw, list(MAIN_FINDINGS))
        for name in names or TRIES:
            path = out / f"{TRIES[name].key} {fraction:g} {draw}.npz"
            if path.is_file():
                continue
            started = time.process_time()
            logits = train(TRIES[name], images[rows], labels[rows], images[val], long=fraction == 1)
            seconds = round(time.process_time() - started)
            np.savez(path, logits=logits, seconds=seconds)
            print(fraction, draw, name, score(logits, labels[val], patients), f"{seconds} s", flush=True)
    table(out, labels[val], patients)


def table(out: Path, labels: np.ndarray, patients: np.ndarray) -> pd.DataFrame:
    """Every try and run that is there."""
    rows = []
    for name, settings in TRIES.items():
        for fraction, draw in sorted(RUNS):
            path = out / f"{settings.key} {fraction:g} {draw}.npz"
            if path.is_file():
                with np.load(path) as file:
                    scores = score(file["logits"], labels, patients)
                    rows.append(
                        {
                            "name": name,
                            "fraction": fraction,
                            "draw": draw,
                            **scores,
                            "cpu_seconds": int(file["seconds"]),
                        }
                    )
    settings = {name: dataclasses.asdict(one) for name, one in TRIES.items()}
    save(RESULTS / "finetune.json", ("torch", "monai", "scikit-learn"), runs=rows, settings=settings)
    made = pd.DataFrame(rows)
    write_table(made, RESULTS / "finetune.csv")
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
