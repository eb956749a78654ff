"""Few labels: does one way of training beat another, over draws of the labelled patients and over test patients?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.evaluation.bootstrap import bootstrap_interval, patient_counts
from monai_simclr.evaluation.multiple import holm
from monai_simclr.evaluation.scores import macro_auroc_resamples

Key = tuple[float, str, int]
"""Fraction, arm and draw of a run."""


def compare_arms(
    runs: Sequence[Mapping[str, Any]],
    reference: str,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare arms (ways of training) at every label fraction, paired by draw and by test patient.

    Two uncertainties stay apart: `sd` is over draws of the labelled patients, `low` and `high` are over test patients,
    the same resamples for both arms, of the difference that is averaged over draws. `low_draws` and `high_draws` hold
    both: every resample draws the draws too, in pairs.

    Args:
        runs: one mapping a run: `arm`, `draw`, `fraction` (share of the train patients whose labels were used),
            `scores` ``(N, K)``, `labels` ``(N, K)`` (1, 0 or NaN) and `patients` ``(N,)``; the last two are
            the same in all runs.
        reference: the arm that the others are compared with ("scratch").
        n_bootstrap: resamples of test patients.
        seed: of the resampling.

    Returns:
        One row a fraction and arm: `fraction, arm, draws, mean, mean_low, mean_high, sd, difference, difference_sd,
        low, high, low_draws, high_draws, p, p_holm`: macro AUROC over draws, and its difference to `reference`. `p` is
        of the paired patient bootstrap, two-sided; `p_holm` is adjusted for all fractions and arms of the table.

    Raises:
        ValueError: if `reference` is no arm, a run occurs twice or has no partner, or test images or shapes differ.

    Example:
        >>> right = np.tile([[0.0], [1.0]], (20, 1))
        >>> test = {"labels": right, "patients": np.arange(40), "draw": 0, "fraction": 0.1}
        >>> runs = [{"arm": "scratch", "scores": np.zeros((40, 1)), **test}, {"arm": "simclr", "scores": right, **test}]
        >>> compare_arms(runs, "scratch", 50)[["arm", "mean", "difference"]].to_numpy().tolist()
        [['scratch', 0.5, 0.0], ['simclr', 1.0, 0.5]]
    """
    _check(runs, reference)
    found, patients = run_resamples(runs, n_bootstrap, seed), len(np.unique(runs[0]["patients"]))
    rows = []
    for fraction, arm in sorted({key[:2] for key in found}, key=lambda key: (key[0], key[1] != reference, key[1])):
        draws = sorted(key[2] for key in found if key[:2] == (fraction, arm))
        mine = np.array([found[fraction, arm, draw] for draw in draws])
        other = np.array([found[fraction, reference, draw] for draw in draws])
        compared = _compare(mine, other, patients, seed)
        rows.append({"fraction": fraction, "arm": arm, "draws": len(draws), **compared})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].to_numpy()))


