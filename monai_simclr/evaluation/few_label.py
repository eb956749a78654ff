"""Few labels: comparisons of ways of training over draws of labelled patients, and curves over their number."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from monai_simclr.evaluation.intervals import (
    Interval,
    bootstrap_interval,
    effective_units,
    holm,
    interval_over_draws,
    patient_counts,
)
from monai_simclr.evaluation.scores import auroc_resamples, in_macro, mean_of_known, units_of_findings

_UNKNOWN = float("nan")

Key = tuple[float, str, int]
"""Fraction, arm and draw of a run."""


class ResampledRuns:
    """AUROC of every run, on the data and on the same resamples of test patients; one set serves all comparisons.

    Args:
        runs: one mapping per run: `arm`, `draw`, `fraction` (share of the train patients whose labels were used),
            `scores` ``(N, K)``, `labels` ``(N, K)`` (1, 0 or NaN) and `patients` ``(N,)``; the last two are the same in
            all runs.
        n_bootstrap, seed: of the resampling of test patients.

    Raises:
        ValueError: if there is no run, one occurs twice, or test images or shapes differ.

    Example:
        >>> test = {"labels": [[0], [1], [1]], "patients": ["a", "b", "c"], "fraction": 1.0, "draw": 0}
        >>> runs = ResampledRuns([{"arm": "scratch", "scores": [[0.1], [0.2], [0.0]], **test}], n_bootstrap=50)
        >>> {key: aurocs[0].tolist() for key, aurocs in runs.aurocs.items()}
        {(1.0, 'scratch', 0): 0.5}
    """

    def __init__(self, runs: Sequence[Mapping[str, Any]], n_bootstrap: int = 1000, seed: int = 0) -> None:
        _check_runs(runs)
        codes, counts = patient_counts(np.asarray(runs[0]["patients"]), n_bootstrap, seed)
        labels = np.asarray(runs[0]["labels"], dtype=float)
        self.seed = seed
        self._tables = {_key(run): auroc_resamples(labels, run["scores"], codes, counts) for run in runs}
        self._units = units_of_findings(labels, codes)
        self._average(in_macro(self._units))

    def _average(self, rows: np.ndarray) -> None:
        """The mean over some findings, and on how many patients it rests."""
        tables = {key: table[rows] for key, table in self._tables.items()}
        self.aurocs = {key: mean_of_known(table) for key, table in tables.items()}
        """Macro mean over the findings of `in_macro`, of the data and then of every resample, ``(1 + n,)``."""
        self.units = min((effective_units(table[:, 1:], self._units[rows]) for table in tables.values()), default=0.0)
        """Independent patients behind it, see `effective_units`."""

    def part(self, keys: Collection[Key], finding: int | None = None) -> ResampledRuns:
        """Some of the runs, and of one finding instead of the macro mean; nothing is computed again."""
        part = copy.copy(self)
        part._tables = {key: self._tables[key] for key in keys}
        part._average(in_macro(self._units) if finding is None else np.arange(len(self._units)) == finding)
        return part


_Runs = ResampledRuns | Sequence[Mapping[str, Any]]


def compare_arms(runs: _Runs, reference: str, n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Compare arms (ways of training) at every label fraction, paired by draw and by test patient.

    Two uncertainties are kept apart: `sd` is over draws of the labelled patients, `low` and `high` are over test
    patients, the same resamples for both arms, of the difference averaged over draws. `low_draws` and `high_draws` have
    both (`interval_over_draws`); they are NaN for one draw.

    Args:
        runs: `ResampledRuns`, or what it is made of.
        reference: the arm that the others are compared with ("scratch").
        n_bootstrap, seed: of the resampling of test patients, where `runs` are not resampled yet.

    Returns:
        One row per fraction and arm: `fraction, arm, draws, mean, mean_low, mean_high, sd, difference, difference_sd,
        low, high, low_draws, high_draws, p, p_holm`: macro AUROC over draws, and its difference to `reference`. `p` is
        two-sided, and belongs to the interval with the draws; with one draw it is that of the paired patient bootstrap.
        `p_holm` is adjusted for all fractions and arms of the table.

    Raises:
        ValueError: if `reference` is not an arm, a run occurs twice or has no partner, or test images or shapes differ.

    Example:
        >>> right = np.tile([[0.0], [1.0]], (20, 1))
        >>> test = {"labels": right, "patients": np.arange(40), "draw": 0, "fraction": 0.1}
        >>> runs = [{"arm": "scratch", "scores": np.zeros((40, 1)), **test}, {"arm": "simclr", "scores": right, **test}]
        >>> compare_arms(runs, "scratch", 50)[["arm", "mean", "difference"]].to_numpy().tolist()
        [['scratch', 0.5, 0.0], ['simclr', 1.0, 0.5]]
    """
    resampled = _resampled(runs, n_bootstrap, seed)
    aurocs = resampled.aurocs
    _check_pairs(aurocs, reference)
    rows = []
    for fraction, arm in sorted({key[:2] for key in aurocs}, key=lambda key: (key[0], key[1] != reference, key[1])):
        draws = sorted(key[2] for key in aurocs if key[:2] == (fraction, arm))
        own, other = (np.array([aurocs[fraction, name, draw] for draw in draws]) for name in (arm, reference))
        rows.append({"fraction": fraction, "arm": arm, **_compare(own, other, resampled)})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].to_numpy()))


