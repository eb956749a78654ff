"""Few labels: does one way of training beat another, over draws of the labelled patients and over test patients?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.evaluation.bootstrap import interval_of, patient_counts
from monai_simclr.evaluation.scores import macro_auroc_resamples

__all__ = ["compare_arms"]


def compare_arms(
    runs: Sequence[Mapping[str, Any]],
    reference: str,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare arms (ways of training) at every label fraction, paired by draw and by test patient.

    Two uncertainties stay apart: `sd` is over draws of the labelled patients, `low` and `high` are over test patients,
    the same resamples for both arms, of the difference that is averaged over draws.

    Args:
        runs: one mapping a run: `arm`, `draw`, `fraction` (share of the train patients whose labels were used),
            `scores` ``(N, K)``, `labels` ``(N, K)`` (1, 0 or NaN) and `patients` ``(N,)``; the last two are
            the same in all runs.
        reference: the arm that the others are compared with ("scratch").
        n_bootstrap: resamples of test patients.
        seed: of the resampling.

    Returns:
        One row a fraction and arm: `fraction, arm, draws, mean, sd, difference, difference_sd, low, high`: macro AUROC
        over draws, and its difference to `reference`.

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
    codes, counts = patient_counts(np.asarray(runs[0]["patients"]), n_bootstrap, seed)
    labels = np.asarray(runs[0]["labels"], dtype=float)
    found = {
        (run["fraction"], run["arm"], run["draw"]): macro_auroc_resamples(labels, run["scores"], codes, counts)
        for run in runs
    }
    rows = []
    for fraction, arm in sorted({key[:2] for key in found}, key=lambda key: (key[0], key[1] != reference, key[1])):
        draws = sorted(key[2] for key in found if key[:2] == (fraction, arm))
        mine = [found[fraction, arm, draw] for draw in draws]
        other = [found[fraction, reference, draw] for draw in draws]
        rows.append({"fraction": fraction, "arm": arm, "draws": len(draws), **_compare(mine, other)})
    return pd.DataFrame(rows)


def _compare(mine: list[tuple[float, np.ndarray]], other: list[tuple[float, np.ndarray]]) -> dict[str, float]:
    values = np.array([value for value, _ in mine])
    differences = values - np.array([value for value, _ in other])
    resamples = np.mean([a - b for (_, a), (_, b) in zip(mine, other, strict=True)], axis=0)
    interval = interval_of(float(differences.mean()), resamples)
    several = len(values) > 1  # the spread of one draw is unknown, not 0
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if several else float("nan"),
        "difference": interval.value,
        "difference_sd": float(differences.std(ddof=1)) if several else float("nan"),
        "low": interval.low,
        "high": interval.high,
    }


def _check(runs: Sequence[Mapping[str, Any]], reference: str) -> None:
    keys = [(run["fraction"], run["arm"], run["draw"]) for run in runs]
    if len(set(keys)) < len(keys):
        raise ValueError("a run occurs twice; one run for each arm, draw and fraction is needed")
    arms = sorted({key[1] for key in keys})
    if reference not in arms:
        raise ValueError(f"no arm is called {reference!r}; the arms are {arms}")
    lonely = [key for key in keys if (key[0], reference, key[2]) not in keys]
    if lonely:
        raise ValueError(f"run {lonely[0]} has no partner of arm {reference!r}: arms are paired by fraction and draw")
    for key, run in zip(keys, runs, strict=True):
        same = np.array_equal(run["labels"], runs[0]["labels"], equal_nan=True)
        if not same or not np.array_equal(run["patients"], runs[0]["patients"]):
            raise ValueError(f"run {key} was scored on other test images than run {keys[0]}; score all on the same")
        if np.shape(run["scores"]) != np.shape(run["labels"]):
            raise ValueError(
                f"scores {np.shape(run['scores'])} do not go with labels {np.shape(run['labels'])}, run {key}"
            )
