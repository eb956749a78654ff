"""Tries: which settings of pretraining help on real radiographs? One factor at a time from a base.

    python benchmarks/real_pack.py ../shared/cxr IDX
    python benchmarks/tries.py IDX OUT ROUND [NAME ...]

There are two rounds: `default` starts from that preset, `mild` from what the first found best.

Every try pretrains a small encoder (ResNet-18, width 0.3, 1.0 M parameters, 96 px) on the train images of
`real_pack.py` (never on validation or test patients) and is scored on *validation* patients: a linear probe on 2, 10
and 100 % of the labelled train patients, ten draws, beside random encoders of the same shape and other floors. No test
patient is scored. Tries that are in OUT are not run again; the table goes to `results/tries_ROUND.json` and `.csv`.
"""

from __future__ import annotations

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
from record import RESULTS
from tries_scores import floors, questions_of, score, table_of

from monai_simclr import recipes
from monai_simclr.data import KeyedSampler, Store, StoreDataset, get_store, loader, open_index
from monai_simclr.engines import embed
from monai_simclr.engines.precision import Precision
from monai_simclr.handlers import ContrastiveMonitor
from monai_simclr.losses import NTXentLoss
from monai_simclr.networks import SimCLR, encoder
from monai_simclr.optimizers import make_optimizer, warmup_cosine
from monai_simclr.recipes import Strength
from monai_simclr.runtime.files import write_json
from monai_simclr.transforms import MultiViewd, RandRadiographView
from monai_simclr.workflows import contrastive_trainer

SIZE, WIDTH = 96, 0.3


@dataclass(frozen=True)
class Try:
    """Settings of one pretraining; None keeps what the preset of views has."""

    strength: Strength = "default"
    scale: tuple[float, float] | None = None
    lung_coverage: float | None = None
    rotate: float | None = None
    flip: float | None = None
    tone: float | None = None
    clahe: float | None = None
    blur: float | None = None
    noise: float | None = None
    temperature: float = 0.2
    same_patient: str = "exclude"
    decoupled: bool = False
    learning_rate: float = 0.001
    batch_size: int = 128
    epochs: int = 12
    seed: int = 0
    precision: Precision = "bfloat16"

    @property
    def key(self) -> str:
        """A name for these settings on disk: with others it is another try."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()[:10]

    @property
    def views(self) -> RandRadiographView:
        """The preset's view with what this try changes of it."""
        view = recipes.views(self.strength, SIZE)
        return RandRadiographView(
            SIZE,
            _changed(
                view.positioning,
                scale=self.scale,
                min_lung_coverage=self.lung_coverage,
                rotate_degrees=self.rotate,
                flip_prob=self.flip,
            ),
            _changed(view.exposure, prob=self.tone),
            _changed(view.detector, prob_blur=self.blur, prob_noise=self.noise),
            _changed(view.processing, prob=self.clahe),
        )


_Mild = functools.partial(Try, "mild", precision="float32")  # on a CPU without bfloat16 instructions

ROUNDS: dict[str, dict[str, Try]] = {
    "default": {
        "base": Try(),
        "base, seed 1": Try(seed=1),
        "no blur, no noise": Try(blur=0.0, noise=0.0),
        "mild": Try("mild"),
        "temperature 0.1": Try(temperature=0.1),
        "temperature 0.5": Try(temperature=0.5),
        "crop from 0.6": Try(scale=(0.6, 1.0)),
        "crop from 0.1": Try(scale=(0.1, 1.0), lung_coverage=0.0),
        "no CLAHE": Try(clahe=0.0),
        "mild, seed 1": Try("mild", seed=1),
        "mild, 40 epochs": Try("mild", epochs=40),
    },
    "mild": {
        "base": _Mild(),
        "same patient positive": _Mild(same_patient="positive"),
        "base, seed 1": _Mild(seed=1),
        "same patient positive, seed 1": _Mild(same_patient="positive", seed=1),
        "mirror images": _Mild(flip=0.5),
        "no change of tone": _Mild(tone=0.0),
        "decoupled": _Mild(decoupled=True),
        "batch 64": _Mild(batch_size=64),
        "learning rate 0.003": _Mild(learning_rate=0.003),
        "temperature 0.1": _Mild(temperature=0.1),
        "crop from 0.3": _Mild(scale=(0.3, 1.0)),
        "moco_cxr": Try("moco_cxr", precision="float32"),
        "simclr": Try("simclr", precision="float32"),
        "batch 256": _Mild(batch_size=256),
        "CLAHE in half": _Mild(clahe=0.5),
        "base, seed 2": _Mild(seed=2),
    },
}
"""The tries of each round, beside its `base`, in the order in which they are run: the most telling first."""


def pretrain(settings: Try, store: Store) -> tuple[torch.nn.Module, dict[str, float]]:
    """The encoder that the settings make of the store's train images, and what the last epoch said."""
    torch.manual_seed(settings.seed)
    network = SimCLR(encoder("resnet18", WIDTH)).to(memory_format=torch.channels_last)
    data = StoreDataset(store, ["train"], transform=MultiViewd("image", settings.views), seed=settings.seed)
    batches = loader(data, KeyedSampler(data, settings.seed), settings.batch_size, 0, settings.seed)
    optimizer = make_optimizer("adamw", network, settings.learning_rate, 1e-4)
    schedule = warmup_cosine(optimizer, len(batches), len(batches) * settings.epochs)
    monitor = ContrastiveMonitor(network.encoder)
    loss = NTXentLoss(settings.temperature, same_group=settings.same_patient, decoupled=settings.decoupled)
    how = {"seed": settings.seed, "handlers": [monitor], "precision": settings.precision}
    contrastive_trainer(network, batches, loss, optimizer, schedule, settings.epochs, **how).run()
    names = ("top1", "alignment", "uniformity", "effective_rank")
    return network.encoder, {name: round(float(monitor.history[-1][name]), 4) for name in names}


def run(name: str, settings: Try, store: Store, questions: dict[str, pd.DataFrame], out: Path) -> None:
    """Pretrain, embed what has labels, score on validation patients, and leave that in `out`, if it is not there."""
    done = out / f"{settings.key}.json"
    if done.is_file():
        return
    started, busy = time.perf_counter(), time.process_time()
    network, said = pretrain(settings, store)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    features = embed(network, store.images, functools.partial(recipes.to_network_input, size=SIZE))
    np.savez(out / f"{settings.key}.npz", **score(features, store.index, questions))
    write_json(done, {"name": name, "seconds": round(seconds), "cpu_seconds": round(busy), **said})
    print(f"{name}: {seconds:.0f} s, {said}", flush=True)


def main(folder: Path, out: Path, which: str, names: list[str]) -> None:
    """Run what is missing of a round and write the table of what is there."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tries = ROUNDS[which]
    store = get_store(folder / "all", out / "store", recipes.stored_size(SIZE), workers=1)
    questions = questions_of({name: open_index(folder / name) for name in ("kermany", "nih")})
    floors(store, questions, out, functools.partial(encoder, "resnet18", WIDTH), SIZE)
    settings = {name: (one.key, dataclasses.asdict(one)) for name, one in tries.items()}
    for name in names or tries:
        run(name, tries[name], store, questions, out)
        table_of(settings, out, RESULTS / f"tries_{which}.json")


def _changed(settings: object, **values: object) -> object:
    """A view's settings with what is not None."""
    return dataclasses.replace(settings, **{k: v for k, v in values.items() if v is not None})  # type: ignore[type-var]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
