"""Uncertainty and chance by patient: images of one patient are not independent, so patients are what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import norm as normal
from scipy.stats import t as student_t

from monai_simclr.evaluation.ranking import Ranking


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


def bootstrap_interval(
    value: float, resamples: np.ndarray, level: float = 0.95, recenter: bool = False, units: int | None = None
) -> Interval:
    """Percentile interval (Efron 1979) of a value from its bootstrap resamples; NaN resamples are left out.

    Args:
        value: the statistic on the data as they are.
        resamples: the statistic on every resample, shape ``(n,)``.
        level: share of the resamples inside.
        recenter: shift the interval so that the resamples' mean lies on `value`. For measures of agreement (AMI, NMI,
            ARI): a patient drawn twice agrees with himself, which pushes every resample up.
        units: independent units that the statistic rests on (patients; for a curve's area those of the smaller class).
            With few of them percentiles are too narrow; the interval is then widened as Student's t is (Hesterberg, The
            American Statistician 2015, section 4.6). None for no widening.

    Example:
        >>> bootstrap_interval(0.5, np.linspace(0, 1, 101), level=0.9)
        Interval(value=0.5, low=0.05, high=0.95)
        >>> bootstrap_interval(0.5, np.linspace(0, 1, 101), level=0.9, units=10)
        Interval(value=0.5, low=0.026663, high=0.973337)
    """
    known = resamples[np.isfinite(resamples)]
    if not len(known) or not np.isfinite(value) or (units is not None and units < 2):
        return Interval(float(value), float("nan"), float("nan"))
    shift = known.mean() - value if recenter else 0.0
    tail = _tail(level, units)
    low, high = np.quantile(known, [tail, 1 - tail]) - shift
    return Interval(float(value), round(float(low), 6), round(float(high), 6))


def _tail(level: float, units: int | None) -> float:
    """Share of the resamples below the interval."""
    if units is None:
        return (1 - level) / 2
    wide = student_t.ppf((1 + level) / 2, units - 1) * np.sqrt(units / (units - 1))
    return float(normal.cdf(-wide))


def p_value(value: float, null: np.ndarray) -> float:
    """Share of a permutation null that is at least as high, the data themselves counted (Phipson and Smyth 2010).

    Example:
        >>> p_value(0.9, np.array([0.1, 0.95, 0.2]))
        0.5
    """
    known = null[np.isfinite(null)]
    return float((1 + np.sum(known >= value - 1e-12)) / (1 + len(known))) if np.isfinite(value) else float("nan")


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
    return bootstrap_interval(float(statistic(positions)), resamples, level, units=counts.shape[1])


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
    ranking = Ranking(labels, scores, codes)
    value = ranking.areas(np.ones((1, counts.shape[1])))[0][0]
    return bootstrap_interval(value, ranking.areas(counts)[0], units=patients_of_smaller_class(labels, codes))


def patients_of_smaller_class(labels: np.ndarray, codes: np.ndarray) -> int:
    """Patients with a positive image or patients with a negative one, whichever are fewer.

    Example:
        >>> patients_of_smaller_class(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 2]))
        1
    """
    return min(len(np.unique(codes[labels == 1])), len(np.unique(codes[labels == 0])))


def permute_over_patients(values: np.ndarray, patients: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Every patient gets the values of another one: what chance looks like when a patient's images share their labels.

    Values that belonged together stay together: the other patient's are repeated, or cut, to the number of images. (To
    lay all values, patient after patient, on rows in another order is not the same: patients of unequal size then
    divide each other's values, and the null was too narrow, 9 % of p-values below 0.05 in the simulation of the tests.)

    Args:
        values: shape ``(N,)``.
        patients: shape ``(N,)``.
        generator: the randomness.

    Example:
        >>> permute_over_patients(np.array([1, 1, 2, 2]), np.array(list("aabb")), np.random.default_rng(3)).tolist()
        [2, 2, 1, 1]
        >>> permute_over_patients(np.array([1, 1, 2]), np.array(list("aab")), np.random.default_rng(3)).tolist()
        [2, 2, 1]
    """
    codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)[1]
    rows = np.argsort(codes, kind="stable")
    size = np.bincount(codes)
    start = np.r_[0, np.cumsum(size)[:-1]]
    mine = codes[rows]
    other = generator.permutation(len(size))[mine]
    place = np.arange(len(codes)) - start[mine]
    permuted = np.empty_like(values)
    permuted[rows] = values[rows[start[other] + place % size[other]]]
    return permuted
