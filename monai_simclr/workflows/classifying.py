"""A classifier of findings: where it starts, what training leaves, its scores on held-out patients."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_simclr import recipes
from monai_simclr.data import Store
from monai_simclr.engines import embed
from monai_simclr.evaluation import confounder_floor, score_findings
from monai_simclr.files import write_atomically
from monai_simclr.inference import write_card
from monai_simclr.networks import FindingClassifier, load_classifier, load_encoder, save_classifier
from monai_simclr.results import closing_line, print_table, write_metrics
from monai_simclr.workflows.card import classifier_card
from monai_simclr.workflows.run import Run

__all__ = ["evaluate", "finish_training", "start_classifier"]

logger = logging.getLogger("monai_simclr")


def start_classifier(
    network: FindingClassifier, encoder_path: str | Path, pretrained: bool, device: torch.device
) -> FindingClassifier:
    """A classifier ready for training: its encoder as pretraining left it, or from scratch."""
    if pretrained:
        network.encoder.load_state_dict(load_encoder(encoder_path).state_dict())
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def finish_training(
    run: Run,
    path: str | Path,
    network: FindingClassifier,
    store: Store,
    rows: np.ndarray,
    settings: Mapping[str, Any],
) -> None:
    """Leave the classifier, its scores on held-out patients beside the confounder floor, and a closing line.

    Args:
        run: settings of the run.
        path: where the classifier goes.
        network: the trained classifier.
        store: the archive's images.
        rows: which rows had labels in training.
        settings: what was asked for (label fraction, draw, arm), for ``metrics.json``.
    """
    save_classifier(path, network)
    write_card(classifier_card(run, network, store), path)
    patients = store.index["patient_id"].iloc[rows].nunique()
    n = {"labelled_images": len(rows), "labelled_patients": int(patients)}
    made = _score(run, network, store, "test", command="train", n=n, settings=settings)
    logger.info(closing_line([Path(path), made], "run configs/inference.json on new images next"))


def evaluate(run: Run, path: str | Path, network: FindingClassifier, store: Store, split: str) -> None:
    """Score a trained classifier on a split, beside the confounder floor."""
    made = _score(run, load_classifier(network, path, run.device), store, split, command="evaluate", n={}, settings={})
    logger.info(closing_line([made], "run configs/inference.json on new images next"))


def _score(
    run: Run,
    network: FindingClassifier,
    store: Store,
    split: str,
    *,
    command: str,
    n: Mapping[str, int],
    settings: Mapping[str, Any],
) -> Path:
    """Score a classifier on the images of a split; write scores.npz (for paired comparisons) and metrics.json."""
    findings = network.findings
    chosen = np.flatnonzero((store.index["split"] == split).to_numpy())
    if not len(chosen):
        raise ValueError(f"no image is in the split {split!r}; the index has {sorted(set(store.index['split']))}")
    index = store.index.iloc[chosen].reset_index(drop=True)
    logits = embed(network, store.images[chosen], functools.partial(recipes.finish, size=run.size), run.device)
    labels = index[list(findings)].to_numpy(dtype=float)
    patients = index["patient_id"].to_numpy(dtype=str)
    table = score_findings(labels, logits, patients, findings, seed=run.seed)
    with write_atomically(run.path("scores.npz")) as part, open(part, "wb") as file:
        np.savez(file, scores=logits, labels=labels, patients=patients, findings=np.array(findings))
    floor = confounder_floor(store.index, findings, seed=run.seed).to_dict("records") if split == "test" else []
    shown = table[["finding", "n", "positives", "auroc", "low", "high", "auprc"]].to_dict("records")
    print_table(shown, title=f"AUROC on the split {split!r} (confounder floor in metrics.json)")  # type: ignore[arg-type]
    return write_metrics(
        run.output_dir,
        {"findings": {row["finding"]: row for row in table.to_dict("records")}, **settings},
        command=command, split=split, seed=run.seed,
        n={"images": len(chosen), "patients": len(set(patients)), **n},
        baselines={"chance": 0.5, "confounder_floor": floor},
    )  # fmt: skip
