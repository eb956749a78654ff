"""Operating points: thresholds chosen on validation patients, applied to others as they are."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

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

    A threshold lies just below the lowest score that it calls: the same image in a batch of another size, on a GPU or
    in another runtime has a score that differs in the last digits, and must be called all the same. Thresholds are
    float32 numbers, so that comparing in float32 decides alike.

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
    false, true, at = roc_curve(labels, scores, drop_intermediate=False)
    chosen = [at[np.flatnonzero(1 - false >= wanted - 1e-12)[-1]] for wanted in (0.90, 0.95)]
    chosen.append(at[np.flatnonzero(true >= 0.90 - 1e-12)[0]])
    precision, recall, cuts = precision_recall_curve(labels, scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
    chosen.append(cuts[int(np.argmax(f1))])
    return np.array([_with_room(float(threshold), np.asarray(scores, dtype=float)) for threshold in chosen])


def _with_room(threshold: float, scores: np.ndarray) -> float:
    """A threshold that decides the same on `scores`, with room for rounding below the lowest score that it calls.

    It goes down by half of the way to the next lower score, at most by `_ROOM` standard deviations, which changes no
    rate worth naming; where two scores are neighbours in float32 there is no room.
    """
    if not np.isfinite(threshold):
        return threshold
    next_lower = float(np.max(scores, where=scores < threshold, initial=-np.inf))
    room = min((threshold - next_lower) / 2, _ROOM * float(scores.std()))
    lowered = float(np.float32(threshold - room))
    return lowered if next_lower < lowered <= threshold else threshold
