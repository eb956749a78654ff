"""Few labels: does one way of training beat another, over draws of the labelled patients and over test patients?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from monai_simclr.evaluation.bootstrap import interval_of, patient_counts
from monai_simclr.evaluation.scores import macro_auroc_resamples

__all__ = ["compare_arms"]


def compare_arms(
    table: pd.DataFrame,
    labels: np.ndarray,
    patients: Sequence[str] | np.ndarray,
    against: str,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare arms (ways of training) at every label fraction, paired by draw and by test patient.

    Two uncertainties stay apart: `sd` is over draws of the labelled patients, `low` and `high` are over test patients,
    the same resamples for both arms, of the difference that is averaged over draws.

    Args:
        table: one row a run: `arm, draw, fraction` (share of the train patients whose labels were used) and `scores`, an
            array ``(N, K)`` of that run's scores of the same test images.
        labels: of the test images, 1, 0 or NaN, ``(N, K)``.
        patients: of the test images, ``(N,)``.
        against: the arm that the others are compared with ("scratch").
        n_bootstrap: resamples of test patients.
        seed: of the resampling.

    Returns:
        One row a fraction and arm: `fraction, arm, draws, mean, sd, difference, difference_sd, low, high`: macro AUROC
        over draws, and its difference to `against`.

    Raises:
        ValueError: if `against` is no arm, a run occurs twice, shapes differ, or an arm lacks the draws of `against`.

    Example:
        >>> labels = np.tile([[0.0], [1.0]], (20, 1))
        >>> runs = pd.DataFrame({"arm": ["scratch", "simclr"], "draw": [0, 0], "fraction": [0.1, 0.1],
        ...                      "scores": [np.zeros((40, 1)), labels]})
        >>> compare_arms(runs, labels, np.arange(40), "scratch", 50)[["arm", "mean", "difference"]].to_numpy().tolist()
        [['scratch', 0.5, 0.0], ['simclr', 1.0, 0.5]]
    """
    _check(table, labels, against)
    codes, counts = patient_counts(np.asarray(patients), n_bootstrap, seed)
    runs = {
        (row["fraction"], row["arm"], row["draw"]): macro_auroc_resamples(labels, row["scores"], codes, counts)
        for _, row in table.iterrows()
    }
    rows = []
    for fraction, arm in sorted({key[:2] for key in runs}, key=lambda key: (key[0], key[1] != against, key[1])):
        draws = sorted(key[2] for key in runs if key[:2] == (fraction, arm))
        mine = [runs[fraction, arm, draw] for draw in draws]
        other = [runs[fraction, against, draw] for draw in draws]
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


def _check(table: pd.DataFrame, labels: np.ndarray, against: str) -> None:
    runs = [tuple(row) for row in table[["fraction", "arm", "draw"]].to_numpy().tolist()]
    if len(set(runs)) < len(runs):
        raise ValueError("a run occurs twice in the table; one row for each arm, draw and fraction is needed")
    if against not in set(table["arm"]):
        raise ValueError(f"no arm is called {against!r}; the arms are {sorted(set(table['arm']))}")
    lonely = [run for run in runs if (run[0], against, run[2]) not in set(runs)]
    if lonely:
        raise ValueError(f"run {lonely[0]} has no partner of arm {against!r}: arms are paired by fraction and draw")
    wrong = [np.shape(scores) for scores in table["scores"] if np.shape(scores) != np.shape(labels)]
    if wrong:
        raise ValueError(f"scores of shape {wrong[0]} do not go with labels of shape {np.shape(labels)}")
