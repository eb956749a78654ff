"""A look at the embeddings with labels, every few epochs: shown, and never used for training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from monai_simclr.evaluation.predictions import certain_labels
from monai_simclr.handlers.scores import mean_auroc
from monai_simclr.runtime.distributed import is_main_process

logger = logging.getLogger("monai_simclr.training")

_C = 1e-2


class LinearProbe:
    """Every k epochs, a logistic regression a finding on frozen features: train patients fit it, val patients score it.

    Val patients are held out from the probe; pretraining sees their images, without labels, unless its `splits` leave
    them out. Test patients are never looked at. The mean AUROC goes to ``engine.state.metrics["probe_auroc"]``; it is
    for watching, `monai_simclr.evaluation` is for reporting.

    Args:
        features: maps row numbers ``(n,)`` to features ``(n, D)``.
        index: image index with `split` and the findings.
        findings: columns of the index, where a smoothed label counts as unknown; with none, or without rows of train
            and val, nothing is done.
        every: epochs between two probes; 0 for none.
        most: rows of each split at most, evenly spaced, so that a probe takes seconds.

    Attributes:
        history: one dict a probe: `epoch` and `probe_auroc`.
    """

    def __init__(
        self,
        features: Callable[[np.ndarray], np.ndarray],
        index: pd.DataFrame,
        findings: Sequence[str],
        every: int = 10,
        most: int = 2000,
    ) -> None:
        self.features, self.findings, self.every = features, list(findings), every
        labels = certain_labels(index[self.findings].to_numpy(dtype=float))
        known = np.isfinite(labels).any(axis=1) if self.findings else np.zeros(len(index), dtype=bool)
        split = index["split"].to_numpy()
        self.rows = [_spaced(np.flatnonzero(known & (split == name)), most) for name in ("train", "val")]
        self.labels = [labels[rows] for rows in self.rows]
        self.history: list[dict[str, float]] = []

    def attach(self, engine: Engine) -> None:
        """Register on a trainer, before what shows its numbers."""
        if self.every and all(len(rows) for rows in self.rows) and is_main_process():
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)

    def state_dict(self) -> dict[str, Any]:
        """The history: plain numbers."""
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a history."""
        self.history = list(state["history"])

    def __call__(self, engine: Engine) -> None:
        train, val = (self.features(rows) for rows in self.rows)
        scale = StandardScaler().fit(train)
        train, val = scale.transform(train), scale.transform(val)
        scores = np.stack([_scores(train, labels, val) for labels in self.labels[0].T], axis=1)
        area = mean_auroc(torch.from_numpy(scores), torch.from_numpy(self.labels[1]))
        self.history.append({"epoch": float(engine.state.epoch), "probe_auroc": area})
        engine.state.metrics["probe_auroc"] = area
        logger.info(
            f"epoch {engine.state.epoch}: a linear probe finds the findings with a mean AUROC of {area:.3f} on "
            f"{len(val)} images of val patients (chance 0.5)"
        )


def _scores(train: np.ndarray, labels: np.ndarray, val: np.ndarray) -> np.ndarray:
    known = np.isfinite(labels)
    if len(np.unique(labels[known])) < 2:
        return np.zeros(len(val))
    return LogisticRegression(C=_C, max_iter=300).fit(train[known], labels[known]).decision_function(val)


def _spaced(rows: np.ndarray, most: int) -> np.ndarray:
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(int)]
