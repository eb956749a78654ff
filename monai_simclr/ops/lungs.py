"""Where the lungs are: a prior box, and how much of it a crop keeps."""

from __future__ import annotations

import numpy as np

__all__ = ["PRIOR_LUNG_BOX", "coverage"]

PRIOR_LUNG_BOX: tuple[float, float, float, float] = (0.086, 0.098, 0.915, 0.845)
"""Mean box of both lungs: left, top, right, bottom in shares of the image, over 213 masked radiographs."""


def coverage(boxes: np.ndarray, lung_boxes: np.ndarray) -> np.ndarray:
    """Share of the area of a lung box that a box keeps.

    Args:
        boxes: shape ``(..., 4)``: left, top, right, bottom, in any unit.
        lung_boxes: shape ``(..., 4)`` that broadcasts with `boxes`, in the same unit, of an area greater than 0.

    Returns:
        Shape ``(...)``, in [0, 1].

    Example:
        >>> float(coverage(np.array([0.0, 0.0, 0.5, 1.0]), np.array([0.25, 0.25, 0.75, 0.75])))
        0.5
    """
    inner = np.minimum(boxes[..., 2:], lung_boxes[..., 2:]) - np.maximum(boxes[..., :2], lung_boxes[..., :2])
    inner = np.maximum(inner, 0)
    sides = lung_boxes[..., 2:] - lung_boxes[..., :2]
    return inner[..., 0] * inner[..., 1] / (sides[..., 0] * sides[..., 1])
