"""The curve of AUROC over labelled patients: its power law, and how many labels an arm saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from monai_simclr.evaluation.bootstrap import Interval
from monai_simclr.evaluation.few_label import run_resamples


class Curve(NamedTuple):
    """One arm: label fractions ``(F,)``; macro AUROC, mean over draws, of data and n resamples ``(1 + n, F)``."""

    fractions: np.ndarray
    areas: np.ndarray


class PowerLaw(NamedTuple):
    """``AUROC(n) = alpha - beta * n ** -gamma`` for n labelled patients (arXiv 2510.11553)."""

    alpha: float
    beta: float
    gamma: float

    def at(self, n: float) -> float:
        """AUROC with `n` labelled patients."""
        return self.alpha - self.beta * n**-self.gamma

    def needed(self, auroc: float) -> float:
        """Labelled patients for an AUROC; infinite at the plateau `alpha` and above.

        Example:
            >>> PowerLaw(0.9, 0.4, 0.5).needed(0.7), PowerLaw(0.9, 0.4, 0.5).needed(0.9)
            (4.0, inf)
        """
        if auroc >= self.alpha or self.beta <= 0:
            return float("inf") if auroc >= self.alpha else 1.0
        return round(float((self.beta / (self.alpha - auroc)) ** (1 / self.gamma)), 6)


def arm_curves(runs: Sequence[Mapping[str, Any]], n_bootstrap: int = 1000, seed: int = 0) -> dict[str, Curve]:
    """The curve of every arm, on the same resamples of test patients; `runs` as for `compare_arms`."""
    found = run_resamples(runs, n_bootstrap, seed)
    curves = {}
    for arm in dict.fromkeys(key[1] for key in found):
        fractions = sorted({key[0] for key in found if key[1] == arm})
        means = [np.mean([area for key, area in found.items() if key[:2] == (f, arm)], axis=0) for f in fractions]
        curves[arm] = Curve(np.array(fractions), np.stack(means, axis=1))
    return curves


def fit_power_law(patients: np.ndarray, areas: np.ndarray) -> PowerLaw | None:
    """Least squares with alpha in [0.5, 1], beta in [0, 1], gamma in [0.05, 2]; None for fewer than four points.

    Args:
        patients: labelled patients, shape ``(F,)``.
        areas: AUROC there, shape ``(F,)``.

    Example:
        >>> law = fit_power_law(np.array([4, 16, 64, 256]), np.array([0.7, 0.8, 0.85, 0.875]))
        >>> [round(value, 2) for value in law]
        [0.9, 0.4, 0.5]
    """
    known = np.isfinite(areas)
    n, y = np.asarray(patients, dtype=float)[known], np.asarray(areas, dtype=float)[known]
    if len(n) < 4:
        return None

    def residuals(law: np.ndarray) -> np.ndarray:
        return law[0] - law[1] * n ** -law[2] - y

    plateau = float(np.clip(y.max() + 0.02, 0.51, 0.99))
    bounds = ([0.5, 0, 0.05], [1, 1, 2])
    starts = [least_squares(residuals, (plateau, 0.3, gamma), bounds=bounds) for gamma in (0.3, 1.0)]
    return PowerLaw(*(float(value) for value in min(starts, key=lambda found: found.cost).x))


def curve_laws(curve: Curve, train_patients: int, refits: int = 100) -> list[PowerLaw]:
    """The power law of a curve, then of its first resamples, for the interval; empty for fewer than four fractions."""
    n = curve.fractions * train_patients
    laws = [fit_power_law(n, areas) for areas in curve.areas[: 1 + refits]]
    return [law for law in laws if law is not None]


def labels_needed(laws: Sequence[PowerLaw], auroc: float) -> Interval:
    """Labelled patients that the power laws of `curve_laws` say an AUROC needs, with the interval over test patients.

    Infinite means "not with any number"; an extrapolation beyond the curve is a forecast, not a finding.

    Example:
        >>> labels_needed([PowerLaw(0.9, 0.4, 0.5)] * 3, 0.7)
        Interval(value=4.0, low=4.0, high=4.0)
    """
    return _outer([law.needed(auroc) for law in laws])


def label_saving(curve: Curve, reference: Curve) -> Interval:
    """The label fraction at which an arm reaches what the reference has with the most labels; infinite: not reached.

    NaN where it cannot be stated, see `unstated_saving`.

    The curve is taken as straight between fractions in log scale; below its smallest fraction it is not extended, so a
    value equal to that fraction means "there or with fewer". The interval is over the same resamples of test patients.

    Example:
        >>> scratch = Curve(np.array([0.1, 1.0]), np.array([[0.6, 0.8]] * 3))
        >>> label_saving(Curve(np.array([0.1, 1.0]), np.array([[0.7, 0.9]] * 3)), scratch).value
        0.316228
        >>> label_saving(Curve(np.array([0.1, 1.0]), np.array([[0.5, 0.7]] * 3)), scratch).value
        inf
    """
    if unstated_saving(reference):
        return Interval(float("nan"), float("nan"), float("nan"))
    target = reference.areas[:, -1]
    return _outer([_crossing(curve.fractions, areas, aim) for areas, aim in zip(curve.areas, target, strict=True)])


def unstated_saving(reference: Curve) -> str:
    """Why no label saving can be stated against a reference, "" where it can.

    What does no better than chance with the most labels is reached by anything, and with any number of labels.

    Example:
        >>> unstated_saving(Curve(np.array([0.1, 1.0]), np.array([[0.5, 0.52], [0.5, 0.45], [0.5, 0.6]])))
        'the reference is not above chance with its most labels, AUROC 0.520 [0.450, 0.600]'
    """
    target, low, high = _outer(reference.areas[:, -1].tolist())
    if not np.isfinite(target):
        return "the reference's AUROC is not known"
    if not (target > 0.5 and low > 0.5):
        return f"the reference is not above chance with its most labels, AUROC {target:.3f} [{low:.3f}, {high:.3f}]"
    return ""


def _crossing(fractions: np.ndarray, areas: np.ndarray, target: float) -> float:
    reached = np.flatnonzero(areas >= target)
    if not len(reached):
        return float("inf")
    i = int(reached[0])
    if i == 0:
        return float(fractions[0])
    share = (target - areas[i - 1]) / (areas[i] - areas[i - 1])
    low, high = np.log(fractions[i - 1]), np.log(fractions[i])
    return round(float(np.exp(low + share * (high - low))), 6)


def _outer(values: list[float]) -> Interval:
    """The first value, with the 2.5th and 97.5th percentile of the others; infinity counts as the largest number."""
    others = np.sort(np.array(values[1:], dtype=float))
    if not len(others) or np.isnan(others).any():
        return Interval(values[0], float("nan"), float("nan"))
    low, high = others[int(0.025 * len(others))], others[min(len(others) - 1, int(np.ceil(0.975 * len(others))))]
    return Interval(float(values[0]), float(low), float(high))
