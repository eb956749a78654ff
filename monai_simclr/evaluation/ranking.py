"""AUROC and average precision of one set of scores under many weightings of its patients at once: exact and fast."""

from __future__ import annotations

import numpy as np

_CHUNK = 300_000
"""Weights held at once: about what a processor's cache holds, which is twice as fast as more."""


class Ranking:
    """Images sorted by score once, and scored for every bootstrap resample of their patients.

    With the negatives sorted, one running sum of their weights gives for every positive how much weight lies below it,
    which is all that both areas need: the work of a resample is one pass over the images.

    Args:
        labels: 0 or 1, shape ``(N,)``.
        scores: shape ``(N,)``, higher for 1.
        codes: the patient ``0 .. P - 1`` of every image, shape ``(N,)``, from `patient_counts`.

    Example:
        >>> ranking = Ranking(np.array([0, 1, 1]), np.array([0.1, 0.1, 0.9]), np.array([0, 1, 2]))
        >>> auroc, auprc = ranking.areas(np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1]]))
        >>> auroc, auprc.round(3)
        (array([0.75, 0.5 ,  nan]), array([0.833, 0.5  , 1.   ]))
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray, codes: np.ndarray) -> None:
        order = np.argsort(scores, kind="stable")
        positive = np.asarray(labels)[order] > 0.5
        ranked, patients = np.asarray(scores)[order], np.asarray(codes)[order].astype(np.int32)
        self._above, self._below = patients[positive], patients[~positive]
        values, negatives = ranked[positive], ranked[~positive]
        self._left = np.searchsorted(negatives, values, side="left")
        self._right = np.searchsorted(negatives, values, side="right")
        self._levels = (
            np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.array([], dtype=int)
        )

    def areas(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUROC (Mann-Whitney, a tie counts half) and average precision of every resample.

        Equal to scikit-learn's ``roc_auc_score`` and ``average_precision_score`` of the resample.

        Args:
            counts: how often every patient is in each resample, shape ``(n, P)``.

        Returns:
            Two arrays of shape ``(n,)``; NaN where a resample has no positive, and AUROC also where it has no negative.
        """
        auroc, auprc = np.full(len(counts), np.nan), np.full(len(counts), np.nan)
        if len(self._above):
            step = max(1, _CHUNK // max(1, len(self._below) + len(self._above)))
            for start in range(0, len(counts), step):
                part = slice(start, start + step)
                auroc[part], auprc[part] = self._areas_of(counts[part])
        return auroc, auprc

    def _areas_of(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sums = np.zeros((len(counts), len(self._below) + 1))
        np.cumsum(np.take(counts, self._below, axis=1), axis=1, dtype=np.float64, out=sums[:, 1:])
        up = np.take(counts, self._above, axis=1).astype(np.float64)
        total, negatives = up.sum(axis=1), sums[:, -1]
        below = np.take(sums, self._left, axis=1)
        middle = (below + np.take(sums, self._right, axis=1)) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = np.einsum("ij,ij->i", up, middle) / (total * negatives)
            gained = np.add.reduceat(up, self._levels, axis=1)
            found = np.cumsum(gained[:, ::-1], axis=1)[:, ::-1]
            false = negatives[:, None] - below[:, self._levels]
            precision = np.where(found > 0, found / (found + false), 0.0)
            auprc = (gained * precision).sum(axis=1) / total
        return auroc, auprc
