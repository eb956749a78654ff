"""How well scores rank findings: AUROC and average precision with patient intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from monai_simclr.evaluation.bootstrap import bootstrap_interval, patient_counts, patients_of_smaller_class
from monai_simclr.evaluation.predictions import Predictions
from monai_simclr.evaluation.ranking import Ranking

MACRO = "macro mean"
"""The name of the last row of `score_findings`."""


def score_findings(
    labels: np.ndarray,
    scores: np.ndarray,
    patients: np.ndarray,
    findings: Sequence[str],
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score every finding on the images whose label is known. `score_table` has all other scores.

    Args:
        labels: 1, 0 or NaN (unknown), shape ``(N, K)``.
        scores: finite, shape ``(N, K)``.
        patients: shape ``(N,)``.
        findings: K names.
        n_bootstrap: resamples of patients.
        seed: of the resampling.

    Returns:
        One row a finding and a last one, "macro mean" over the findings that could be scored: `finding, n, positives,
        positive_patients, prevalence, auroc, low, high, auprc, auprc_low, auprc_high, reason`. A finding with one class
        only has NaN and a `reason`. A resample's macro mean is over the findings that the resample defines.

    Raises:
        ValueError: if shapes differ, a label is not 0, 1 or NaN, or a score is not finite.

    Example:
        >>> labels = np.array([[0, 1], [0, 1], [1, 1], [1, np.nan]])
        >>> table = score_findings(labels, np.arange(8).reshape(4, 2), np.array(list("abcd")), ["Mass", "Edema"], 50)
        >>> table[["finding", "n", "auroc", "reason"]].to_csv(index=False).splitlines()
        ['finding,n,auroc,reason', 'Mass,4,1.0,', 'Edema,3,,every known label is 1', 'macro mean,4,1.0,']
    """
    given = Predictions(labels, scores, patients, findings)
    codes, counts = patient_counts(given.patients, n_bootstrap, seed)
    areas = [_areas(given, k, codes, counts) for k in range(len(given.findings))]
    units = [patients_of_smaller_class(given.labels[:, k], codes) for k in range(len(areas))]
    rows = [
        {**counted(given, k, codes), **_intervals(*areas[k], units[k]), "reason": _reason(given, k)}
        for k in range(len(areas))
    ]
    pooled = [mean_of_known(np.array([area[i] for area in areas])) for i in (0, 1)]
    macro = _intervals(pooled[0], pooled[1], counts.shape[1])
    reason = "" if np.isfinite(macro["auroc"]) else "none"
    return pd.DataFrame([*rows, {"finding": MACRO, "n": len(given), **macro, "reason": reason}])


def macro_auroc_resamples(
    labels: np.ndarray, scores: np.ndarray, codes: np.ndarray, counts: np.ndarray
) -> tuple[float, np.ndarray]:
    """Macro AUROC of the data as they are, and of every resample that `patient_counts` drew.

    Args:
        labels: 1, 0 or NaN, shape ``(N, K)``.
        scores: shape ``(N, K)``.
        codes: the patient of every image, shape ``(N,)``, from `patient_counts`.
        counts: shape ``(n, P)``, from `patient_counts`.

    Returns:
        The macro AUROC and its resamples, shape ``(n,)``; same codes and counts pair two sets of scores.
    """
    given = Predictions(labels, scores, codes, [str(k) for k in range(np.shape(labels)[1])])
    areas = np.array([_areas(given, k, codes, counts)[0] for k in range(len(given.findings))])
    mean = mean_of_known(areas)
    return float(mean[0]), mean[1:]


def counted(given: Predictions, k: int, codes: np.ndarray) -> dict:
    """What finding `k` is scored on: images, positive images, positive patients, prevalence."""
    known, positive = given.known(k), given.labels[:, k] == 1
    return {
        "finding": given.findings[k],
        "n": int(known.sum()),
        "positives": int(positive.sum()),
        "positive_patients": len(np.unique(codes[positive])),
        "prevalence": float(positive.sum() / known.sum()) if known.any() else float("nan"),
    }


def mean_of_known(table: np.ndarray) -> np.ndarray:
    """Mean over findings ``(K, n) -> (n,)``, leaving NaN out; NaN where nothing is left, without a warning.

    Example:
        >>> mean_of_known(np.array([[1.0, np.nan], [3.0, np.nan]]))
        array([ 2., nan])
    """
    known = np.isfinite(table)
    total = np.where(known, table, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(table.shape[1], np.nan), where=known.any(axis=0))


def _areas(given: Predictions, k: int, codes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision of the data as they are, then of every resample: two arrays ``(1 + n,)``."""
    known = given.known(k)
    ranking = Ranking(given.labels[known, k], given.scores[known, k], codes[known])
    whole, drawn = ranking.areas(np.ones((1, counts.shape[1]))), ranking.areas(counts)
    areas = [np.r_[first, rest] for first, rest in zip(whole, drawn, strict=True)]
    if not given.both(k):
        areas = [area * np.nan for area in areas]
    return areas[0], areas[1]


def _intervals(auroc: np.ndarray, auprc: np.ndarray, units: int) -> dict:
    area, precision = (bootstrap_interval(values[0], values[1:], units=units) for values in (auroc, auprc))
    return {
        "auroc": area.value,
        "low": area.low,
        "high": area.high,
        "auprc": precision.value,
        "auprc_low": precision.low,
        "auprc_high": precision.high,
    }


def _reason(given: Predictions, k: int) -> str:
    if given.both(k):
        return ""
    if not given.known(k).any():
        return "no label is known"
    return f"every known label is {int((given.labels[:, k] == 1).any())}"
