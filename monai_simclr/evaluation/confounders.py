"""What view position, age and sex alone would reach, and whether the images say more than they do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from monai_simclr.evaluation.bootstrap import interval_of, patient_counts
from monai_simclr.evaluation.predictions import Predictions, certain_labels
from monai_simclr.evaluation.ranking import Ranking
from monai_simclr.evaluation.scores import MACRO, mean_of_known, score_findings

__all__ = ["beside_floor", "confounder_floor", "floor_scores"]


def confounder_floor(
    index: pd.DataFrame, findings: Sequence[str], n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """What a model reaches that never sees the image: view position, age and sex alone.

    An image model that does not beat this floor may have learned the acquisition and not the finding; `beside_floor`
    tests that.

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
    scores = floor_scores(index, findings)
    test = index[index["split"] == "test"]
    labels = test[list(findings)].to_numpy(dtype=float)
    return score_findings(labels, scores, test["patient_id"].to_numpy(), findings, n_bootstrap, seed)


def floor_scores(index: pd.DataFrame, findings: Sequence[str]) -> np.ndarray:
    """Logits of every test row from view position, age and sex: shape ``(N_test, K)``.

    A logistic regression on one-hot view position and sex, age and its square (missing age: its own column), fitted on
    train patients; 0 for a finding that train patients have in one class only.

    Raises:
        ValueError: if there are no train or no test rows.
    """
    train, test = (index["split"] == "train").to_numpy(), (index["split"] == "test").to_numpy()
    if not train.any() or not test.any():
        raise ValueError(f"the index has {train.sum()} train and {test.sum()} test rows; the floor needs both")
    features = _acquisition(index)
    labels = certain_labels(index[list(findings)].to_numpy(dtype=float))
    scores = np.zeros((int(test.sum()), len(findings)))
    scaler = StandardScaler().fit(features[train])
    for k in range(len(findings)):
        rows = train & np.isfinite(labels[:, k])
        if len(np.unique(labels[rows, k])) == 2:
            model = LogisticRegression(max_iter=1000).fit(scaler.transform(features[rows]), labels[rows, k])
            scores[:, k] = model.decision_function(scaler.transform(features[test]))
    return scores


def beside_floor(model: Predictions, floor: np.ndarray, n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The model's AUROC, the floor's, and the paired difference over the same resamples of patients.

    Args:
        model: of the test images.
        floor: scores of the same images from `floor_scores`, shape ``(N, K)``.
        n_bootstrap: resamples of patients.
        seed: of the resampling.

    Returns:
        One row a finding and the macro mean: `finding, model, floor, difference, low, high`; `low` and `high` are of
        the difference.

    Example:
        >>> labels = np.tile([[0.0], [1.0]], (20, 1))
        >>> given = Predictions(labels, labels, np.arange(40), ["Mass"])
        >>> beside_floor(given, np.zeros((40, 1)), 50)[["model", "floor", "difference"]].to_numpy().tolist()
        [[1.0, 0.5, 0.5], [1.0, 0.5, 0.5]]
    """
    codes, counts = patient_counts(model.patients, n_bootstrap, seed)
    counts = np.vstack([np.ones((1, counts.shape[1]), dtype=counts.dtype), counts])
    both = []
    for k in range(len(model.findings)):
        rows = model.known(k)
        areas = [
            Ranking(model.labels[rows, k], scores[rows, k], codes[rows]).areas(counts)[0]
            for scores in (model.scores, np.asarray(floor, dtype=float))
        ]
        both.append(areas)
    table = np.array(both)
    pooled = np.stack([mean_of_known(table[:, 0]), mean_of_known(table[:, 1])])[None]
    return pd.DataFrame(
        [_beside(name, *areas) for name, areas in zip([*model.findings, MACRO], [*table, *pooled], strict=True)]
    )


def _beside(name: str, model: np.ndarray, floor: np.ndarray) -> dict:
    difference = model - floor
    found = interval_of(difference[0], difference[1:])
    return {
        "finding": name, "model": model[0], "floor": floor[0],
        "difference": found.value, "low": found.low, "high": found.high,
    }  # fmt: skip


def _acquisition(index: pd.DataFrame) -> np.ndarray:
    coded = pd.get_dummies(index[["view_position", "sex"]].fillna("").astype(str), dtype=float)
    age = index["age"].astype(float)
    filled = age.fillna(50) / 100  # any constant does: the last column tells the model where it stands
    return np.column_stack([coded.to_numpy(), filled, filled**2, age.isna().astype(float)])
