"""Operating points: thresholds chosen on validation patients, applied to others as they are."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

__all__ = ["OPERATING_POINTS", "choose_thresholds", "with_room"]

_ROOM = 1e-3
"""Room below a threshold, at most, in standard deviations of the validation scores."""

OPERATING_POINTS: tuple[str, ...] = (
    "sensitivity at 90% specificity",
    "sensitivity at 95% specificity",
    "specificity at 90% sensitivity",
    "F1",
)
"""What is reported at the threshold of the same place in `choose_thresholds`."""


def choose_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """A threshold for each of `OPERATING_POINTS`; an image is called positive when its score is at least that.

    Args:
        labels: 0 or 1 of validation patients, shape ``(N,)``.
        scores: of the same images, shape ``(N,)``.

    Returns:
        The threshold with the highest sensitivity at a specificity of 0.90 and of 0.95, the highest specificity at a
        sensitivity of 0.90, and the highest F1; shape ``(4,)``, NaN without both labels. Infinite where only calling
        nothing positive is specific enough.

    Example:
        >>> choose_thresholds(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.5, 0.9])).tolist()
        [0.9, 0.9, 0.5, 0.5]
    """
    if not 0 < np.sum(labels) < len(labels):
        return np.full(4, np.nan)
    false, true, at = roc_curve(labels, scores, drop_intermediate=False)
    chosen = [at[np.flatnonzero(1 - false >= wanted - 1e-12)[-1]] for wanted in (0.90, 0.95)]
    chosen.append(at[np.flatnonzero(true >= 0.90 - 1e-12)[0]])
    precision, recall, cuts = precision_recall_curve(labels, scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
    return np.array([*chosen, cuts[int(np.argmax(f1))]], dtype=float)


def with_room(threshold: float, scores: np.ndarray) -> float:
    """A threshold that decides the same on `scores`, with room for rounding below the lowest score that it calls.

    `choose_thresholds` gives the score of an image. The same image in a batch of another size, on a GPU or in another
    runtime has a score that differs in the last digits, and half the time it would be called otherwise. So the
    threshold goes down by half of the way to the next lower score, at most by a thousandth of the scores' standard
    deviation, which changes no rate worth naming. It is a float32 number, so that comparing in float32 decides alike.

    Args:
        threshold: what `choose_thresholds` chose; an infinite one and NaN come back as they are.
        scores: that it was chosen on, shape ``(N,)``.

    Example:
        >>> scores = np.array([-1.0, 0.0, 2.0])
        >>> round(with_room(2.0, scores), 4), with_room(2.0, np.array([np.nextafter(2, 0), 2.0]))
        (1.9988, 2.0)
    """
    scores = np.asarray(scores, dtype=float)
    below = scores[scores < threshold]
    if not np.isfinite(threshold) or not len(scores):
        return float(threshold)
    next_lower = float(below.max()) if len(below) else -np.inf
    room = min((threshold - next_lower) / 2, _ROOM * float(scores.std()))
    lowered = float(np.float32(threshold - room))
    return lowered if next_lower < lowered <= threshold else float(threshold)
