"""A training run of a second, in a forked process that may be killed: phantoms' noise, a small network, every handler.

The parent has imported everything; a fork starts in milliseconds, so that killing many runs costs little.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.handlers import LrScheduleHandler
from torch import nn

from monai_simclr.data import KeyedSampler, Store, StoreDataset, loader
from monai_simclr.engines import ContrastiveTrainer, PrepareTwoViews
from monai_simclr.handlers import Checkpoint, ContrastiveMonitor, Progress, SeedEachStep, TerminateOnNonFinite
from monai_simclr.losses import NTXentLoss
from monai_simclr.optimizers import make_optimizer, warmup_cosine
from monai_simclr.recipes import views
from monai_simclr.runtime.exit_codes import exit_code, format_error
from monai_simclr.transforms import DrawViewsd, MultiViewd, RandRadiographView, SizeSchedule

IMAGES, BATCH, EPOCHS = 50, 8, 3
STEPS = IMAGES // BATCH * EPOCHS
EVENTS = (
    Events.GET_BATCH_COMPLETED,
    Events.ITERATION_STARTED,
    IterationEvents.FORWARD_COMPLETED,
    IterationEvents.BACKWARD_COMPLETED,
    IterationEvents.MODEL_COMPLETED,
    Events.ITERATION_COMPLETED,
)
SMALL = 32
_VIEW = views("default", SMALL)


@dataclass(frozen=True)
class Setting:
    """One run; `kill` is (iteration, event, rank) at which a rank kills itself."""

    folder: Path
    workers: int = 0
    ranks: int = 1
    kill: tuple[int, Any, int] | None = None
    kill_with: int = signal.SIGKILL
    normalized: bool = True
    optimizer: str = "adamw"
    identity: Mapping[str, Any] = field(default_factory=dict)
    batch: int = BATCH
    poison: int | None = None
    views_on: str = "workers"
    sizes: tuple[tuple[int, float], ...] = ()


def store() -> Store:
    images = np.random.default_rng(5).integers(0, 256, (IMAGES, 40, 40), dtype=np.uint8)
    patients = [f"p{row // 2}" for row in range(IMAGES)]
    index = pd.DataFrame({"image": [f"{row}.png" for row in range(IMAGES)], "patient_id": patients, "split": "train"})
    return Store(images, index, pd.DataFrame({"image": [], "reason": []}), {})


def network(normalized: bool = True) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8) if normalized else nn.Identity()
    drop = nn.Dropout(0.1) if normalized else nn.Identity()
    conv = nn.Conv2d(1, 8, 3, stride=4)
    return nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), drop, nn.Linear(128, 16))


def trainer(setting: Setting, rows: list[list[int]] | None = None) -> tuple[ContrastiveTrainer, Checkpoint]:
    """Everything that configs/pretrain.json wires, small."""
    on_device = setting.views_on == "device"
    view = RandRadiographView(SMALL, schedule=SizeSchedule(setting.sizes, EPOCHS)) if setting.sizes else _VIEW
    made_of = (DrawViewsd if on_device else MultiViewd)("image", view)
    dataset = StoreDataset(store(), ["train"], transform=made_of, seed=3)
    batches = loader(dataset, KeyedSampler(dataset, 3), setting.batch, setting.workers, 3)
    model = network(setting.normalized)
    trained = nn.parallel.DistributedDataParallel(model) if setting.ranks > 1 else model
    optimizer = make_optimizer(setting.optimizer, trained, 0.01, 1e-4)
    schedule = warmup_cosine(optimizer, 4, len(batches) * EPOCHS)
    progress, monitor = Progress(), ContrastiveMonitor(model[4])
    objects = {
        "network": trained,
        "optimizer": optimizer,
        "schedule": schedule,
        "progress": progress,
        "monitor": monitor,
    }
    identity = {"dataset": dataset.fingerprint, "batch_size": setting.batch, "seed": 3, **setting.identity}
    checkpoint = Checkpoint(setting.folder / "checkpoints", objects, identity, every_iterations=4)
    guard = TerminateOnNonFinite(setting.folder / "nonfinite.json", checkpoint.save_before_step)
    made = ContrastiveTrainer(
        torch.device("cpu"),
        EPOCHS,
        batches,
        trained,
        optimizer,
        NTXentLoss(0.2),
        precision="float32",
        prepare_batch=PrepareTwoViews(transform=view if on_device else None),
        train_handlers=[
            checkpoint,
            guard,
            SeedEachStep(3),
            LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
            monitor,
            progress,
        ],
    )
    return made, checkpoint


def parameters(checkpoint: Checkpoint) -> str:
    """Checksum of the parameters alone; running statistics are those of the first rank."""
    digest, model = hashlib.sha256(), checkpoint.objects["network"]
    assert isinstance(model, nn.Module)
    for value in model.parameters():
        digest.update(value.detach().numpy().tobytes())
    return digest.hexdigest()


def checksum(checkpoint: Checkpoint) -> str:
    """Of all that was trained and of the history, but not of times."""
    digest = hashlib.sha256()
    objects: Any = checkpoint.objects
    for name, value in objects["network"].state_dict().items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    for state in objects["optimizer"].state_dict()["state"].values():
        for name, value in state.items():
            digest.update(name.encode() + torch.as_tensor(value).contiguous().numpy().tobytes())
    digest.update(repr(objects["schedule"].state_dict()["last_epoch"]).encode())
    digest.update(repr([(record["epoch"], record["loss"]) for record in objects["progress"].history]).encode())
    digest.update(repr(objects["monitor"].history).encode())
    return digest.hexdigest()


def _run(setting: Setting, rank: int) -> None:
    """The body of a process: train, leave a checksum, end with our exit code."""
    torch.set_num_threads(1)
    out = os.open(setting.folder / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    logging.getLogger("monai_simclr").setLevel(logging.INFO)
    logging.getLogger("monai_simclr").addHandler(logging.StreamHandler(os.fdopen(out, "w", buffering=1)))
    try:
        _join(setting, rank)
        made, checkpoint = trainer(setting)
        _arm(made, setting, rank)
        made.run()
        (setting.folder / f"rank{rank}.sum").write_text(checksum(checkpoint))
        (setting.folder / f"rank{rank}.parameters").write_text(parameters(checkpoint))
    except BaseException as error:
        os.write(2, f"{format_error(error)}\n".encode())
        os._exit(exit_code(error))
    os._exit(0)


def _join(setting: Setting, rank: int) -> None:
    if setting.ranks > 1:
        meet = setting.folder / f"meet{len(list(setting.folder.glob('start*')))}"
        torch.distributed.init_process_group(
            "gloo", f"file://{meet}", rank=rank, world_size=setting.ranks, timeout=timedelta(seconds=60)
        )


def _arm(made: ContrastiveTrainer, setting: Setting, rank: int) -> None:
    def die(engine: Any) -> None:
        if engine.state.iteration == setting.kill[0]:  # type: ignore[index]
            os.kill(os.getpid(), setting.kill_with)

    def poison(engine: Any) -> None:
        if engine.state.iteration == setting.poison:
            engine.state.batch["image_1"] = engine.state.batch["image_1"].float().fill_(float("nan"))

    if setting.kill is not None and setting.kill[2] == rank:
        made.add_event_handler(setting.kill[1], die)
    if setting.poison is not None and rank == 0:
        made.add_event_handler(Events.ITERATION_STARTED, poison)


def run(setting: Setting, timeout: float = 60.0) -> list[int]:
    """Run all ranks to their end, each in a fork; their exit codes, negative for a signal."""
    setting.folder.mkdir(parents=True, exist_ok=True)
    (setting.folder / f"start{len(list(setting.folder.glob('start*')))}").touch()
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_run, args=(setting, rank)) for rank in range(setting.ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging, f"{len(hanging)} ranks still ran after {timeout} s"
    return [int(process.exitcode or 0) for process in processes]


def result(folder: Path, rank: int = 0) -> str:
    return (folder / f"rank{rank}.sum").read_text()


def log(folder: Path, rank: int = 0) -> str:
    return (folder / f"rank{rank}.log").read_text()
