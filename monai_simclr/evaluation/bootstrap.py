"""Uncertainty and chance by patient: images of one patient are not independent, so patients are what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = [
    "Interval",
    "auroc_resamples",
    "auroc_with_interval",
    "interval_of",
    "patient_bootstrap",
    "patient_counts",
    "permute_over_patients",
]

_CHUNK = 4_000_000
"""Weights held at once by the fast path: 32 MB of float64."""


class Interval(NamedTuple):
    """A value with its confidence interval; NaN where it cannot be known.

    Example:
        >>> Interval(0.7, 0.6, 0.8).as_dict()
        {'value': 0.7, 'low': 0.6, 'high': 0.8}
    """

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """The form of one number in ``metrics.json``."""
        return {"value": self.value, "low": self.low, "high": self.high}


def interval_of(value: float, resamples: np.ndarray, level: float = 0.95, recenter: bool = False) -> Interval:
    """Percentile interval (Efron 1979) of a value from its bootstrap resamples; NaN resamples are left out.

    Args:
        value: the statistic on the data as they are.
        resamples: the statistic on every resample, shape ``(n,)``.
        level: share of the resamples inside.
        recenter: shift the interval so that the resamples' mean lies on `value`. For measures of agreement (AMI, NMI,
            ARI): a patient drawn twice agrees with himself, which pushes every resample up.

    Example:
        >>> interval_of(0.5, np.linspace(0, 1, 101), level=0.9)
        Interval(value=0.5, low=0.05, high=0.95)
    """
    known = resamples[np.isfinite(resamples)]
    if not len(known) or not np.isfinite(value):
        return Interval(float(value), float("nan"), float("nan"))
    shift = known.mean() - value if recenter else 0.0
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) - shift
    return Interval(float(value), round(float(low), 12), round(float(high), 12))


def patient_counts(patients: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often every patient is drawn, with replacement, in each of `n` resamples.

    Args:
        patients: the patient of every image, shape ``(N,)``.
        n: resamples.
        seed: of NumPy's generator.

    Returns:
        The number ``0 .. P - 1`` of the patient of every image, shape ``(N,)``, and the counts, uint16 ``(n, P)``.

    Example:
        >>> codes, counts = patient_counts(np.array(["b", "a", "b"]), n=4, seed=0)
        >>> codes.tolist(), counts.sum(axis=1).tolist()
        ([1, 0, 1], [2, 2, 2, 2])
    """
    names, codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    if not len(names):
        raise ValueError("no rows to resample: the split is empty")
    generator = np.random.default_rng(seed)
    counts = np.empty((n, len(names)), dtype=np.uint16)
    for row in counts:
        row[:] = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
    return codes, counts


def patient_bootstrap(
    patients: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """A statistic with an interval from resampling patients, each with all of his images.

    Args:
        patients: the patient of every image, shape ``(N,)``.
        statistic: takes an array of row positions (a position may occur several times), returns a number; NaN where
            the resample does not define it (one class only): those resamples are left out.
        n: resamples.
        seed: of NumPy's generator.
        level: of the interval.

    Raises:
        ValueError: if there are no rows.

    Example:
        >>> ages = np.array([30.0, 32.0, 70.0, 72.0])
        >>> patient_bootstrap(np.array(["a", "a", "b", "b"]), lambda rows: ages[rows].mean(), n=200)
        Interval(value=51.0, low=31.0, high=71.0)
    """
    codes, counts = patient_counts(patients, n, seed)
    positions = np.arange(len(codes))
    resamples = np.array([statistic(np.repeat(positions, row[codes])) for row in counts], dtype=float)
    return interval_of(float(statistic(positions)), resamples, level)


def auroc_resamples(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of one set of scores under many weightings of its images at once.

    Equal to scikit-learn's ``roc_auc_score`` on every resample: the Mann-Whitney statistic, a tie counting half.

    Args:
        labels: 0 or 1, shape ``(N,)``.
        scores: shape ``(N,)``, higher for 1.
        weights: how often every image is in each resample, shape ``(n, N)``.

    Returns:
        Shape ``(n,)``; NaN where a resample has one class only.

    Example:
        >>> auroc_resamples(np.array([0, 1, 1]), np.array([0.1, 0.1, 0.9]), np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1]]))
        array([0.75, 0.5 ,  nan])
    """
    order = np.argsort(scores, kind="stable")
    ranked, positive = np.asarray(scores)[order], np.asarray(labels)[order] > 0.5
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    areas = np.empty(len(weights))
    step = max(1, _CHUNK // len(ranked))
    for start in range(0, len(weights), step):
        drawn = weights[start : start + step][:, order].astype(np.float64)
        up = np.add.reduceat(drawn * positive, starts, axis=1)
        down = np.add.reduceat(drawn * ~positive, starts, axis=1)
        below = np.cumsum(down, axis=1) - down / 2
        pairs = up.sum(axis=1) * down.sum(axis=1)
        with np.errstate(invalid="ignore"):
            areas[start : start + step] = np.where(pairs > 0, (up * below).sum(axis=1) / pairs, np.nan)
    return areas


def auroc_with_interval(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, n: int = 1000, seed: int = 0
) -> Interval:
    """AUROC with its 95 % patient-bootstrap interval; the fast form of `patient_bootstrap` with ``roc_auc_score``.

    Args:
        labels: 0 or 1, shape ``(N,)``; no NaN.
        scores: shape ``(N,)``, finite.
        patients: shape ``(N,)``.
        n: resamples.
        seed: of NumPy's generator.

    Raises:
        ValueError: if the lengths differ, or a label or score is not finite.

    Example:
        >>> auroc_with_interval(np.array([0, 0, 1, 1]), np.array([1, 2, 3, 4]), np.array(list("abcd"))).value
        1.0
    """
    labels, scores = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
    if not len(labels) == len(scores) == len(patients):
        raise ValueError(f"{len(labels)} labels, {len(scores)} scores and {len(patients)} patients must be as many")
    if not (np.isfinite(labels).all() and np.isfinite(scores).all()):
        raise ValueError("a label or a score is NaN or infinite; leave rows without a label out before scoring")
    codes, counts = patient_counts(patients, n, seed)
    value = auroc_resamples(labels, scores, np.ones((1, len(labels))))[0]
    return interval_of(value, auroc_resamples(labels, scores, counts[:, codes]))


def permute_over_patients(values: np.ndarray, patients: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Values laid on other patients: what chance looks like when a patient's images share their labels.

    The patients' blocks of values are put in a random order and laid, block after block, on the rows in patient order,
    so that values which belonged together stay together.

    Args:
        values: shape ``(N,)``.
        patients: shape ``(N,)``.
        generator: the randomness.

    Example:
        >>> permute_over_patients(np.array([1, 1, 2, 2]), np.array(list("aabb")), np.random.default_rng(3)).tolist()
        [2, 2, 1, 1]
    """
    codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
    rows = np.argsort(codes, kind="stable")
    place = generator.permutation(codes.max() + 1) if len(codes) else codes
    drawn = np.argsort(place[codes], kind="stable")
    permuted = np.empty_like(values)
    permuted[rows] = values[drawn]
    return permuted
