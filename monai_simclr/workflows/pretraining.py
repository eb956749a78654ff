"""What pretraining is watched by, and what it leaves behind."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from monai_simclr import recipes
from monai_simclr.data import Store, StoreDataset, finding_columns
from monai_simclr.engines import embed
from monai_simclr.handlers import LinearProbe
from monai_simclr.networks import SimCLR, save_encoder
from monai_simclr.runtime.distributed import is_main_process
from monai_simclr.runtime.files import write_json
from monai_simclr.runtime.metrics import closing_line, write_metrics
from monai_simclr.workflows.run import Run
from monai_simclr.workflows.seen import patients_header

logger = logging.getLogger("monai_simclr")


def probe(run: Run, encoder: nn.Module, store: Store, every: int) -> LinearProbe:
    """A linear probe of the encoder while it trains, on all findings that the archive has labels for."""
    finish = functools.partial(recipes.to_network_input, size=run.size)

    def features(rows: np.ndarray) -> np.ndarray:
        was_training = encoder.training
        made = embed(encoder, store.images[rows], finish, run.device)
        encoder.train(was_training)
        return made

    return LinearProbe(features, store.index, finding_columns(store.index), every)


def finish_pretraining(
    run: Run,
    path: str | Path,
    network: nn.Module,
    dataset: StoreDataset,
    encoder_name: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    monitor: Sequence[Mapping[str, float]],
) -> None:
    """Leave the encoder with what it is and whom it saw, the metrics, and a closing line (on the first rank)."""
    if not is_main_process():
        return
    model: SimCLR = getattr(network, "module", network)  # type: ignore[arg-type]
    patients = {str(dataset.store.index["patient_id"].iloc[record["row"]]) for record in dataset.data}
    header = {"size": run.size, "seed": run.seed, **patients_header(model.encoder, patients), **encoder_name}
    save_encoder(path, model.encoder, {key: str(value) for key, value in header.items()})
    last, chance = history[-1], monitor[-1]["chance"]
    values = {"loss": last["loss"], "images_per_second": last["images_per_second"], **monitor[-1]}
    n = {
        "images": len(dataset),
        "patients": len(patients),
        "rejected": len(dataset.store.rejected),
        "epochs": len(history),
    }
    made = write_metrics(
        run.output_dir,
        values,
        command="pretrain",
        split="+".join(dataset.splits),
        seed=run.seed,
        n=n,
        baselines={"top1": {"chance": chance}},
    )
    write_json(run.path("history.json"), _joined(history, monitor))
    logger.info(closing_line([Path(path), made], "run configs/cluster.json and configs/train.json"))


def _joined(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    return [{**one, **other} for one, other in zip(first, second, strict=True)]
