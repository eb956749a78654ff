"""What all formats share: images of whole numbers through a table of at most 65,536 entries, and turning upright."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from monai_simclr.data.radiograph import RadiographError

PERCENTILES = (0.5, 99.5)
"""Black and white where a file does not define them: one pixel in two hundred is clipped at each end."""

_BLOCK = 2**20  # pixels at a time: NumPy converts every index to 8 bytes
_Turn = Callable[[np.ndarray], np.ndarray]
_TURNS: dict[str, _Turn] = {"transposed": np.transpose, "flipped": np.flipud, "mirrored": np.fliplr}


def check_contrast(stored: np.ndarray) -> None:
    """Refuse an image with one value, as a `RadiographError`."""
    if stored.min() == stored.max():
        raise RadiographError(f"has the value {stored.flat[0]} in every pixel; a radiograph has contrast")


def patterns(dtype: np.dtype) -> np.ndarray:
    """Return the value of every bit pattern of an integer type of 1 or 2 bytes, int64.

    Example:
        >>> patterns(np.dtype("int8"))[[0, 127, 128, 255]].tolist()
        [0, 127, -128, -1]
    """
    return np.arange(256**dtype.itemsize).astype(f"u{dtype.itemsize}").view(dtype.newbyteorder("=")).astype(np.int64)


def histogram(stored: np.ndarray) -> np.ndarray:
    """Count the pixels of every bit pattern, int64."""
    flat = _unsigned(stored)
    counts = np.zeros(256**stored.itemsize, dtype=np.int64)
    for start in range(0, flat.size, _BLOCK):
        counts += np.bincount(flat[start : start + _BLOCK], minlength=counts.size)
    return counts


def look_up(table: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Map an image of integers of 1 or 2 bytes through a table by bit pattern; C-contiguous, of the table's type."""
    flat = _unsigned(stored)
    if stored.itemsize == 1:  # four times as fast
        return cv2.LUT(flat, table).reshape(stored.shape)
    result = np.empty(flat.size, dtype=table.dtype)
    for start in range(0, flat.size, _BLOCK):
        np.take(table, flat[start : start + _BLOCK], out=result[start : start + _BLOCK], mode="clip")
    return result.reshape(stored.shape)


def _unsigned(stored: np.ndarray) -> np.ndarray:
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native).view(f"u{stored.itemsize}").ravel()


def percentile_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return `PERCENTILES` of the pixels as `numpy.percentile` does, from the value and the pixels of each bit pattern.

    Where both are the same, as in an image that is nearly all background, the smallest and the largest value.

    Example:
        >>> percentile_range(np.arange(256.0), np.ones(256, int)) == tuple(np.percentile(np.arange(256), (0.5, 99.5)))
        True
    """
    order = np.argsort(values, kind="stable")
    order = order[counts[order] > 0]
    present, last = values[order], np.cumsum(counts[order]) - 1
    places = np.stack([last - counts[order] + 1, last], 1).ravel()  # of each value among all pixels in order
    low, high = np.interp(np.array(PERCENTILES) / 100 * last[-1], places, np.repeat(present, 2)).tolist()
    return (low, high) if high > low else (float(present[0]), float(present[-1]))


def spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map `low` to 0 and `high` to 1, and clip; a threshold where they are the same."""
    if high <= low:
        return (values > low).astype(np.float64)
    return np.clip((values - low) / (high - low), 0, 1)


def describe_turn(transposed: bool, flipped: bool, mirrored: bool) -> str:
    """Return the steps for `turn`: "transposed", "flipped" (upside down), "mirrored" (left to right), in this order."""
    return " ".join(step for step, is_needed in zip(_TURNS, (transposed, flipped, mirrored), strict=True) if is_needed)


def turn(image: np.ndarray, orientation: str) -> np.ndarray:
    """Apply the steps of an orientation one after another; a view.

    Example:
        >>> turn(np.array([[1, 2], [3, 4]]), describe_turn(True, False, True)).tolist()
        [[3, 1], [4, 2]]
    """
    for step in orientation.split():
        image = _TURNS[step](image)
    return image
