"""Turning images upright by whole steps, and what EXIF says of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EXIF = {
    2: "mirrored",
    3: "flipped mirrored",
    4: "flipped",
    5: "transposed",
    6: "transposed mirrored",
    7: "transposed flipped mirrored",
    8: "transposed flipped",
}
"""What makes a picture upright, by its EXIF (and TIFF) Orientation, tag 274; 1 and others: nothing."""

_STEPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transposed": np.transpose,
    "flipped": np.flipud,
    "mirrored": np.fliplr,
}


def turned(image: np.ndarray, orientation: str) -> np.ndarray:
    """Do some of "transposed", "flipped" (upside down) and "mirrored" (left to right) to an image, one after another.

    Returns:
        a view, ``(H, W)``.

    Example:
        >>> turned(np.array([[1, 2], [3, 4]]), "transposed mirrored").tolist()
        [[3, 1], [4, 2]]
    """
    for step in orientation.split():
        image = _STEPS[step](image)
    return image
