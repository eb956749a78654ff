"""Pretraining: its trainer, the linear probe of a run, and what the run leaves."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.handlers import LrScheduleHandler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from monai_simclr import recipes
from monai_simclr.data import Store, StoreDataset
from monai_simclr.engines import ContrastiveTrainer, embed
from monai_simclr.engines.precision import Precision, resolve_precision
from monai_simclr.handlers import Checkpoint, LinearProbe, SeedEachStep, TerminateOnNonFinite
from monai_simclr.networks import SimCLR, load_pretrained, save_encoder
from monai_simclr.runtime.distributed import is_main_process
from monai_simclr.runtime.files import write_json
from monai_simclr.runtime.metrics import closing_line, write_metrics
from monai_simclr.workflows.run import Run
from monai_simclr.workflows.seen import inherited_patients, patients_header

logger = logging.getLogger("monai_simclr")


def contrastive_trainer(
    network: nn.Module,
    batches: DataLoader,
    loss: Callable[..., torch.Tensor],
    optimizer: Optimizer,
    scheduler: LRScheduler,
    max_epochs: int,
    seed: int = 0,
    checkpoints: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    handlers: Sequence[Any] = (),
    device: str | torch.device = "cpu",
    every_epochs: int = 1,
    **settings: Any,
) -> ContrastiveTrainer:
    """The trainer of ``configs/pretrain.json``, for pretraining without the bundle; ``trainer.run()`` trains.

    It seeds every step, steps the schedule after every iteration, and stops before a step that is not finite.

    Args:
        network: `SimCLR`, on the device.
        batches: two views of each image, from `data.loader`.
        loss: as `NTXentLoss`.
        optimizer: of the network.
        scheduler: its schedule, per iteration.
        max_epochs: number of passes over the images.
        seed: of dropout and the like.
        checkpoints: folder; with it the same call resumes an interrupted run, exactly.
        identity: what defines the run, see `Checkpoint`.
        handlers: others; those with a `state_dict` are saved with the checkpoints.
        device: of the network.
        every_epochs: epochs between two checkpoints.
        **settings: of `ContrastiveTrainer`.
    """
    guard: list[Any] = [TerminateOnNonFinite()]
    if checkpoints is not None:
        stateful = {type(item).__name__: item for item in handlers if hasattr(item, "state_dict")}
        objects = {"network": network, "optimizer": optimizer, "scheduler": scheduler, **stateful}
        checkpoint = Checkpoint(checkpoints, objects, {"seed": seed, **(identity or {})}, every_epochs)
        guard = [TerminateOnNonFinite(save=checkpoint.save_before_step), checkpoint]
    rate: Any = scheduler  # MONAI's annotation is of torch's former class
    steps = [SeedEachStep(seed), LrScheduleHandler(rate, print_lr=False, epoch_level=False)]
    return ContrastiveTrainer(
        torch.device(device),
        max_epochs,
        batches,
        network,
        optimizer,
        loss,
        train_handlers=[*guard, *steps, *handlers],
        **settings,
    )


def probe(run: Run, encoder: nn.Module, store: Store, every: int) -> LinearProbe:
    """A linear probe of the encoder while it trains, on all findings that the archive has labels for."""
    finish = functools.partial(recipes.to_network_input, size=run.size)

    def features(rows: np.ndarray) -> np.ndarray:
        was_training = encoder.training
        outputs = embed(encoder, store.images, finish, run.device, rows=rows)
        encoder.train(was_training)
        return outputs

    findings = store.findings if every and is_main_process() else ()
    index = store.index if findings else pd.DataFrame({"split": []})  # text that no other rank needs in memory
    return LinearProbe(features, index, findings, every)


class StartFrom:
    """Handler of the trainer that lets a new run continue from weights; one that resumes has weights of its own.

    Whom these weights had seen is read together with them and is part of the checkpoints: what becomes of their file
    during the run changes nothing.

    Args:
        network: `SimCLR`, without DistributedDataParallel around it.
        weights: file of an encoder of ours, or of what others trained, see `load_pretrained`; None for random weights.

    Raises:
        FileNotFoundError: on the start, if there is no file.
        ValueError: on the start, if the weights are not for this encoder.

    Attributes:
        patients_before: `inherited_patients` of the weights; "" for random weights, and before the start.
    """

    def __init__(self, network: SimCLR, weights: str | Path | None) -> None:
        self.network, self.weights, self.patients_before = network, weights, ""

    def attach(self, engine: Engine) -> None:
        """Register on a trainer, after the handler that resumes."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if self.weights is not None and engine.state.iteration == 0:
            load_pretrained(self.network.encoder, self.weights)
            self.patients_before = inherited_patients(self.weights)
            logger.info(f"the encoder starts from {self.weights}")

    def state_dict(self) -> dict[str, str]:
        """The patients that a checkpoint keeps."""
        return {"patients_before": self.patients_before}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Restore them."""
        self.patients_before = str(state["patients_before"])


def finish_pretraining(
    run: Run,
    path: str | Path,
    network: nn.Module,
    dataset: StoreDataset,
    encoder_name: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    monitor: Sequence[Mapping[str, float]],
    precision: Precision = "float32",
    start_from: str | Path | None = None,
    patients_before: str = "",
) -> None:
    """Write the encoder, with its settings and hashes of the patients it has seen, and metrics; on the first rank.

    What the encoder that it started from (`start_from`) had seen counts as seen, too: `patients_before`, which
    `StartFrom` read when the run began, or else what the file holds now. The hashes have a key of their own in each
    file, so those of two files cannot be compared.
    """
    if not is_main_process():
        return
    model: SimCLR = getattr(network, "module", network)  # type: ignore[arg-type]
    seen = dataset.store.index.iloc[dataset.rows]
    how = {"size": run.size, "seed": run.seed, "precision": resolve_precision(precision, run.device)}
    header = {**how, **patients_header(model.encoder, seen), **encoder_name}
    if start_from is not None:
        header |= {
            "start_from": Path(start_from).name,
            "patients_before": patients_before or inherited_patients(start_from),
        }
    save_encoder(path, model.encoder, {name: str(value) for name, value in header.items()})
    metrics = write_metrics(
        run.output_dir,
        {"loss": history[-1]["loss"], "images_per_second": history[-1]["images_per_second"], **monitor[-1]},
        command="pretrain",
        split="+".join(dataset.splits),
        seed=run.seed,
        n={
            "images": len(dataset),
            "patients": seen["patient_id"].nunique(),
            "rejected": len(dataset.store.rejected),
            "epochs": len(history),
        },
        baselines={"top1": {"chance": monitor[-1]["chance"]}},
    )
    joined = [{**record, **other} for record, other in zip(history, monitor, strict=True)]
    write_json(run.path("history.json"), joined)
    logger.info(closing_line([Path(path), metrics], "run configs/cluster.json and configs/train.json"))
