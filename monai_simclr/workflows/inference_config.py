"""What inference needs besides a classifier's weights: temperatures, thresholds, and what is novel."""

from __future__ import annotations

import functools
import logging

import numpy as np
import torch

from monai_simclr import recipes
from monai_simclr.data import Store
from monai_simclr.engines import embed
from monai_simclr.evaluation import fit_novelty
from monai_simclr.evaluation.calibration import OPERATING_POINTS, choose_thresholds, fit_temperature, is_at_bound
from monai_simclr.inference import InferenceConfig, OperatingPoint
from monai_simclr.networks import FindingClassifier
from monai_simclr.workflows.run import Run

logger = logging.getLogger("monai_simclr")


def make_inference_config(
    run: Run, network: FindingClassifier, store: Store, specificity: float = 0.9, false_alarm: float = 0.05
) -> InferenceConfig:
    """Fix everything that inference needs besides the weights.

    Args:
        run: settings of the run.
        network: the trained classifier.
        store: images of the train patients (what is familiar) and of the validation patients (everything else).
        specificity: of the decisions, on validation patients; 0.90 or 0.95.
        false_alarm: largest share of images like the validation images that may be called novel.

    Raises:
        ValueError: if there are no validation images, or `specificity` is another value.
    """
    if f"sensitivity at {specificity:.0%} specificity" not in OPERATING_POINTS:
        raise ValueError(f"specificity must be 0.90 or 0.95, got {specificity}")
    train, held_out = (np.flatnonzero((store.index["split"] == name).to_numpy()) for name in ("train", "val"))
    if not len(held_out):
        raise ValueError("thresholds are fixed on validation patients, and the index has none; see split_by_patient()")
    finish = functools.partial(recipes.to_network_input, size=run.size)
    familiar, features = (
        embed(network.encoder, store.images, finish, run.device, rows=rows) for rows in (train, held_out)
    )
    with torch.no_grad():
        logits = network.classifier(torch.from_numpy(features).to(run.device)).float().cpu().numpy()
    labels = store.index[list(network.findings)].to_numpy(dtype=float)[held_out]
    operating = {
        name: fit_operating_point(name, labels[:, k], logits[:, k], specificity)
        for k, name in enumerate(network.findings)
    }
    return InferenceConfig(
        findings=list(network.findings),
        preprocessing=recipes.settings(run.size),
        operating=operating,
        novelty=fit_novelty(familiar, features, false_alarm),
    )


def fit_operating_point(finding: str, labels: np.ndarray, logits: np.ndarray, specificity: float) -> OperatingPoint:
    """Temperature and threshold of one finding; labels ``(N,)`` are 1, 0 or NaN, logits ``(N,)``.

    A temperature at its bound, where the logits do not fit the labels, is logged.
    """
    known = np.isfinite(labels)
    labels, logits = labels[known], logits[known]
    n, positives = len(labels), int(labels.sum())
    if not 0 < positives < n:
        return OperatingPoint(1.0, None, specificity, {}, n, positives)
    temperature = fit_temperature(labels, logits)
    at_bound = is_at_bound(temperature)
    if at_bound:
        logger.warning(
            f"{finding}: the temperature is at its bound, {temperature:g} ({positives} of {n} validation images are "
            "positive): do not rely on its probabilities; look at its AUROC and its labels"
        )
    which = OPERATING_POINTS.index(f"sensitivity at {specificity:.0%} specificity")
    threshold = float(choose_thresholds(labels, logits)[which])
    if not np.isfinite(threshold):
        return OperatingPoint(temperature, None, specificity, {}, n, positives, at_bound)
    called = logits >= threshold
    achieved = {"specificity": float(1 - called[labels == 0].mean()), "sensitivity": float(called[labels == 1].mean())}
    return OperatingPoint(temperature, threshold, specificity, achieved, n, positives, at_bound)
