"""What all formats share: images of whole numbers through a table of at most 65,536 entries, and turning upright."""

from __future__ import annotations

import cv2
import numpy as np

from monai_simclr.data.radiograph import RadiographError

PERCENTILES = (0.5, 99.5)
"""Black and white where a file does not define them: one pixel in two hundred is clipped at each end."""

_BLOCK = 2**20  # pixels at a time: NumPy converts every index to 8 bytes
_TURNS = {"transposed": np.transpose, "flipped": np.flipud, "mirrored": np.fliplr}


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
    """Count the pixels of every bit pattern, int64.

    Example:
        >>> histogram(np.array([[3, -1], [3, 0]], np.int8))[[0, 3, 255]].tolist()
        [1, 2, 1]
    """
    flat = _unsigned(stored)
    counts = np.zeros(256**stored.itemsize, dtype=np.int64)
    for start in range(0, flat.size, _BLOCK):
        counts += np.bincount(flat[start : start + _BLOCK], minlength=counts.size)
    return counts


def look_up(table: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Map an image of integers of 1 or 2 bytes through a table by bit pattern; C-contiguous, of the table's type.

    Example:
        >>> look_up(np.linspace(0, 1, 256, dtype=np.float32), np.array([[0, 255]], np.uint8)).tolist()
        [[0.0, 1.0]]
    """
    flat = _unsigned(stored)
    if stored.itemsize == 1:  # four times as fast
        return cv2.LUT(flat, table).reshape(stored.shape)
    result = np.empty(flat.size, dtype=table.dtype)
    for start in range(0, flat.size, _BLOCK):
        np.take(table, flat[start : start + _BLOCK], out=result[start : start + _BLOCK], mode="clip")
    return result.reshape(stored.shape)


def percentile_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return `PERCENTILES` of the pixels, interpolated as `numpy.percentile` does.

    Where both are the same, as in an image that is nearly all background, the smallest and the largest value.

    Args:
        values: float64, the value of each bit pattern, in any order.
        counts: pixels of each.

    Example:
        >>> percentile_range(np.arange(256.0), np.ones(256, int)) == tuple(np.percentile(np.arange(256), (0.5, 99.5)))
        True
    """
    order = np.argsort(values[counts > 0], kind="stable")
    present, until = values[counts > 0][order], np.cumsum(counts[counts > 0][order])
    ends = []
    for share in PERCENTILES:
        position = share / 100 * (until[-1] - 1)
        below = int(position)
        places = np.searchsorted(until, (below, min(below + 1, until[-1] - 1)), side="right")
        first, second = present[places]
        ends.append(float(first + (second - first) * (position - below)))
    return (ends[0], ends[1]) if ends[1] > ends[0] else (float(present[0]), float(present[-1]))


def spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map `low` to 0 and `high` to 1, and clip; a threshold where they are the same.

    Example:
        >>> spread(np.array([0.0, 5.0, 20.0]), 0, 10).tolist()
        [0.0, 0.5, 1.0]
    """
    if high <= low:
        return (values > low).astype(np.float64)
    return np.clip((values - low) / (high - low), 0, 1)


def turn(image: np.ndarray, orientation: str) -> np.ndarray:
    """Apply some of "transposed", "flipped" (upside down) and "mirrored" (left to right), in the order given.

    Returns:
        A view, ``(H, W)``.

    Example:
        >>> turn(np.array([[1, 2], [3, 4]]), "transposed mirrored").tolist()
        [[3, 1], [4, 2]]
    """
    for step in orientation.split():
        image = _TURNS[step](image)
    return image


def _unsigned(stored: np.ndarray) -> np.ndarray:
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native).view(f"u{stored.itemsize}").ravel()
