"""Calibration and decisions, fixed on validation patients: temperature, thresholds, reliability."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.metrics import precision_recall_curve, roc_curve

from monai_simclr.evaluation.predictions import sigmoid

BINS = 15

TEMPERATURES = (0.01, 100.0)
"""The lowest and the highest temperature that `fit_temperature` gives, far out in the tails of its prior."""

OPERATING_POINTS: tuple[str, ...] = (
    "sensitivity at 90% specificity",
    "sensitivity at 95% specificity",
    "specificity at 90% sensitivity",
    "F1",
)
"""The score that belongs to the threshold at the same place in `choose_thresholds`."""

_MARGIN = 1e-3
"""Largest margin below a threshold, in standard deviations of the validation scores."""


class Recalibration(NamedTuple):
    """A logistic regression of the labels on the logits (Cox 1958; Van Calster et al., BMC Medicine 2019).

    `intercept` is calibration in the large: the shift of all logits that makes the mean probability right, with the
    slope held at 1; below 0 probabilities are too high. `slope` is of the regression with both free; below 1 the model
    is overconfident. `offset` is the other parameter of that regression.
    """

    intercept: float
    slope: float
    offset: float


def fit_recalibration(labels: np.ndarray, logits: np.ndarray) -> Recalibration:
    """Intercept and slope for labels 0 or 1 and logits ``(N,)``, by Newton's method.

    NaN where the maximum does not exist (labels alike, or separated).
    """
    ones = np.ones((len(logits), 1))
    shift = _fit_logistic(ones, labels, logits)
    line = _fit_logistic(np.column_stack([ones, logits]), labels, np.zeros(len(logits)))
    return Recalibration(float(shift[0]), float(line[1]), float(line[0]))


def _fit_logistic(columns: np.ndarray, labels: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression with a fixed part, by maximum likelihood; NaN where they diverge."""
    weights = np.zeros(columns.shape[1])
    if not 0 < np.sum(labels) < len(labels):
        return weights * np.nan
    for _ in range(50):
        chance = sigmoid(columns @ weights + fixed)
        hessian = columns.T @ (columns * (chance * (1 - chance))[:, None])
        if np.linalg.cond(hessian) > 1e12:
            return weights * np.nan
        step = np.linalg.solve(hessian, columns.T @ (labels - chance))
        weights = weights + step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-9:
            return weights
    return weights * np.nan


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The most probable temperature T of ``sigmoid(logits / T)`` (Guo et al., ICML 2017), with a prior around 1.

    A priori log T is normal with mean 0 and standard deviation 1: T is between 1/7 and 7 with 95 %. A thousand images
    move T to the minimum of the cross entropy, a few positives leave it near 1. Without a prior, logits that separate
    the validation labels drive T to its bound and probabilities to 0 and 1. Fit it on validation patients only.

    Args:
        labels: 0 or 1, shape ``(N,)``.
        logits: shape ``(N,)``.

    Returns:
        T in `TEMPERATURES`, see `is_at_bound`; NaN without both labels.

    Example:
        >>> logits = np.repeat([-4.0, 4.0], 1000)
        >>> labels = np.r_[np.arange(1000) < 269, np.arange(1000) < 731].astype(float)
        >>> round(fit_temperature(labels, logits), 1)  # right where sigmoid(4 / T) = 0.731
        4.0
    """
    if not 0 < np.sum(labels) < len(labels):
        return float("nan")
    logits, labels = np.asarray(logits, dtype=float), np.asarray(labels, dtype=float)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.sum(np.logaddexp(0, scaled) - labels * scaled) + log_temperature**2 / 2)

    low, high = np.log(TEMPERATURES)
    grid = np.linspace(low, high, 25)  # the prior can make a second minimum
    best = int(np.argmin([loss(place) for place in grid]))
    bounds = (grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)])
    fitted = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x
    return float(np.clip(float(np.exp(fitted)), *TEMPERATURES))


def is_at_bound(temperature: float) -> bool:
    """Whether a temperature is at its lowest or highest value: the logits do not fit their labels."""
    low, high = TEMPERATURES
    return temperature <= 1.1 * low or temperature >= high / 1.1


def equal_mass_bins(probabilities: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of every probability, with equal numbers of images (Nixon et al. 2019); equal probabilities share one."""
    first_of_equals = np.searchsorted(np.sort(probabilities), probabilities, side="left")
    return first_of_equals * bins // max(1, len(probabilities))


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, share of positives and number of images of every equal-mass bin that is not empty."""
    binned = equal_mass_bins(probabilities, bins)
    images = np.bincount(binned, minlength=bins)
    filled = images > 0
    predicted, observed = (np.bincount(binned, values, minlength=bins)[filled] for values in (probabilities, labels))
    return predicted / images[filled], observed / images[filled], images[filled]


def choose_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """A threshold for each of `OPERATING_POINTS`; an image is called positive when its score is at least that.

    A threshold is just below the lowest score that it calls positive: in another batch size, on a GPU or in another
    runtime the score of the same image differs in the last digits, and must be called all the same. Thresholds are
    float32 numbers, so that a comparison in float32 decides alike.

    Args:
        labels: 0 or 1 of validation patients, shape ``(N,)``.
        scores: of the same images, shape ``(N,)``: logits, not probabilities, which saturate.

    Returns:
        The threshold with the highest sensitivity at a specificity of 0.90 and of 0.95, the highest specificity at a
        sensitivity of 0.90, and the highest F1; shape ``(4,)``, NaN without both labels. Infinite where only calling
        nothing positive is specific enough.

    Example:
        >>> choose_thresholds(np.array([0, 0, 1, 1]), np.array([-2.0, 0.6, 0.5, 3.0])).round(2).tolist()
        [3.0, 3.0, 0.5, 0.5]
    """
    if not 0 < np.sum(labels) < len(labels):
        return np.full(4, np.nan)
    false, true, cuts = roc_curve(labels, scores, drop_intermediate=False)
    chosen = [cuts[np.flatnonzero(1 - false >= wanted - 1e-12)[-1]] for wanted in (0.90, 0.95)]
    chosen.append(cuts[np.flatnonzero(true >= 0.90 - 1e-12)[0]])
    precision, recall, cuts = precision_recall_curve(labels, scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
    chosen.append(cuts[int(np.argmax(f1))])
    return np.array([_lower_threshold(float(threshold), np.asarray(scores, dtype=float)) for threshold in chosen])


def _lower_threshold(threshold: float, scores: np.ndarray) -> float:
    """Halfway to the next lower score, at most by `_MARGIN`; unchanged where float32 has no number between."""
    if not np.isfinite(threshold):
        return threshold
    next_lower = float(np.max(scores, where=scores < threshold, initial=-np.inf))
    margin = min((threshold - next_lower) / 2, _MARGIN * float(scores.std()))
    lowered = float(np.float32(threshold - margin))
    return lowered if next_lower < lowered <= threshold else threshold
