"""Where a radiograph was exposed: inside the uniform borders that collimators and shutters leave."""

from __future__ import annotations

import numpy as np

_MAX_SPREAD = 0.02  # of the gray range: what pixels of one border may differ by
_MIN_SHARE = 0.95  # of a line must be uniform; the rest may be a marker or dust
_MIN_SIDE = 0.25  # of a side; if less were left, it was not a border


def exposed_field(image: np.ndarray) -> tuple[int, int, int, int]:
    """Find the rectangle inside uniform borders, black or white or between.

    Lines are removed from each side as long as 95 % of their pixels are within 0.02 of the median of the outermost.
    A border that would leave less than a quarter of a side is not one.

    Args:
        image: float ``(H, W)`` in [0, 1].

    Returns:
        top, left, height and width in pixels; the whole image where there is no border.

    Example:
        >>> image = np.pad(np.random.default_rng(0).random((20, 30)), ((5, 0), (0, 9)), constant_values=1)
        >>> exposed_field(image)
        (5, 0, 20, 30)
    """
    top, left, bottom, right = 0, 0, *image.shape
    for _ in range(3):  # a white border on one side can hide a black one on another until it is removed
        before = top, left, bottom, right
        first, last = _inside(image[top:bottom, left:right])
        top, bottom = top + first, top + last
        first, last = _inside(image[top:bottom, left:right].T)
        left, right = left + first, left + last
        if before == (top, left, bottom, right):
            break
    if bottom - top < _MIN_SIDE * image.shape[0] or right - left < _MIN_SIDE * image.shape[1]:
        return 0, 0, *image.shape
    return top, left, bottom - top, right - left


def _inside(lines: np.ndarray) -> tuple[int, int]:
    """The first line that is not border, and one after the last."""
    borders = []
    for ordered in (lines, lines[::-1]):
        outermost = np.median(ordered[0])
        uniform = ((np.abs(line - outermost) <= _MAX_SPREAD).mean() >= _MIN_SHARE for line in ordered)
        borders.append(next((n for n, is_border in enumerate(uniform) if not is_border), len(lines)))
    return (borders[0], len(lines) - borders[1]) if sum(borders) < len(lines) else (0, len(lines))
