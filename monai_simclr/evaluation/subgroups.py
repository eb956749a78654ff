"""Scores within groups of patients (sex, age, view position, source), and the gaps between the groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from monai_simclr.evaluation.bootstrap import bootstrap_interval, patient_counts, patients_of_smaller_class
from monai_simclr.evaluation.predictions import Predictions
from monai_simclr.evaluation.ranking import Ranking

_AGES = ((0, 40, "under 40"), (40, 60, "40 to 59"), (60, np.inf, "60 and over"))


def demographic_groups(index: pd.DataFrame) -> dict[str, np.ndarray]:
    """For each of sex, age, view position and source that the index has: the group of every row, "" unknown.

    Example:
        >>> list(map(str, demographic_groups(pd.DataFrame({"age": [30.0, np.nan]}))["age"]))
        ['under 40', '']
    """
    found: dict[str, np.ndarray] = {}
    for name in ("sex", "age", "view_position", "source"):
        if name not in index:
            continue
        if name == "age":
            age = index["age"].astype(float)
            found[name] = np.select(
                [age.between(a, b, inclusive="left") for a, b, _ in _AGES], [t for *_, t in _AGES], ""
            )
        else:
            found[name] = index[name].astype(object).fillna("").astype(str).to_numpy()
    return found


def score_subgroups(
    test: Predictions, index: pd.DataFrame, thresholds: np.ndarray | None = None, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """AUROC within every group, sensitivity and specificity there at one threshold, and the gap between groups.

    Args:
        test: predictions to score.
        index: the rows of the same images.
        thresholds: of every finding, shape ``(K,)``, fixed on validation patients; None for ranking alone.
        n_bootstrap: resamples of test patients, the same in all groups.
        seed: of the resampling.

    Returns:
        One row a finding, attribute and group: `finding, by, group, n, patients, positives, auroc, low, high,
        sensitivity, specificity`; and one row an attribute with `group` "gap: A - B", the highest less the lowest AUROC
        of groups with 10 positive and 10 negative patients. The pair is chosen on the same data: read its interval as
        that of this difference, not as a test.

    Raises:
        ValueError: if the index has another number of rows.

    Example:
        >>> labels = np.tile([[0.0], [1.0]], (40, 1))
        >>> made = Predictions(labels, labels, np.arange(80), ["Mass"])
        >>> score_subgroups(made, pd.DataFrame({"sex": ["M", "M", "F", "F"] * 20}), n_bootstrap=50)["group"].tolist()
        ['F', 'M', 'gap: F - M']
    """
    if len(index) != len(test):
        raise ValueError(f"{len(index)} index rows do not go with {len(test)} predictions; pass the same images")
    codes, counts = patient_counts(test.patients, n_bootstrap, seed)
    counts = np.vstack([np.ones((1, counts.shape[1]), dtype=counts.dtype), counts])
    at = np.full(len(test.findings), np.nan) if thresholds is None else np.asarray(thresholds, dtype=float)
    rows: list[dict] = []
    for by, groups in demographic_groups(index).items():
        for k in range(len(test.findings)):
            rows += list(_of_finding(test, k, by, groups, at[k], codes, counts))
    return pd.DataFrame(rows)


def _of_finding(
    test: Predictions, k: int, by: str, groups: np.ndarray, threshold: float, codes: np.ndarray, counts: np.ndarray
) -> Iterator[dict]:
    areas: dict[str, np.ndarray] = {}
    for group in np.unique(groups[groups != ""]):
        rows = test.known(k) & (groups == group)
        labels, scores = test.labels[rows, k], test.scores[rows, k]
        area = Ranking(labels, scores, codes[rows]).areas(counts)[0]
        few = patients_of_smaller_class(labels, codes[rows])
        if few >= 10:
            areas[str(group)] = area
        found = bootstrap_interval(area[0], area[1:], units=few)
        yield {
            "finding": test.findings[k],
            "by": by,
            "group": str(group),
            "n": int(rows.sum()),
            "patients": len(np.unique(codes[rows])),
            "positives": int(labels.sum()),
            "auroc": found.value,
            "low": found.low,
            "high": found.high,
            "sensitivity": _share(scores[labels == 1] >= threshold, threshold),
            "specificity": _share(scores[labels == 0] < threshold, threshold),
        }
    if len(areas) > 1:
        best, *_, worst = sorted(areas, key=lambda name: -areas[name][0])
        gap = areas[best] - areas[worst]
        found = bootstrap_interval(gap[0], gap[1:], units=counts.shape[1])
        yield {
            "finding": test.findings[k],
            "by": by,
            "group": f"gap: {best} - {worst}",
            "auroc": found.value,
            "low": found.low,
            "high": found.high,
        }


def _share(right: np.ndarray, threshold: float) -> float:
    return float(right.mean()) if len(right) and np.isfinite(threshold) else float("nan")