def few_label_gain(
    runs: Sequence[Mapping[str, Any]],
    reference: str,
    at_most: float = 0.1,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare arms where labels are few, in one number: the difference that is averaged over the small fractions.

    One test an arm, where `compare_arms` makes one for each fraction. The fractions of a draw are nested and share
    patients, so they are averaged within the draw, and the draws are what is resampled.

    Args:
        runs: as for `compare_arms`. A draw counts where it has every fraction, of the arm and of the reference.
        reference: the arm that the others are compared with.
        at_most: share of the train patients up to which labels are few.
        n_bootstrap: resamples of test patients.
        seed: of the resampling.

    Returns:
        One row an arm but the reference: `arm, fractions` (percents, as "2, 5, 10"), `draws`, and the columns of
        `compare_arms` from `mean` on; no row when no fraction is that small, or no draw has them all.

    Raises:
        ValueError: as `compare_arms` does.

    Example:
        >>> right = np.tile([[0.0], [1.0]], (20, 1))
        >>> test = {"labels": right, "patients": np.arange(40), "draw": 0}
        >>> runs = [{"arm": arm, "fraction": fraction, "scores": scores, **test} for fraction in (0.05, 0.1, 1.0)
        ...         for arm, scores in {"scratch": np.zeros((40, 1)), "simclr": right}.items()]
        >>> few_label_gain(runs, "scratch", 0.1, 50)[["arm", "fractions", "difference"]].to_numpy().tolist()
        [['simclr', '5, 10', 0.5]]
    """
    _check(runs, reference)
    few = [run for run in runs if run["fraction"] <= at_most]
    found = run_resamples(few, n_bootstrap, seed) if few else {}
    fractions, patients = sorted({key[0] for key in found}), len(np.unique(runs[0]["patients"]))
    rows = []
    for arm in dict.fromkeys(str(run["arm"]) for run in few if run["arm"] != reference):
        draws = [
            draw
            for draw in sorted({key[2] for key in found})
            if all((fraction, one, draw) in found for fraction in fractions for one in (arm, reference))
        ]
        if draws:
            mine, other = (
                np.mean([[found[fraction, one, draw] for draw in draws] for fraction in fractions], axis=0)
                for one in (arm, reference)
            )
            percents = ", ".join(f"{100 * fraction:g}" for fraction in fractions)
            compared = _compare(mine, other, patients, seed)
            rows.append({"arm": arm, "fractions": percents, "draws": len(draws), **compared})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].to_numpy())) if rows else table


def run_resamples(runs: Sequence[Mapping[str, Any]], n_bootstrap: int = 1000, seed: int = 0) -> dict[Key, np.ndarray]:
    """Macro AUROC of every run on the data as they are, then on the same resamples of test patients: ``(1 + n,)``."""
    codes, counts = patient_counts(np.asarray(runs[0]["patients"]), n_bootstrap, seed)
    labels = np.asarray(runs[0]["labels"], dtype=float)
    found = {}
    for run in runs:
        value, drawn = macro_auroc_resamples(labels, run["scores"], codes, counts)
        found[float(run["fraction"]), str(run["arm"]), int(run["draw"])] = np.r_[value, drawn]
    return found


def _compare(mine: np.ndarray, other: np.ndarray, patients: int, seed: int) -> dict[str, float]:
    """From areas ``(draws, 1 + n)`` of an arm and of the reference, in pairs."""
    gaps = mine - other
    mean, gap = mine.mean(axis=0), gaps.mean(axis=0)
    several = len(mine) > 1  # the spread of one draw is unknown, not 0
    own = bootstrap_interval(mean[0], mean[1:], units=patients)
    paired = bootstrap_interval(gap[0], gap[1:], units=patients)
    picks = np.random.default_rng(seed).integers(len(gaps), size=(gaps.shape[1] - 1, len(gaps)))
    both = gaps[picks, np.arange(1, gaps.shape[1])[:, None]].mean(axis=1)
    with_draws = bootstrap_interval(gap[0], both if several else both * np.nan, units=len(gaps))
    return {
        "mean": own.value,
        "mean_low": own.low,
        "mean_high": own.high,
        "sd": float(mine[:, 0].std(ddof=1)) if several else float("nan"),
        "difference": paired.value,
        "difference_sd": float(gaps[:, 0].std(ddof=1)) if several else float("nan"),
        "low": paired.low,
        "high": paired.high,
        "low_draws": with_draws.low,
        "high_draws": with_draws.high,
        "p": _two_sided(gap[1:]) if np.any(gaps) else float("nan"),
    }


def _two_sided(resamples: np.ndarray) -> float:
    known = resamples[np.isfinite(resamples)]
    less, more = np.sum(known <= 0), np.sum(known >= 0)
    return float(min(1.0, 2 * (1 + min(less, more)) / (1 + len(known))))


def _check(runs: Sequence[Mapping[str, Any]], reference: str) -> None:
    keys = [(float(run["fraction"]), str(run["arm"]), int(run["draw"])) for run in runs]
    if len(set(keys)) < len(keys):
        raise ValueError("a run occurs twice; one run for each arm, draw and fraction is needed")
    arms = sorted({key[1] for key in keys})
    if reference not in arms:
        raise ValueError(f"no arm is called {reference!r}; the arms are {arms}")
    unpaired = [key for key in keys if (key[0], reference, key[2]) not in keys]
    if unpaired:
        raise ValueError(f"run {unpaired[0]} has no partner of arm {reference!r}: arms are paired by fraction and draw")
    for key, run in zip(keys, runs, strict=True):
        same = np.array_equal(run["labels"], runs[0]["labels"], equal_nan=True)
        if not same or not np.array_equal(run["patients"], runs[0]["patients"]):
            raise ValueError(f"run {key} was scored on other test images than run {keys[0]}; score all on the same")
        if np.shape(run["scores"]) != np.shape(run["labels"]):
            raise ValueError(
                f"scores {np.shape(run['scores'])} do not go with labels {np.shape(run['labels'])}, run {key}"
            )
