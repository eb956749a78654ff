"""What must travel with a trained classifier: calibration, thresholds, and what is novel."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping

import numpy as np
import torch

from monai_simclr import recipes
from monai_simclr.data import Store
from monai_simclr.engines import embed
from monai_simclr.evaluation import fit_novelty
from monai_simclr.evaluation.calibration import fit_temperature, is_at_bound
from monai_simclr.evaluation.thresholds import OPERATING_POINTS, choose_thresholds
from monai_simclr.inference import InferenceConfig, OperatingPoint
from monai_simclr.networks import FindingClassifier
from monai_simclr.workflows.run import Run

logger = logging.getLogger("monai_simclr")


def make_inference_config(
    run: Run, network: FindingClassifier, store: Store, specificity: float = 0.9, false_alarm: float = 0.05
) -> InferenceConfig:
    """Fix everything that inference needs beside the weights.

    Args:
        run: settings of the run.
        network: the trained classifier.
        store: images of the train patients (what is familiar) and of the validation patients (everything else).
        specificity: of the decisions, on validation patients; 0.90 or 0.95.
        false_alarm: share of images like the validation images that may be called novel.

    Raises:
        ValueError: if there are no validation images, or `specificity` is another value.
    """
    if f"sensitivity at {specificity:.0%} specificity" not in OPERATING_POINTS:
        raise ValueError(f"specificity must be 0.90 or 0.95, got {specificity}")
    train, held_out = (np.flatnonzero((store.index["split"] == name).to_numpy()) for name in ("train", "val"))
    if not len(held_out):
        raise ValueError("thresholds are fixed on validation patients, and the index has none; see split_by_patient()")
    finish = functools.partial(recipes.to_network_input, size=run.size)
    familiar, features = (embed(network.encoder, store.images[rows], finish, run.device) for rows in (train, held_out))
    with torch.no_grad():
        logits = network.classifier(torch.from_numpy(features).to(run.device)).float().cpu().numpy()
    labels = store.index[list(network.findings)].to_numpy(dtype=float)[held_out]
    operating = {name: _operating(labels[:, k], logits[:, k], specificity) for k, name in enumerate(network.findings)}
    _report_bounds(operating)
    return InferenceConfig(
        findings=list(network.findings),
        preprocessing=recipes.settings(run.size),
        operating=operating,
        novelty=fit_novelty(familiar, features, false_alarm),
    )


def _operating(labels: np.ndarray, logits: np.ndarray, specificity: float) -> OperatingPoint:
    known = np.isfinite(labels)
    labels, logits = labels[known], logits[known]
    n, positives = len(labels), int(labels.sum())
    if not 0 < positives < n:
        return OperatingPoint(1.0, None, specificity, {}, n, positives)
    which = OPERATING_POINTS.index(f"sensitivity at {specificity:.0%} specificity")
    threshold = float(choose_thresholds(labels, logits)[which])
    temperature = fit_temperature(labels, logits)
    bound = is_at_bound(temperature)
    if not np.isfinite(threshold):
        return OperatingPoint(temperature, None, specificity, {}, n, positives, bound)
    called = logits >= threshold
    achieved = {
        "specificity": float(1 - called[labels == 0].mean()),
        "sensitivity": float(called[labels == 1].mean()),
    }
    return OperatingPoint(temperature, threshold, specificity, achieved, n, positives, bound)


def _report_bounds(operating: Mapping[str, OperatingPoint]) -> None:
    """Say where calibration failed: the logits of validation images do not go with their labels."""
    for name, one in operating.items():
        if one.temperature_at_bound:
            logger.warning(
                f"{name}: the temperature ran to its bound, {one.temperature:g} ({one.positives} of {one.n} validation "
                "images are positive): its probabilities are not to be trusted; look at its AUROC and its labels"
            )
