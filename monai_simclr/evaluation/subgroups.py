"""Scores within groups of patients, and the confounder baseline: what view position, age and sex reach alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from monai_simclr.evaluation.intervals import (
    Ranking,
    bootstrap_interval,
    effective_units,
    patient_counts,
    patients_of_smaller_class,
    with_data,
)
from monai_simclr.evaluation.predictions import Predictions, certain_labels, train_and_test
from monai_simclr.evaluation.scores import MACRO, in_macro, mean_of_known, units_of_findings

_AGES = ((0, 40, "0 to 39"), (40, 60, "40 to 59"), (60, np.inf, "60 and over"))
_MIN_PATIENTS = 2
"""Patients with a finding, and without it, that a baseline needs: with one, a patient is ranked and not a finding."""
_MIN_GROUP = 10
"""Positive and negative patients of a group whose AUROC counts for the gap between groups."""


def demographic_groups(index: pd.DataFrame) -> dict[str, np.ndarray]:
    """The group of every row, "" if unknown, by each of sex, age, view position and source that the index has."""
    columns = [name for name in ("sex", "age", "view_position", "source") if name in index]
    groups = {name: index[name].astype(object).fillna("").astype(str).to_numpy() for name in columns}
    if "age" in index:
        age = index["age"].astype(float)
        within = [age.between(low, high, inclusive="left") for low, high, _ in _AGES]
        groups["age"] = np.select(within, [name for *_, name in _AGES], "")
    return groups


def score_subgroups(
    test: Predictions, index: pd.DataFrame, thresholds: np.ndarray | None = None, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """AUROC within every group, sensitivity and specificity there at one threshold, and the gap between groups.

    Args:
        test: predictions to score.
        index: the rows of the same images.
        thresholds: of every finding, shape ``(K,)``, fixed on validation patients; None for ranking alone.
        n_bootstrap, seed: of the resampling of test patients, the same in all groups.

    Returns:
        One row per finding, attribute and group: `finding, by, group, n, patients, positives, auroc, low, high,
        sensitivity, specificity`; and one row per attribute with `group` "gap: A - B", the highest minus the lowest
        AUROC of groups with 10 positive and 10 negative patients. The pair is chosen on the same data: read its
        interval as that of this difference, not as a test.

    Raises:
        ValueError: if the index has another number of rows.

    Example:
        >>> labels = np.tile([[0.0], [1.0]], (40, 1))
        >>> test = Predictions(labels, labels, np.arange(80), ["Mass"])
        >>> score_subgroups(test, pd.DataFrame({"sex": ["M", "M", "F", "F"] * 20}), n_bootstrap=50)["group"].tolist()
        ['F', 'M', 'gap: F - M']
    """
    if len(index) != len(test):
        raise ValueError(f"{len(index)} index rows do not go with {len(test)} predictions; pass the same images")
    codes, counts = patient_counts(test.patients, n_bootstrap, seed)
    counts = with_data(counts)
    cuts = np.full(len(test.findings), np.nan) if thresholds is None else np.asarray(thresholds, dtype=float)
    rows = [
        {"finding": test.findings[k], "by": by, **row}
        for by, groups in demographic_groups(index).items()
        for k in range(len(test.findings))
        for row in _score_groups(test, k, groups, cuts[k], codes, counts)
    ]
    return pd.DataFrame(rows)


def _score_groups(
    test: Predictions, k: int, groups: np.ndarray, threshold: float, codes: np.ndarray, counts: np.ndarray
) -> Iterator[dict]:
    def share(right: np.ndarray) -> float:
        return float(right.mean()) if len(right) and np.isfinite(threshold) else float("nan")

    def interval(aurocs: np.ndarray, units: int) -> dict:
        value, low, high = bootstrap_interval(aurocs[0], aurocs[1:], units=units)
        return {"auroc": value, "low": low, "high": high}

    large: dict[str, np.ndarray] = {}
    for group in np.unique(groups[groups != ""]):
        rows = test.known(k) & (groups == group)
        labels, scores, patients = test.labels[rows, k], test.scores[rows, k], codes[rows]
        aurocs = Ranking(labels, scores, patients).resample(counts)[0]
        units = patients_of_smaller_class(labels, patients)
        if units >= _MIN_GROUP:
            large[str(group)] = aurocs
        yield {
            "group": str(group),
            "n": int(rows.sum()),
            "patients": len(np.unique(patients)),
            "positives": int(labels.sum()),
            **interval(aurocs, units),
            "sensitivity": share(scores[labels == 1] >= threshold),
            "specificity": share(scores[labels == 0] < threshold),
        }
    if len(large) > 1:
        best, *_, worst = sorted(large, key=lambda name: -large[name][0])
        yield {"group": f"gap: {best} - {worst}", **interval(large[best] - large[worst], counts.shape[1])}


def baseline_scores(index: pd.DataFrame, findings: Sequence[str]) -> np.ndarray:
    """Confounder baseline: logits of every test row from view position, age and sex alone, without the image.

    A logistic regression on one-hot view position and sex, age and its square (missing age: its own column), fitted on
    train patients. A model that is not better may have learned the acquisition instead of the finding:
    `compare_to_baseline` tests that.

    Args:
        index: with `patient_id, view_position, sex, age, split` and the findings.
        findings: K columns of the index.

    Returns:
        Shape ``(N_test, K)``; NaN for a finding that fewer than two train patients have, or lack.

    Raises:
        ValueError: if there are no train or no test rows.
    """
    train, test = train_and_test(index)
    coded = pd.get_dummies(index[["view_position", "sex"]].fillna("").astype(str), dtype=float)
    age = index["age"].astype(float)
    filled = age.fillna(50) / 100  # any constant does: the last column marks the rows
    features = np.column_stack([coded.to_numpy(), filled, filled**2, age.isna().astype(float)])
    features = StandardScaler().fit(features[train]).transform(features)
    labels = certain_labels(index[list(findings)].to_numpy(dtype=float))
    patients = index["patient_id"].to_numpy(dtype=str)
    scores = np.full((int(test.sum()), len(findings)), np.nan)
    for k in range(len(findings)):
        rows = train & np.isfinite(labels[:, k])
        if not _too_few(labels[rows, k], patients[rows]):
            model = LogisticRegression(max_iter=1000).fit(features[rows], labels[rows, k])
            scores[:, k] = model.decision_function(features[test])
    return scores


def compare_to_baseline(
    model: Predictions, baseline: np.ndarray, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The model's AUROC, the baseline's, and the paired difference over the same resamples of patients.

    Args:
        model: of the test images.
        baseline: scores of the same images from `baseline_scores`, shape ``(N, K)``; NaN where there is none.
        n_bootstrap, seed: of the resampling of patients.

    Returns:
        One row per finding and the macro mean over those of `in_macro` that have a baseline: `finding, model, baseline,
        difference, low, high, reason`; `low` and `high` are of the difference. Where train or test has fewer than two
        patients with a finding, or without it, baseline and difference are NaN and `reason` says why.

    Example:
        >>> labels = np.tile([[0.0], [1.0]], (20, 1))
        >>> model = Predictions(labels, labels, np.arange(40), ["Mass"])
        >>> compare_to_baseline(model, np.zeros((40, 1)), 50)[["model", "baseline", "difference"]].to_numpy().tolist()
        [[1.0, 0.5, 0.5], [1.0, 0.5, 0.5]]
    """
    codes, counts = patient_counts(model.patients, n_bootstrap, seed)
    counts, baseline = with_data(counts), np.asarray(baseline, dtype=float)
    pairs, reasons = [], []
    for k in range(len(model.findings)):
        known = model.known(k)
        labels, patients = model.labels[known, k], codes[known]
        pair = [Ranking(labels, scores[known, k], patients).resample(counts)[0] for scores in (model.scores, baseline)]
        reason = ""
        if np.isnan(baseline[known, k]).any():
            reason = f"fewer than {_MIN_PATIENTS} train patients have the finding, or lack it"
        elif few := _too_few(labels, patients):
            reason = f"fewer than {_MIN_PATIENTS} test patients {few} the finding"
        pairs.append([pair[0], pair[1] * np.nan if reason else pair[1]])
        reasons.append(reason)
    table = np.array(pairs)
    units = units_of_findings(model.labels, codes)
    stated = np.array([not reason for reason in reasons])
    stated[stated] = in_macro(units[stated])
    pooled = np.stack([mean_of_known(table[stated, i]) for i in (0, 1)])
    together = effective_units(table[stated, 0, 1:] - table[stated, 1, 1:], units[stated])
    reasons.append("" if stated.any() else "no finding has a baseline")
    rows = []
    for name, (own, other), reason, n in zip(
        [*model.findings, MACRO], [*table, pooled], reasons, [*units, together], strict=True
    ):
        difference, low, high = bootstrap_interval(own[0] - other[0], own[1:] - other[1:], units=n)
        row = {"finding": name, "model": own[0], "baseline": other[0], "difference": difference}
        rows.append({**row, "low": low, "high": high, "reason": reason})
    return pd.DataFrame(rows)


def _too_few(labels: np.ndarray, patients: np.ndarray) -> str:
    """What fewer than two patients do, "have" or "lack" the finding; "" if neither."""
    few = (word for value, word in ((1, "have"), (0, "lack")) if len(set(patients[labels == value])) < _MIN_PATIENTS)
    return next(few, "")
