"""Agreement of clusters with classes, computed from the table of clusters x classes."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import expected_mutual_information

MEASURES: tuple[str, ...] = (
    "acc_one_to_one",
    "acc_many_to_one",
    "balanced_acc",
    "ami",
    "nmi",
    "ari",
    "v_measure",
    "oracle_map_acc",
)
"""What `agreement` measures, in its order."""


def contingency(
    clusters: np.ndarray, classes: np.ndarray, shape: tuple[int, int], weights: np.ndarray | None = None
) -> np.ndarray:
    """Table of clusters x classes: how many images are in both.

    Args:
        clusters: ``0 .. shape[0] - 1``, shape ``(N,)``.
        classes: ``0 .. shape[1] - 1``, shape ``(N,)``.
        shape: of the table.
        weights: how often every image counts, shape ``(N,)``.

    Example:
        >>> contingency(np.array([0, 0, 1]), np.array([1, 1, 0]), (2, 2)).tolist()
        [[0, 2], [1, 0]]
    """
    counts = np.bincount(clusters * shape[1] + classes, weights=weights, minlength=shape[0] * shape[1])
    return np.rint(counts).astype(np.int64).reshape(shape)


def one_to_one(table: np.ndarray) -> np.ndarray:
    """The class of every cluster so that each class has at most one and most images are right (Kuhn 1955).

    Args:
        table: clusters x classes; at training patients, never at the ones to be scored.

    Returns:
        A class for every cluster, -1 for those left over when there are more clusters than classes.

    Example:
        >>> one_to_one(np.array([[9, 8], [8, 1]])).tolist()
        [1, 0]
    """
    clusters, classes = linear_sum_assignment(table, maximize=True)
    mapping = np.full(len(table), -1)
    mapping[clusters] = classes
    return mapping


def many_to_one(table: np.ndarray) -> np.ndarray:
    """The commonest class of every cluster; an empty cluster gets the commonest class of all.

    Example:
        >>> many_to_one(np.array([[9, 8], [8, 1], [0, 0]])).tolist()
        [0, 0, 0]
    """
    mapping = table.argmax(axis=1)
    mapping[table.sum(axis=1) == 0] = table.sum(axis=0).argmax()
    return mapping


def agreement(table: np.ndarray, single: np.ndarray | None, many: np.ndarray) -> np.ndarray:
    """The measures of `MEASURES` for one table at the patients to be scored.

    `oracle_map_acc` is the accuracy of a one-to-one map that was fitted on the very labels it is scored on: an upper
    bound that published numbers often are, never the accuracy of a procedure. V-measure (Rosenberg and Hirschberg 2007)
    with equal weights is the NMI with the arithmetic mean, and stands here under both names.

    Accuracy and balanced accuracy (mean recall of the classes that occur) need a map from clusters to classes; balanced
    accuracy uses the one-to-one map where there is one. AMI is Vinh et al. (JMLR 2010) with the arithmetic mean, as in
    scikit-learn, ARI is Hubert and Arabie (1985).

    Args:
        table: clusters x classes.
        single: the one-to-one map, or None where the number of clusters is not the number of classes.
        many: the many-to-one map.

    Returns:
        Shape ``(8,)``; NaN for the one-to-one accuracy without such a map.

    Example:
        >>> agreement(np.array([[5, 0], [0, 5]]), np.array([0, 1]), np.array([0, 1])).round(3).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    best = many if single is None else single
    single_accuracy = np.nan if single is None else _hits(table, single).sum() / table.sum()
    present = table.sum(axis=0) > 0
    recall = _hits(table, best)[present] / table.sum(axis=0)[present]
    information = _information(table)
    rows, columns = linear_sum_assignment(table, maximize=True)
    oracle = table[rows, columns].sum() / table.sum()
    many_accuracy = _hits(table, many).sum() / table.sum()
    adjusted, normalized = information
    scores = [single_accuracy, many_accuracy, recall.mean(), adjusted, normalized, _adjusted_rand(table), normalized]
    return np.array([*scores, oracle])


def _hits(table: np.ndarray, mapping: np.ndarray) -> np.ndarray:
    """Images of every class whose cluster stands for it."""
    mapped = np.flatnonzero(mapping >= 0)
    hits = np.zeros(table.shape[1])
    np.add.at(hits, mapping[mapped], table[mapped, mapping[mapped]])
    return hits


def _information(table: np.ndarray) -> tuple[float, float]:
    """AMI and NMI."""
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if 1 in table.shape:  # as in scikit-learn: one cluster and one class agree, one of them alone tells nothing
        return (1.0, 1.0) if table.shape == (1, 1) else (0.0, 0.0)
    total = table.sum()
    rows, columns = table.sum(axis=1) / total, table.sum(axis=0) / total
    entropies = [-float((share * np.log(share)).sum()) for share in (rows, columns)]
    joint = table / total
    filled = joint > 0
    mutual = float((joint[filled] * np.log(joint[filled] / np.outer(rows, columns)[filled])).sum())
    expected = expected_mutual_information(table.astype(np.int64), int(total))
    mean = sum(entropies) / 2
    room = mean - expected
    room = min(room, -np.finfo(float).eps) if room < 0 else max(room, np.finfo(float).eps)
    return (mutual - expected) / room, mutual / mean


def _adjusted_rand(table: np.ndarray) -> float:
    pairs = float((table * (table - 1.0)).sum()) / 2
    rows, columns = (float((sums * (sums - 1.0)).sum()) / 2 for sums in (table.sum(axis=1), table.sum(axis=0)))
    total = table.sum() * (table.sum() - 1.0) / 2
    expected = rows * columns / total if total else 0.0
    room = (rows + columns) / 2 - expected
    return 1.0 if room == 0 else (pairs - expected) / room
