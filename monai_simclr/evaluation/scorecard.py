"""Every score of every finding, each with a patient interval: ranking, operating points, calibration.

Everything but the two areas is a function of sums over images, so a bootstrap resample of it is one row of a matrix
product: counts of patients times sums by patient. That keeps 100,000 images x 14 findings x 1,000 resamples to seconds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from monai_simclr.evaluation.bootstrap import bootstrap_interval, patient_counts, patients_of_smaller_class
from monai_simclr.evaluation.calibration import BINS, equal_mass_bins, fit_recalibration, fit_temperature, is_at_bound
from monai_simclr.evaluation.predictions import Predictions, sigmoid
from monai_simclr.evaluation.ranking import Ranking
from monai_simclr.evaluation.scores import MACRO, counted, mean_of_known
from monai_simclr.evaluation.thresholds import OPERATING_POINTS, choose_thresholds

_CALIBRATION = ("Brier", "ECE", "calibration intercept", "calibration slope")
_SCALED = " after temperature scaling"
SCORES: tuple[str, ...] = (
    "AUROC",
    "AUPRC",
    *OPERATING_POINTS,
    *_CALIBRATION,
    *(name + _SCALED for name in _CALIBRATION),
)
"""The scores of `score_table`, in its order."""

_ROWS = 64
"""Resamples turned into float64 at once."""

_Part = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]
"""Columns ``(N, m)`` to sum over images, and what turns sums ``(n, m)`` into scores ``(n, s)``."""


def score_table(
    test: Predictions, validation: Predictions | None = None, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """All scores of all findings at the test patients.

    Thresholds and temperatures are fixed on validation patients and applied to the test patients as they are; without
    validation labels of both kinds the scores that need them are NaN. The interval is of the scoring: it holds
    threshold, temperature and bins fixed. A resample's slope and intercept are one Newton step from those of the data.

    Args:
        test: logits and labels to score.
        validation: of validation patients, the same findings in the same order.
        n_bootstrap: resamples of test patients.
        seed: of the resampling.

    Returns:
        One row a finding and score (`SCORES`), and a macro mean of each over the findings that have it: `finding,
        score, value, low, high, n, positives, positive_patients, prevalence, temperature, temperature_at_bound,
        threshold`. A threshold is a logit. An expected
        calibration error (15 equal-mass bins) is a sum of absolute values, which noise pushes up, and resampling
        further: its interval is mirrored at the value, and rough (it holds the truth in 85 % of simulated small data
        sets, not in 95 %).

    Raises:
        ValueError: if validation has other findings, or a patient is in both.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(2, size=(80, 1)).astype(float)
        >>> made = Predictions(labels, 2 * labels - 1 + rng.normal(size=(80, 1)), np.arange(80), ["Mass"])
        >>> card = score_table(made.where(np.arange(40)), made.where(np.arange(40, 80)), n_bootstrap=50)
        >>> card.set_index(["finding", "score"]).loc[("Mass", "AUROC"), ["value", "low", "high"]].round(2).tolist()
        [0.8, 0.63, 0.89]
    """
    _check(test, validation)
    codes, counts = patient_counts(test.patients, n_bootstrap, seed)
    whole = np.ones((1, counts.shape[1]), dtype=counts.dtype)
    rows, tables = [], []
    for k in range(len(test.findings)):
        thresholds, temperature = _fixed(validation, k)
        values = np.vstack([_scores(test, k, codes, part, thresholds, temperature) for part in (whole, counts)])
        tables.append(values)
        fixed = {"temperature": temperature, "temperature_at_bound": is_at_bound(temperature)}
        about = {**counted(test, k, codes), **fixed}
        units = patients_of_smaller_class(test.labels[:, k], codes)
        rows += _rows(about, values, dict(zip(OPERATING_POINTS, thresholds, strict=True)), units)
    pooled = mean_of_known(np.array([table.ravel() for table in tables])).reshape(tables[0].shape)
    return pd.DataFrame([*rows, *_rows({"finding": MACRO, "n": len(test)}, pooled, {}, counts.shape[1])])


def _check(test: Predictions, validation: Predictions | None) -> None:
    if validation is None:
        return
    if list(validation.findings) != list(test.findings):
        raise ValueError(f"validation has the findings {validation.findings}, test has {test.findings}")
    both = np.intersect1d(validation.patients, test.patients)
    if len(both):
        raise ValueError(
            f"{len(both)} patients are in validation and in test, the first is {str(both[0])!r}; split by patient with "
            "split_by_patient()"
        )


def _fixed(validation: Predictions | None, k: int) -> tuple[np.ndarray, float]:
    """Thresholds and temperature of finding `k` from validation patients; NaN where it cannot give them."""
    if validation is None or not validation.both(k):
        return np.full(len(OPERATING_POINTS), np.nan), float("nan")
    known = validation.known(k)
    labels, logits = validation.labels[known, k], validation.scores[known, k]
    return choose_thresholds(labels, logits), fit_temperature(labels, logits)


def _scores(
    test: Predictions, k: int, codes: np.ndarray, counts: np.ndarray, thresholds: np.ndarray, temperature: float
) -> np.ndarray:
    """All of `SCORES` of finding `k` for every row of `counts`: shape ``(n, 14)``."""
    if not test.both(k):
        return np.full((len(counts), len(SCORES)), np.nan)
    known = test.known(k)
    labels, logits, patients = test.labels[known, k], test.scores[known, k], codes[known]
    areas = Ranking(labels, logits, patients).areas(counts)
    parts = [_operating(labels, logits, thresholds), _calibration(labels, logits)]
    if np.isfinite(temperature):
        parts.append(_calibration(labels, logits / temperature))
    found = _resampled(parts, patients, counts)
    if not np.isfinite(temperature):
        found.append(np.full((len(counts), len(_CALIBRATION)), np.nan))
    return np.column_stack([*areas, *found])


def _resampled(parts: list[_Part], patients: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Every part's scores for every row of counts, from one matrix product."""
    columns = np.column_stack([part for part, _ in parts])
    by_patient = np.column_stack(
        [np.bincount(patients, weights=column, minlength=counts.shape[1]) for column in columns.T]
    )
    starts = range(0, len(counts), _ROWS)
    sums = np.vstack([counts[start : start + _ROWS].astype(np.float64) @ by_patient for start in starts])
    edges = np.cumsum([part.shape[1] for part, _ in parts])[:-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return [finish(mine) for (_, finish), mine in zip(parts, np.split(sums, edges, axis=1), strict=True)]


def _operating(labels: np.ndarray, logits: np.ndarray, thresholds: np.ndarray) -> _Part:
    called = logits[:, None] >= thresholds
    positive = labels[:, None] == 1
    columns = np.column_stack([called & positive, called & ~positive, labels == 1, labels == 0]).astype(float)

    def finish(sums: np.ndarray) -> np.ndarray:
        true, false, positives, negatives = sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9]
        f1 = 2 * true[:, 3] / (true[:, 3] + false[:, 3] + positives)
        found = np.column_stack([true[:, 0] / positives, true[:, 1] / positives, 1 - false[:, 2] / negatives, f1])
        return np.where(np.isnan(thresholds), np.nan, found)

    return columns, finish


