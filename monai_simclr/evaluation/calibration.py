"""Are the probabilities right? Calibration error, slope and intercept, reliability curves, temperature scaling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from monai_simclr.evaluation.predictions import sigmoid

BINS = 15

TEMPERATURES = (0.01, 100.0)
"""The lowest and the highest temperature that `fit_temperature` gives, far out in the tails of its prior."""


class Recalibration(NamedTuple):
    """What a logistic regression of the labels on the logits says (Cox 1958; Van Calster et al., BMC Medicine 2019).

    `intercept` is calibration in the large: the shift of all logits that makes the mean probability right, with the
    slope held at 1; 0 is best, below 0 the model says too much. `slope` is of the regression with both free; 1 is best,
    below 1 the model is too sure. `offset` is the other parameter of that regression.
    """

    intercept: float
    slope: float
    offset: float


def fit_recalibration(labels: np.ndarray, logits: np.ndarray) -> Recalibration:
    """Intercept and slope by Newton's method; NaN where the maximum does not exist (labels alike, or separated).

    Args:
        labels: 0 or 1, shape ``(N,)``.
        logits: shape ``(N,)``.

    Example:
        >>> logits = np.repeat([-1.0, 1.0], 100)
        >>> labels = np.r_[np.arange(100) < 27, np.arange(100) < 73].astype(float)
        >>> round(fit_recalibration(labels, logits).slope, 2)
        0.99
    """
    ones = np.ones((len(logits), 1))
    shift = _newton(ones, labels, logits)
    line = _newton(np.column_stack([ones, logits]), labels, np.zeros(len(logits)))
    return Recalibration(float(shift[0]), float(line[1]), float(line[0]))


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The most probable temperature T of ``sigmoid(logits / T)`` (Guo et al., ICML 2017), with a prior around 1.

    Before it saw labels, log T is normal with mean 0 and standard deviation 1: T is between 1/7 and 7 with 95 %. The
    labels of an image weigh as much as they say, so a thousand images move T to where the cross entropy is least, and a
    few positives leave it near 1. Without a prior a validation set whose labels the logits separate has no least cross
    entropy: T went to its bound, and probabilities to 0 and 1.

    Fit it on validation patients, never on those to be scored.

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
        >>> round(fit_temperature(np.array([0, 0, 1]), np.array([-8.0, -7.0, 9.0])), 1)  # separated: nothing to learn
        1.0
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
    found = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))
    return float(np.clip(found, *TEMPERATURES))


def is_at_bound(temperature: float) -> bool:
    """Whether a temperature ran to the lowest or highest value that it may have: the logits do not fit their labels.

    Example:
        >>> is_at_bound(100.0), is_at_bound(1.3), is_at_bound(float("nan"))
        (True, False, False)
    """
    low, high = TEMPERATURES
    return temperature <= 1.1 * low or temperature >= high / 1.1


def equal_mass_bins(probabilities: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of every probability, so that each bin has as many images as the others (Nixon et al. 2019).

    Equal probabilities share a bin, so there can be fewer than `bins`.

    Example:
        >>> equal_mass_bins(np.array([0.1, 0.9, 0.2, 0.8]), bins=2).tolist()
        [0, 1, 0, 1]
    """
    order = np.argsort(probabilities, kind="stable")
    ranked = probabilities[order]
    first = np.searchsorted(ranked, ranked, side="left")  # the place of the first of its equals
    found = np.empty(len(ranked), dtype=int)
    found[order] = first * bins // max(1, len(ranked))
    return found


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, share of positives and number of images of every equal-mass bin that is not empty.

    Example:
        >>> said, seen, images = reliability(np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.1, 0.3, 0.8, 0.9]), bins=2)
        >>> said.round(2).tolist(), seen.tolist(), images.tolist()
        ([0.2, 0.85], [0.5, 1.0], [2, 2])
    """
    found = equal_mass_bins(probabilities, bins)
    images = np.bincount(found, minlength=bins)
    there = images > 0
    said, seen = (np.bincount(found, weights=values, minlength=bins) for values in (probabilities, labels))
    return said[there] / images[there], seen[there] / images[there], images[there]


def _newton(columns: np.ndarray, labels: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Maximum likelihood of a logistic regression with a fixed part; NaN where it runs away."""
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
