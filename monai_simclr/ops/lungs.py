"""Where the lungs are: a prior box, a classical localizer, and how much of the lungs a crop keeps."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

__all__ = ["PRIOR_LUNG_BOX", "LocatedLungs", "coverage", "locate_lungs", "widened"]

PRIOR_LUNG_BOX: tuple[float, float, float, float] = (0.086, 0.098, 0.915, 0.845)
"""Mean box of both lungs: left, top, right, bottom in shares of the image, over 213 masked radiographs."""

_SIDE = 128
_THRESHOLDS = np.linspace(0.15, 0.65, 11)
_TRUST = 0.6
_LEAST_MATCH = 0.3


class LocatedLungs(NamedTuple):
    """What `locate_lungs` gives for B images."""

    boxes: np.ndarray
    """float64, shape ``(B, 4)``: left, top, right, bottom in shares of the image."""
    confidence: np.ndarray
    """float64, shape ``(B,)``, in [0, 1]: how well both lungs match their usual place; 0 for the prior box."""


def locate_lungs(images: Tensor) -> LocatedLungs:
    """Find the box of both lungs: dark regions at several thresholds, one in each half, pulled toward the prior box.

    A region counts if it does not touch the sides or the bottom of the image (air outside the patient does) and
    overlaps the usual place of that lung. The box of the best two is pulled 40 % toward `PRIOR_LUNG_BOX`; where a lung
    is not found (white-out, lateral view, pneumonectomy) the answer is the prior box itself.

    Args:
        images: batch, shape ``(B, C, H, W)``, bright is dense, any scale; the first channel is looked at.

    Returns:
        Boxes and confidence. Widen a box by 8 % (`widened`) before cropping to it.

    Raises:
        ValueError: if `images` has another rank.

    Example:
        >>> locate_lungs(torch.zeros(1, 1, 64, 64)).confidence
        array([0.])
    """
    if images.ndim != 4:
        raise ValueError(f"images must have shape (B, C, H, W), got {tuple(images.shape)}")
    found = [_locate(plane) for plane in images[:, 0].to(torch.float32).cpu().numpy()]
    boxes = np.array([box for box, _ in found], dtype=np.float64).reshape(-1, 4)
    return LocatedLungs(boxes, np.array([match for _, match in found], dtype=np.float64))


def widened(boxes: np.ndarray, margin: float) -> np.ndarray:
    """Boxes with a margin on each side, a share of their own width or height, cut at the image.

    Example:
        >>> widened(np.array([0.2, 0.2, 0.7, 0.95]), 0.2).round(3).tolist()
        [0.1, 0.05, 0.8, 1.0]
    """
    more = margin * (boxes[..., 2:] - boxes[..., :2])
    return np.concatenate([boxes[..., :2] - more, boxes[..., 2:] + more], axis=-1).clip(0, 1)


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


def _locate(plane: np.ndarray) -> tuple[np.ndarray, float]:
    prior = np.array(PRIOR_LUNG_BOX)
    small = cv2.GaussianBlur(cv2.resize(plane, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), (0, 0), 1.5)
    low, high = np.percentile(small, [2, 98])
    if not high > low:
        return prior, 0.0
    candidates = np.concatenate([_dark_regions((small - low) / (high - low) < level) for level in _THRESHOLDS])
    middle = (prior[0] + prior[2]) / 2
    lungs = []
    for place in (prior[[0, 1, 2, 3]] * [1, 1, 0, 1] + [0, 0, middle, 0], prior * [0, 1, 1, 1] + [middle, 0, 0, 0]):
        matches = _overlap(candidates, place)
        if not len(matches) or matches.max() < _LEAST_MATCH:
            return prior, 0.0
        lungs.append((candidates[matches.argmax()], float(matches.max())))
    (right, right_match), (left, left_match) = lungs
    both = np.concatenate([np.minimum(right[:2], left[:2]), np.maximum(right[2:], left[2:])])
    return _TRUST * both + (1 - _TRUST) * prior, min(right_match, left_match)


def _dark_regions(mask: np.ndarray) -> np.ndarray:
    """Boxes, shape (n, 4), of the connected regions that are as large as a lung and not air outside the patient."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    left, top, width, height, area = stats[1:].T
    inside = (left > 0) & (left + width < _SIDE) & (top + height < _SIDE)
    large = (area > 0.02 * _SIDE**2) & (area < 0.35 * _SIDE**2)
    chosen = inside & large
    return np.stack([left, top, left + width, top + height], axis=1)[chosen] / _SIDE


def _overlap(boxes: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) with one box."""
    inner = np.maximum(np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2]), 0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (place[2:] - place[:2]).prod()
    return inner / (areas - inner)
