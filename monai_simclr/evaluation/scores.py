"""How well scores find findings: AUROC with patient intervals, and what view, age and sex alone would reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from monai_simclr.evaluation.bootstrap import auroc_resamples, interval_of, patient_counts

__all__ = ["MACRO", "confounder_floor", "macro_auroc_resamples", "score_findings"]

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
    """Score every finding on the images whose label is known.

    Args:
        labels: 1, 0 or NaN (unknown), shape ``(N, K)``.
        scores: finite, shape ``(N, K)``.
        patients: shape ``(N,)``.
        findings: K names.
        n_bootstrap: resamples of patients.
        seed: of the resampling.

    Returns:
        One row a finding and a last one, "macro mean" over the findings that could be scored: `finding, n, positives,
        positive_patients, prevalence, auroc, low, high, auprc, reason`. A finding with one class only has NaN and
        a `reason`. A resample's macro mean is over the findings that the resample defines.

    Raises:
        ValueError: if shapes differ, a label is not 0, 1 or NaN, or a score is not finite.

    Example:
        >>> labels = np.array([[0, 1], [0, 1], [1, 1], [1, np.nan]])
        >>> table = score_findings(labels, np.arange(8).reshape(4, 2), np.array(list("abcd")), ["Mass", "Edema"], 50)
        >>> table[["finding", "n", "auroc", "reason"]].to_csv(index=False).splitlines()
        ['finding,n,auroc,reason', 'Mass,4,1.0,', 'Edema,3,,every known label is 1', 'macro mean,4,1.0,']
    """
    labels, scores = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
    _check(labels, scores, patients, findings)
    codes, counts = patient_counts(patients, n_bootstrap, seed)
    resamples = [_resamples(labels[:, k], scores[:, k], codes, counts) for k in range(len(findings))]
    rows = [_row(labels[:, k], scores[:, k], codes, resamples[k], name) for k, name in enumerate(findings)]
    macro = interval_of(_mean(np.array([[row["auroc"]] for row in rows]))[0], _mean(np.array(resamples)))
    last = {"finding": MACRO, "n": len(labels), "auroc": macro.value, "low": macro.low, "high": macro.high}
    precision = _mean(np.array([[row["auprc"]] for row in rows]))[0]
    return pd.DataFrame([*rows, {**last, "auprc": precision, "reason": "" if np.isfinite(macro.value) else "none"}])


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
    ones = np.ones((1, counts.shape[1]), dtype=counts.dtype)
    columns = range(labels.shape[1])
    value = _mean(np.array([_resamples(labels[:, k], scores[:, k], codes, ones) for k in columns]))[0]
    return float(value), _mean(np.array([_resamples(labels[:, k], scores[:, k], codes, counts) for k in columns]))


def confounder_floor(
    index: pd.DataFrame, findings: Sequence[str], n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """What a model reaches that never sees the image: view position, age and sex alone.

    A logistic regression on one-hot view position and sex, age and its square (missing age: its own column), fitted on
    train patients and scored on test patients. An image model that does not beat this floor may have learned the
    acquisition and not the finding.

    Args:
        index: with `patient_id, view_position, sex, age, split` and the findings.
        findings: columns of the index.
        n_bootstrap: resamples of test patients.
        seed: of the resampling.

    Returns:
        The table of `score_findings`; a finding that train patients have in one class only scores 0.5 by construction.

    Raises:
        ValueError: if there are no train or no test rows.
    """
    train, test = (index["split"] == "train").to_numpy(), (index["split"] == "test").to_numpy()
    if not train.any() or not test.any():
        raise ValueError(f"the index has {train.sum()} train and {test.sum()} test rows; the floor needs both")
    features = _acquisition(index)
    labels = index[list(findings)].to_numpy(dtype=float)
    scores = np.zeros((int(test.sum()), len(findings)))
    scaler = StandardScaler().fit(features[train])
    for k in range(len(findings)):
        rows = train & np.isfinite(labels[:, k])
        if len(np.unique(labels[rows, k])) == 2:
            model = LogisticRegression(max_iter=1000).fit(scaler.transform(features[rows]), labels[rows, k])
            scores[:, k] = model.decision_function(scaler.transform(features[test]))
    patients = index["patient_id"].to_numpy()[test]
    return score_findings(labels[test], scores, patients, findings, n_bootstrap, seed)


def _acquisition(index: pd.DataFrame) -> np.ndarray:
    coded = pd.get_dummies(index[["view_position", "sex"]].fillna("").astype(str), dtype=float)
    age = index["age"].astype(float)
    filled = age.fillna(50) / 100  # any constant does: the last column tells the model where it stands
    return np.column_stack([coded.to_numpy(), filled, filled**2, age.isna().astype(float)])


def _check(labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, findings: Sequence[str]) -> None:
    if labels.shape != scores.shape or labels.shape != (len(patients), len(findings)):
        raise ValueError(
            f"labels {labels.shape} and scores {scores.shape} must both be (images, findings) "
            f"= ({len(patients)}, {len(findings)})"
        )
    strange = labels[np.isfinite(labels) & (labels != 0) & (labels != 1)]
    if len(strange) or np.isinf(labels).any():
        raise ValueError(f"labels are 1, 0 or NaN; came {strange[:3].tolist() or 'infinity'}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite; check the model")


def _resamples(labels: np.ndarray, scores: np.ndarray, codes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    known = np.isfinite(labels)
    if not known.any():
        return np.full(len(counts), np.nan)
    return auroc_resamples(labels[known], scores[known], counts[:, codes[known]])


def _row(labels: np.ndarray, scores: np.ndarray, codes: np.ndarray, resamples: np.ndarray, name: str) -> dict:
    known = np.isfinite(labels)
    positive = labels == 1
    both = 0 < positive.sum() < known.sum()
    ones = np.ones((1, known.sum()))
    value = auroc_resamples(labels[known], scores[known], ones)[0] if both else float("nan")
    interval = interval_of(value, resamples)
    return {
        "finding": name,
        "n": int(known.sum()),
        "positives": int(positive.sum()),
        "positive_patients": len(np.unique(codes[positive])),
        "prevalence": float(positive.sum() / known.sum()) if known.any() else float("nan"),
        "auroc": interval.value,
        "low": interval.low,
        "high": interval.high,
        "auprc": float(average_precision_score(labels[known], scores[known])) if both else float("nan"),
        "reason": "" if both else _reason(known, positive),
    }


def _reason(known: np.ndarray, positive: np.ndarray) -> str:
    if not known.any():
        return "no label is known"
    return f"every known label is {int(positive.any())}"


def _mean(table: np.ndarray) -> np.ndarray:
    """Mean over findings ``(K, n) -> (n,)``, leaving NaN out; NaN where nothing is left, without a warning."""
    known = np.isfinite(table)
    total = np.where(known, table, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(table.shape[1], np.nan), where=known.any(axis=0))
