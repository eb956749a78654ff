"""What view position, age and sex alone would reach, and whether the images say more than they do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from monai_simclr.evaluation.bootstrap import bootstrap_interval, patient_counts
from monai_simclr.evaluation.predictions import Predictions, certain_labels
from monai_simclr.evaluation.ranking import Ranking
from monai_simclr.evaluation.scores import MACRO, mean_of_known, score_findings

_FEWEST = 2
"""Patients with a finding, and without it, below which a floor says nothing: one patient is ranked, not a finding."""


def confounder_baseline(
    index: pd.DataFrame, findings: Sequence[str], n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """What a model reaches that never sees the image: view position, age and sex alone.

    An image model that does not beat this floor may have learned the acquisition and not the finding;
    `compare_to_baseline` tests that.

    Args:
        index: with `patient_id, view_position, sex, age, split` and the findings.
        findings: columns of the index.
        n_bootstrap: resamples of test patients.
        seed: of the resampling.

    Returns:
        The table of `score_findings`. A finding that fewer than two train or test patients have, or lack, has no floor:
        NaN and a `reason`; it does not count in the macro mean.

    Raises:
        ValueError: if there are no train or no test rows.
    """
    scores = baseline_scores(index, findings)
    test = index[index["split"] == "test"]
    labels, patients = test[list(findings)].to_numpy(dtype=float), test["patient_id"].to_numpy(dtype=str)
    reasons = [_reason(labels[:, k], scores[:, k], patients) for k in range(len(findings))]
    stated = np.where([bool(reason) for reason in reasons], np.nan, labels)
    table = score_findings(stated, np.nan_to_num(scores), patients, findings, n_bootstrap, seed)
    return table.assign(reason=[mine or given for mine, given in zip([*reasons, ""], table["reason"], strict=True)])


def baseline_scores(index: pd.DataFrame, findings: Sequence[str]) -> np.ndarray:
    """Logits of every test row from view position, age and sex: shape ``(N_test, K)``.

    A logistic regression on one-hot view position and sex, age and its square (missing age: its own column), fitted on
    train patients. NaN for a finding that fewer than two train patients have, or lack: it has no floor.

    Raises:
        ValueError: if there are no train or no test rows.
    """
    train, test = (index["split"] == "train").to_numpy(), (index["split"] == "test").to_numpy()
    if not train.any() or not test.any():
        raise ValueError(f"the index has {train.sum()} train and {test.sum()} test rows; the floor needs both")
    features = _acquisition(index)
    labels = certain_labels(index[list(findings)].to_numpy(dtype=float))
    patients = index["patient_id"].to_numpy(dtype=str)
    scores = np.full((int(test.sum()), len(findings)), np.nan)
    scaler = StandardScaler().fit(features[train])
    for k in range(len(findings)):
        rows = train & np.isfinite(labels[:, k])
        if not _too_few(labels[rows, k], patients[rows], "train"):
            model = LogisticRegression(max_iter=1000).fit(scaler.transform(features[rows]), labels[rows, k])
            scores[:, k] = model.decision_function(scaler.transform(features[test]))
    return scores


def compare_to_baseline(model: Predictions, floor: np.ndarray, n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The model's AUROC, the floor's, and the paired difference over the same resamples of patients.

    Args:
        model: of the test images.
        floor: scores of the same images from `baseline_scores`, shape ``(N, K)``; a column of NaN is no floor.
        n_bootstrap: resamples of patients.
        seed: of the resampling.

    Returns:
        One row a finding and the macro mean over the findings that have a floor: `finding, model, floor, difference,
        low, high, reason`; `low` and `high` are of the difference. Where train or test has fewer than two patients with
        a finding, or without it, floor and difference are NaN and `reason` says why.

    Example:
        >>> labels = np.tile([[0.0], [1.0]], (20, 1))
        >>> given = Predictions(labels, labels, np.arange(40), ["Mass"])
        >>> compare_to_baseline(given, np.zeros((40, 1)), 50)[["model", "floor", "difference"]].to_numpy().tolist()
        [[1.0, 0.5, 0.5], [1.0, 0.5, 0.5]]
    """
    codes, counts = patient_counts(model.patients, n_bootstrap, seed)
    counts = np.vstack([np.ones((1, counts.shape[1]), dtype=counts.dtype), counts])
    floor, both, reasons = np.asarray(floor, dtype=float), [], []
    for k in range(len(model.findings)):
        rows = model.known(k)
        labels, patients = model.labels[rows, k], codes[rows]
        areas = [Ranking(labels, scores[rows, k], patients).areas(counts)[0] for scores in (model.scores, floor)]
        reasons.append(_reason(labels, floor[rows, k], patients))
        both.append([areas[0], areas[1] * np.nan] if reasons[-1] else areas)
    table = np.array(both)
    stated = table[[not reason for reason in reasons]]
    pooled = np.stack([mean_of_known(stated[:, i]) for i in (0, 1)])[None]
    reasons.append("" if len(stated) else "no finding has a floor")
    rows_of = zip([*model.findings, MACRO], [*table, *pooled], reasons, strict=True)
    return pd.DataFrame([_beside(name, areas[0], areas[1], reason) for name, areas, reason in rows_of])


def _beside(name: str, model: np.ndarray, floor: np.ndarray, reason: str) -> dict:
    difference = model - floor
    found = bootstrap_interval(difference[0], difference[1:])
    return {
        "finding": name,
        "model": model[0],
        "floor": floor[0],
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "reason": reason,
    }


def _reason(labels: np.ndarray, floor: np.ndarray, patients: np.ndarray) -> str:
    """Why a finding has no floor on the test patients, "" where it has one."""
    if np.isnan(floor).any():
        return f"fewer than {_FEWEST} train patients have the finding, or lack it"
    return _too_few(labels, patients, "test")


def _too_few(labels: np.ndarray, patients: np.ndarray, split: str) -> str:
    for value, what in ((1, "have"), (0, "lack")):
        n = len(np.unique(patients[labels == value]))
        if n < _FEWEST:
            return f"fewer than {_FEWEST} {split} patients {what} the finding"
    return ""


def _acquisition(index: pd.DataFrame) -> np.ndarray:
    coded = pd.get_dummies(index[["view_position", "sex"]].fillna("").astype(str), dtype=float)
    age = index["age"].astype(float)
    filled = age.fillna(50) / 100  # any constant does: the last column tells the model where it stands
    return np.column_stack([coded.to_numpy(), filled, filled**2, age.isna().astype(float)])