def few_label_gain(
    runs: _Runs, reference: str, at_most: float = 0.1, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compare arms where labels are few, in one number: the difference averaged over the small fractions.

    One test per arm, where `compare_arms` makes one per fraction. The fractions of a draw are nested and share
    patients, so they are averaged within the draw, and the draws vary as a whole.

    Args:
        runs: as for `compare_arms`. A draw counts where it has every fraction, of the arm and of the reference.
        reference: the arm that the others are compared with.
        at_most: share of the train patients up to which labels are few.
        n_bootstrap, seed: as for `compare_arms`.

    Returns:
        One row per arm except the reference: `arm, fractions` (percents, as "2, 5, 10"), `draws`, and the columns of
        `compare_arms` from `mean` on; no row when no fraction is that small, or no draw has them all.

    Raises:
        ValueError: as `compare_arms` does.
    """
    resampled = _resampled(runs, n_bootstrap, seed)
    _check_pairs(resampled.aurocs, reference)
    aurocs = {key: values for key, values in resampled.aurocs.items() if key[0] <= at_most}
    fractions = sorted({key[0] for key in aurocs})
    percents = ", ".join(f"{100 * fraction:g}" for fraction in fractions)
    rows = []
    for arm in dict.fromkeys(key[1] for key in aurocs if key[1] != reference):
        needed = {(fraction, name) for fraction in fractions for name in (arm, reference)}
        draws = [draw for draw in sorted({key[2] for key in aurocs}) if all((*key, draw) in aurocs for key in needed)]
        if draws:
            own, other = (
                np.mean([[aurocs[fraction, name, draw] for draw in draws] for fraction in fractions], axis=0)
                for name in (arm, reference)
            )
            rows.append({"arm": arm, "fractions": percents, **_compare(own, other, resampled)})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].to_numpy())) if rows else table


def _resampled(runs: _Runs, n_bootstrap: int, seed: int) -> ResampledRuns:
    return runs if isinstance(runs, ResampledRuns) else ResampledRuns(runs, n_bootstrap, seed)


def _key(run: Mapping[str, Any]) -> Key:
    return float(run["fraction"]), str(run["arm"]), int(run["draw"])


def _check_pairs(keys: Collection[Key], reference: str) -> None:
    arms = sorted({key[1] for key in keys})
    if reference not in arms:
        raise ValueError(f"no arm is called {reference!r}; the arms are {arms}")
    unpaired = [key for key in keys if (key[0], reference, key[2]) not in keys]
    if unpaired:
        raise ValueError(f"run {unpaired[0]} has no partner of arm {reference!r}: arms are paired by fraction and draw")


def _check_runs(runs: Sequence[Mapping[str, Any]]) -> None:
    if not runs:
        raise ValueError("there is no run to compare")
    keys = [_key(run) for run in runs]
    if len(set(keys)) < len(keys):
        raise ValueError("a run occurs twice; one run per arm, draw and fraction is needed")
    for key, run in zip(keys, runs, strict=True):
        same = np.array_equal(run["labels"], runs[0]["labels"], equal_nan=True)
        if not same or not np.array_equal(run["patients"], runs[0]["patients"]):
            raise ValueError(f"run {key} was scored on other test images than run {keys[0]}; score all on the same")
        if np.shape(run["scores"]) != np.shape(run["labels"]):
            raise ValueError(
                f"scores {np.shape(run['scores'])} do not go with labels {np.shape(run['labels'])}, run {key}"
            )


def _compare(own: np.ndarray, other: np.ndarray, resampled: ResampledRuns) -> dict[str, float]:
    """From AUROCs ``(draws, 1 + n)`` of an arm and of the reference, in pairs."""
    gaps = own - other
    mean, gap = own.mean(axis=0), gaps.mean(axis=0)
    several = len(own) > 1  # the spread of one draw is unknown, not 0
    mean_interval = bootstrap_interval(mean[0], mean[1:], units=resampled.units, share=True)
    paired = bootstrap_interval(gap[0], gap[1:], units=resampled.units)
    with_draws, p_draws = interval_over_draws(gaps, resampled.units)
    sd, difference_sd = (float(part[:, 0].std(ddof=1)) if several else _UNKNOWN for part in (own, gaps))
    known = gap[1:][np.isfinite(gap[1:])]
    tail = 1 + min(np.sum(known <= 0), np.sum(known >= 0))
    p_patients = float(min(1.0, 2 * tail / (1 + len(known)))) if np.any(gaps) else _UNKNOWN
    p = p_draws if several else p_patients
    mean_columns = dict(zip(("mean", "mean_low", "mean_high"), mean_interval, strict=True))
    differences = {"difference": paired.value, "difference_sd": difference_sd, "low": paired.low, "high": paired.high}
    draws = {"low_draws": with_draws.low, "high_draws": with_draws.high}
    return {"draws": len(own), **mean_columns, "sd": sd, **differences, **draws, "p": p}


class Curve(NamedTuple):
    """One arm: label fractions ``(F,)``; macro AUROC, mean over draws, of the data and n resamples ``(1 + n, F)``.

    A resample has other test patients and other draws.
    """

    fractions: np.ndarray
    aurocs: np.ndarray


class PowerLaw(NamedTuple):
    """``AUROC(n) = alpha - beta * n ** -gamma`` for n labelled patients (arXiv 2510.11553)."""

    alpha: float
    beta: float
    gamma: float

    def needed(self, auroc: float) -> float:
        """Labelled patients for an AUROC; infinite at the plateau `alpha` and above."""
        if auroc >= self.alpha or self.beta <= 0:
            return float("inf") if auroc >= self.alpha else 1.0
        return round(float((self.beta / (self.alpha - auroc)) ** (1 / self.gamma)), 6)


def arm_curves(runs: _Runs, n_bootstrap: int = 1000, seed: int = 0) -> dict[str, Curve]:
    """The curve of every arm, on the same resamples of test patients and of draws; `runs` as for `compare_arms`.

    Draws are picked alike for all arms and fractions, as arms are paired by them and fractions nested in them. The
    spread of the mean of R picks is that of R - 1, which the deviations make up for.
    """
    resampled = _resampled(runs, n_bootstrap, seed)
    aurocs, curves = resampled.aurocs, {}
    places = np.random.default_rng(resampled.seed).random((len(next(iter(aurocs.values()))) - 1, len(aurocs)))
    for arm in dict.fromkeys(key[1] for key in aurocs):
        fractions = sorted({key[0] for key in aurocs if key[1] == arm})
        means = []
        for fraction in fractions:
            draws = np.array([aurocs[key] for key in sorted(aurocs) if key[:2] == (fraction, arm)])
            count, mean = len(draws), draws.mean(axis=0)
            picks = (places[:, :count] * count).astype(int)
            others = draws[picks, np.arange(1, draws.shape[1])[:, None]].mean(axis=1) - mean[1:]
            means.append(mean + np.r_[0, others * np.sqrt(count / max(count - 1, 1))])
        curves[arm] = Curve(np.array(fractions), np.stack(means, axis=1))
    return curves


def fit_power_law(patients: np.ndarray, aurocs: np.ndarray) -> PowerLaw | None:
    """Least squares with alpha in [0.5, 1], beta in [0, 1], gamma in [0.05, 2]; None for fewer than four points.

    Args:
        patients: labelled patients, shape ``(F,)``.
        aurocs: AUROC with as many, shape ``(F,)``.

    Example:
        >>> law = fit_power_law(np.array([4, 16, 64, 256]), np.array([0.7, 0.8, 0.85, 0.875]))
        >>> [round(value, 2) for value in law], round(law.needed(0.7))
        ([0.9, 0.4, 0.5], 4)
    """
    return _fit_power_laws(patients, np.asarray(aurocs, dtype=float)[None])[0]


def curve_laws(curve: Curve, train_patients: int, refits: int = 100) -> list[PowerLaw]:
    """The power law of a curve, then of its first resamples, for the interval; empty for fewer than four fractions."""
    laws = _fit_power_laws(curve.fractions * train_patients, curve.aurocs[: 1 + refits])
    return [law for law in laws if law is not None]


def _fit_power_laws(patients: np.ndarray, aurocs: np.ndarray) -> list[PowerLaw | None]:
    """The law of each row of AUROCs ``(R, F)``, all at once.

    For a given gamma the best alpha and beta are known (`_fit_lines`), so only gamma is searched: 40 intervals over its
    range, then over the two around the best, seven times: to 1e-9 of the range.
    """
    known = np.isfinite(aurocs)
    y, w, n = np.where(known, aurocs, 0)[:, None], known[:, None].astype(float), np.asarray(patients, dtype=float)
    low, high = np.full((len(y), 1), 0.05), np.full((len(y), 1), 2.0)
    rows = np.arange(len(y))
    for _ in range(7):
        gammas = low + (high - low) * np.linspace(0, 1, 41)
        alpha, beta, cost = _fit_lines(n ** -gammas[:, :, None], y, w)
        best = cost.argmin(axis=1)
        low, high = (gammas[rows, np.clip(best + side, 0, 40)][:, None] for side in (-1, 1))
    laws = np.stack([part[rows, best] for part in (alpha, beta, gammas)], axis=1)
    enough = known.sum(axis=1) >= 4
    return [PowerLaw(*law) if fits else None for law, fits in zip(laws.tolist(), enough, strict=True)]


def _fit_lines(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted least squares of ``y = alpha - beta * x`` along the last axis, alpha in [0.5, 1] and beta in [0, 1].

    The cost is convex, so the best of the box is the free optimum, if that lies inside, or lies on an edge.
    """
    size, sx, sy, sxx, sxy, syy = ((w * part).sum(axis=-1) for part in (np.ones_like(x), x, y, x * x, x * y, y * y))
    with np.errstate(invalid="ignore", divide="ignore"):
        free = (sx * sy - size * sxy) / (size * sxx - sx * sx)
        pairs = [((sy + free * sx) / size, free)]
        pairs += [(np.full_like(sx, alpha), (alpha * sx - sxy) / sxx) for alpha in (0.5, 1.0)]
        pairs += [((sy + beta * sx) / size, np.full_like(sx, beta)) for beta in (0.0, 1.0)]
    alphas, betas = (np.stack(parts) for parts in zip(*pairs, strict=True))
    inside = (alphas[0] >= 0.5) & (alphas[0] <= 1) & (betas[0] >= 0) & (betas[0] <= 1)
    alpha, beta = alphas.clip(0.5, 1), betas.clip(0, 1)
    cost = syy - 2 * alpha * sy + 2 * beta * sxy + size * alpha**2 - 2 * alpha * beta * sx + beta**2 * sxx
    cost[0] = np.where(inside, cost[0], np.inf)
    best = cost.argmin(axis=0)[None]
    return tuple(np.take_along_axis(part, best, axis=0)[0] for part in (alpha, beta, cost))  # type: ignore[return-value]


def labels_needed(laws: Sequence[PowerLaw], auroc: float) -> Interval:
    """Labelled patients that an AUROC needs by the power laws of `curve_laws`, with the interval over test patients.

    Infinite means "not with any number"; an extrapolation beyond the curve is a forecast.
    """
    return _outer_interval([law.needed(auroc) for law in laws])


def label_saving(curve: Curve, reference: Curve) -> Interval:
    """The label fraction with which an arm reaches the reference with the most labels; infinite: not reached.

    NaN where it cannot be stated, see `unstated_saving`. The curve is made to rise (isotonic regression), since noise
    would reach a level before its time, and taken as straight between fractions in log scale; it is not extended below
    its smallest fraction, so a value equal to that means "with as many or fewer". The interval is over resamples of
    test patients and draws. Where a curve is flat it says little, and its noise makes the value too small.

    Example:
        >>> scratch = Curve(np.array([0.1, 1.0]), np.array([[0.6, 0.8]] * 3))
        >>> label_saving(Curve(np.array([0.1, 1.0]), np.array([[0.7, 0.9]] * 3)), scratch).value
        0.316228
    """
    if unstated_saving(reference):
        return Interval(_UNKNOWN, _UNKNOWN, _UNKNOWN)

    def crossing(aurocs: np.ndarray, target: float) -> float:
        if not np.isfinite(aurocs).all() or not np.isfinite(target):
            return _UNKNOWN
        aurocs = isotonic_regression(aurocs).x
        reached = np.flatnonzero(aurocs >= target)
        if not len(reached):
            return float("inf")
        i = int(reached[0])
        if i == 0:
            return float(curve.fractions[0])
        share = (target - aurocs[i - 1]) / (aurocs[i] - aurocs[i - 1])
        low, high = np.log(curve.fractions[i - 1]), np.log(curve.fractions[i])
        return round(float(np.exp(low + share * (high - low))), 6)

    return _outer_interval([crossing(*pair) for pair in zip(curve.aurocs, reference.aurocs[:, -1], strict=True)])


def unstated_saving(reference: Curve) -> str:
    """Why no label saving can be stated against a reference, "" where it can.

    A reference no better than chance with the most labels is reached by any arm with any number of labels.
    """
    target, low, high = _outer_interval(reference.aurocs[:, -1].tolist())
    if not np.isfinite(target):
        return "the reference's AUROC is not known"
    if not (target > 0.5 and low > 0.5):
        return f"the reference is not above chance with its most labels, AUROC {target:.3f} [{low:.3f}, {high:.3f}]"
    return ""


def _outer_interval(values: list[float]) -> Interval:
    """The first value, with the 2.5th and 97.5th percentile of the others; infinity counts as the largest number.

    NaN among the others is ignored: a resample without positive patients of a finding.
    """
    others = np.array(values[1:], dtype=float)
    others = np.sort(others[~np.isnan(others)])
    if not len(others):
        return Interval(values[0], _UNKNOWN, _UNKNOWN)
    low, high = others[int(0.025 * len(others))], others[min(len(others) - 1, int(np.ceil(0.975 * len(others))))]
    return Interval(float(values[0]), float(low), float(high))