def _calibration(labels: np.ndarray, logits: np.ndarray) -> _Part:
    chance = sigmoid(logits)
    bins = np.eye(BINS)[equal_mass_bins(chance)]
    fit = fit_recalibration(labels, logits)
    shifted, line = sigmoid(logits + fit.intercept), sigmoid(fit.offset + fit.slope * logits)
    wide, slack = line * (1 - line), labels - line
    columns = np.column_stack(
        [
            np.ones(len(labels)),
            (chance - labels) ** 2,
            bins * (chance - labels)[:, None],
            labels - shifted,
            shifted * (1 - shifted),
            slack,
            slack * logits,
            wide,
            wide * logits,
            wide * logits**2,
        ]
    )

    def finish(sums: np.ndarray) -> np.ndarray:
        total, brier, gaps, rest = sums[:, 0], sums[:, 1], sums[:, 2 : 2 + BINS], sums[:, 2 + BINS :].T
        g, h, g0, g1, h00, h01, h11 = rest
        step = (h00 * g1 - h01 * g0) / (h00 * h11 - h01**2)
        return np.column_stack(
            [brier / total, np.abs(gaps).sum(axis=1) / total, fit.intercept + g / h, fit.slope + step]
        )

    return columns, finish


def _rows(about: dict, values: np.ndarray, thresholds: dict[str, float], units: int) -> list[dict]:
    """Rows of one finding: values ``(1 + n, 14)``, the data as they are first."""
    rows = []
    for i, name in enumerate(SCORES):
        interval = bootstrap_interval(values[0, i], values[1:, i], units=units)
        if name.startswith("ECE"):
            value, low, high = interval
            interval = interval._replace(low=max(0.0, 2 * value - high), high=max(value, 2 * value - low))
        first = {"finding": about["finding"], "score": name, **interval.as_dict()}
        rows.append({**first, **about, "threshold": thresholds.get(name, float("nan"))})
    return rows
