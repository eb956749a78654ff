"""Where a radiograph was exposed: inside the even borders that collimators and shutters leave."""

from __future__ import annotations

import numpy as np

_EVEN = 0.02  # of the gray range: what pixels of one border may differ by
_SHARE = 0.95  # of a line must be so; the rest may be a marker or dust
_LEAST = 0.25  # of a side; if less were left, it was no border


def exposed_field(image: np.ndarray) -> tuple[int, int, int, int]:
    """Find the rectangle inside borders of one gray, black or white or between.

    Lines are taken off each side as long as 95 % of their pixels are within 0.02 of the median of the outermost.
    A border that would leave less than a quarter of a side is none.

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
    for _ in range(3):  # a white border on one side can hide a black one on another until it is gone
        before = top, left, bottom, right
        first, last = _inside(image[top:bottom, left:right])
        top, bottom = top + first, top + last
        first, last = _inside(image[top:bottom, left:right].T)
        left, right = left + first, left + last
        if before == (top, left, bottom, right):
            break
    if bottom - top < _LEAST * image.shape[0] or right - left < _LEAST * image.shape[1]:
        return 0, 0, *image.shape
    return top, left, bottom - top, right - left


def _inside(lines: np.ndarray) -> tuple[int, int]:
    """The first line that is not border, and one after the last."""
    from_start, from_end = _border(lines), _border(lines[::-1])
    return (from_start, len(lines) - from_end) if from_start + from_end < len(lines) else (0, len(lines))


def _border(lines: np.ndarray) -> int:
    """Lines at the start that are border."""
    outermost = np.median(lines[0])
    for number, line in enumerate(lines):
        if (np.abs(line - outermost) <= _EVEN).mean() < _SHARE:
            return number
    return len(lines)
