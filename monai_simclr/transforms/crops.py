"""Random crops that keep the lungs: the one law behind the crop transform and the fused views."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from monai_simclr.ops.keyed import KeyedRandom
from monai_simclr.ops.lungs import coverage


def draw_crops(
    random: np.random.RandomState | KeyedRandom | np.ndarray,
    lung_boxes: np.ndarray,
    scale: tuple[float, float],
    aspect: tuple[float, float],
    min_coverage: float,
    max_tries: int = 10,
) -> np.ndarray:
    """Draw one crop for each lung box: the first of `max_tries` that keeps enough, or the first one, grown enough.

    Args:
        random: source of randomness, or uniform numbers of it, shape ``(n, 4 * max_tries)``; the same number of draws
            is taken whatever is accepted.
        lung_boxes: shape ``(n, 4)``: left, top, right, bottom in shares of the image.
        scale: lowest and highest area of a crop, as a share of the image's.
        aspect: lowest and highest ratio of width to height (both as shares), log-uniform.
        min_coverage: smallest share of the area of the lung box that a crop keeps.
        max_tries: how many crops are drawn for each box.

    Returns:
        Shape ``(n, 4)``: left, top, right, bottom in [0, 1]. Each keeps `min_coverage` of its lung box.

    Example:
        >>> lungs = np.array([[0.1, 0.1, 0.9, 0.9]])
        >>> box = draw_crops(np.random.RandomState(0), lungs, (0.5, 0.6), (1.0, 1.0), min_coverage=0.8)
        >>> bool(coverage(box, lungs)[0] >= 0.8)
        True
    """
    n = len(lung_boxes)
    u = random if isinstance(random, np.ndarray) else random.random_sample((n, 4 * max_tries))
    u = u.reshape(n, 4, max_tries).transpose(1, 0, 2)
    log_aspect = math.log(aspect[0]), math.log(aspect[1])
    if n == 1:  # plain numbers are several times as fast as arrays of one: a worker draws image by image
        left, top, right, bottom = lung_boxes[0].tolist()
        for numbers in u[:, 0].T.tolist():
            box = _edges(numbers, scale, log_aspect, math.exp, min)
            across = max(min(box[2], right) - max(box[0], left), 0.0)
            down = max(min(box[3], bottom) - max(box[1], top), 0.0)
            if across * down / ((right - left) * (bottom - top)) >= min_coverage:
                return np.array([box])
    tries = np.stack(_edges(u, scale, log_aspect, np.exp, np.minimum), axis=-1)
    enough = coverage(tries, lung_boxes[:, None]) >= min_coverage
    chosen = tries[np.arange(n), enough.argmax(1)]
    short = ~enough.any(1)
    if short.any():
        chosen[short] = _grow(chosen[short], lung_boxes[short], min_coverage)
    return chosen


def _edges(u: Any, scale: tuple[float, float], log_aspect: tuple[float, float], exp: Any, minimum: Any) -> tuple:
    """Edges of crops from four uniform numbers each, of plain numbers (`math.exp`, `min`) or of arrays."""
    root = (scale[0] + (scale[1] - scale[0]) * u[0]) ** 0.5
    ratio = exp(0.5 * (log_aspect[0] + (log_aspect[1] - log_aspect[0]) * u[1]))
    width, height = minimum(root * ratio, 1.0), minimum(root / ratio, 1.0)
    left, top = (1 - width) * u[2], (1 - height) * u[3]
    return left, top, left + width, top + height


def _grow(boxes: np.ndarray, lung_boxes: np.ndarray, min_coverage: float) -> np.ndarray:
    """Move the edges of crops toward those of the lungs' box, all by one share, as far as it takes and no further."""
    low, high = np.minimum(boxes[:, :2], lung_boxes[:, :2]), np.maximum(boxes[:, 2:], lung_boxes[:, 2:])
    whole = np.concatenate([low, high], axis=1)

    def toward(share: np.ndarray) -> np.ndarray:
        return np.where(share < 1, boxes + share * (whole - boxes), whole)  # at 1 exactly: the sum may round

    short, long = np.zeros((len(boxes), 1)), np.ones((len(boxes), 1))
    target = min(min_coverage + 1e-9, 1.0)  # so that rounding in later steps stays above the bound
    for _ in range(30):  # bisection: `long` always keeps enough
        share = (short + long) / 2
        enough = (coverage(toward(share), lung_boxes) >= target)[:, None]
        short, long = np.where(enough, short, share), np.where(enough, share, long)
    return toward(long)
