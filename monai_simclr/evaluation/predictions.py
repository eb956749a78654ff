"""Predictions of K findings for N images, checked once, with the patients that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit


@dataclass(frozen=True)
class Predictions:
    """Logits, labels and patients of the same images.

    Args:
        labels: 1, 0 or NaN (unknown), shape ``(N, K)``.
        scores: finite, shape ``(N, K)``, higher for 1. For calibration they are logits: their sigmoid is a probability.
        patients: shape ``(N,)``.
        findings: K names.

    Raises:
        ValueError: if shapes differ, a label is not 0, 1 or NaN, or a score is not finite.

    Example:
        >>> two = Predictions(np.array([[0], [np.nan]]), np.array([[-1.0], [2.0]]), np.array(["a", "b"]), ["Mass"])
        >>> len(two), two.known(0).tolist()
        (2, [True, False])
    """

    labels: np.ndarray
    scores: np.ndarray
    patients: np.ndarray
    findings: Sequence[str]

    def __post_init__(self) -> None:
        labels, scores = np.asarray(self.labels, dtype=float), np.asarray(self.scores, dtype=float)
        patients, findings = np.asarray(self.patients).astype(str), [str(name) for name in self.findings]
        if labels.shape != scores.shape or labels.shape != (len(patients), len(findings)):
            raise ValueError(
                f"labels {labels.shape} and scores {scores.shape} must both be (images, findings) "
                f"= ({len(patients)}, {len(findings)})"
            )
        invalid = labels[~np.isnan(labels) & (labels != 0) & (labels != 1)]
        if len(invalid):
            raise ValueError(f"labels are 1, 0 or NaN, got {invalid[:3].tolist()}")
        if not np.isfinite(scores).all():
            raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite; check the model")
        for name, value in {"labels": labels, "scores": scores, "patients": patients, "findings": findings}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.labels)

    def known(self, k: int) -> np.ndarray:
        """Where the label of finding `k` is known, a mask of shape ``(N,)``."""
        return np.isfinite(self.labels[:, k])

    def both(self, k: int) -> bool:
        """Whether finding `k` has a positive and a negative image."""
        labels = self.labels[self.known(k), k]
        return bool(0 < labels.sum() < len(labels))

    def where(self, rows: np.ndarray) -> Predictions:
        """The images that a mask or an array of positions selects."""
        return Predictions(self.labels[rows], self.scores[rows], self.patients[rows], self.findings)


def certain_labels(labels: np.ndarray) -> np.ndarray:
    """Labels for whatever classifies or counts: 1 and 0 stay, a smoothed label (between them) becomes NaN, unknown."""
    values = np.asarray(labels, dtype=float)
    return np.where((values == 0) | (values == 1), values, np.nan)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, in float64, for people to read: above 37 they are exactly 1, so decide on logits."""
    return expit(np.asarray(logits, dtype=float))


def refuse_shared_patients(splits: Mapping[str, np.ndarray]) -> None:
    """Raise `ValueError` if a patient is in two of the named sets of patients."""
    names = list(splits)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = np.intersect1d(splits[first], splits[second])
            if len(both):
                raise ValueError(
                    f"{len(both)} patients are in {first} and in {second}, the first is {str(both[0])!r}; split by "
                    "patient with split_by_patient()"
                )


def train_and_test(index: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the train and the test rows; `ValueError` if one is empty."""
    train, test = (index["split"] == "train").to_numpy(), (index["split"] == "test").to_numpy()
    if not train.any() or not test.any():
        raise ValueError(f"the index has {train.sum()} train and {test.sum()} test rows; the evaluation needs both")
    return train, test
