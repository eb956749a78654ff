"""Ways to find the lungs' box that learn nothing or next to nothing: what the cascade is held against."""

from __future__ import annotations

import cv2
import numpy as np

from monai_simclr.ops import PRIOR_LUNG_BOX

__all__ = ["Found", "otsu", "thresholds"]

Found = tuple[np.ndarray, bool]
"""A box (left, top, right, bottom in shares) and whether it was found; if not, the box is the prior one."""

_SIDE = 128
_LEVELS = np.linspace(0.15, 0.65, 11)
_TRUST, _LEAST_MATCH = 0.6, 0.3


def otsu(image: np.ndarray) -> Found:
    """Dark side of Otsu's threshold, then the two largest regions that do not touch the border."""
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    _, dark = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    boxes, areas = _regions(dark)
    if len(boxes) < 2:
        return np.array(PRIOR_LUNG_BOX), False
    two = boxes[np.argsort(areas)[-2:]]
    return np.concatenate([two[:, :2].min(0), two[:, 2:].max(0)]), True


def thresholds(image: np.ndarray) -> Found:
    """Dark regions at eleven thresholds, the best for each half by overlap with its usual place, drawn to the prior."""
    prior = np.array(PRIOR_LUNG_BOX)
    small = cv2.GaussianBlur(cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), (0, 0), 1.5)
    low, high = np.percentile(small, [2, 98])
    if not high > low:
        return prior, False
    scaled = (small.astype(np.float32) - low) / (high - low)
    candidates = np.concatenate([_regions((scaled < level).astype(np.uint8))[0] for level in _LEVELS])
    middle, lungs = (prior[0] + prior[2]) / 2, []
    for place in ([prior[0], prior[1], middle, prior[3]], [middle, prior[1], prior[2], prior[3]]):
        matches = _overlap(candidates, np.array(place))
        if not len(matches) or matches.max() < _LEAST_MATCH:
            return prior, False
        lungs.append(candidates[matches.argmax()])
    both = np.concatenate([np.minimum(*lungs)[:2], np.maximum(*lungs)[2:]])
    return _TRUST * both + (1 - _TRUST) * prior, True


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and areas of regions of a lung's size that touch neither sides nor bottom, as air around a patient does."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    left, top, width, height, area = stats[1:].T
    inside = (left > 0) & (left + width < _SIDE) & (top + height < _SIDE)
    chosen = inside & (area > 0.02 * _SIDE**2) & (area < 0.35 * _SIDE**2)
    return np.stack([left, top, left + width, top + height], axis=1)[chosen] / _SIDE, area[chosen]


def _overlap(boxes: np.ndarray, place: np.ndarray) -> np.ndarray:
    inner = np.maximum(np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2]), 0).prod(1)
    return inner / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (place[2:] - place[:2]).prod() - inner)
