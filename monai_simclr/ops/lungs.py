"""Where the lungs are: the interface of a localizer, the built-in one, the prior box, and arithmetic of boxes."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from monai_simclr.ops.lung_cascade import LungCascade

PRIOR_LUNG_BOX: tuple[float, float, float, float] = (0.086, 0.098, 0.915, 0.845)
"""Mean box of both lungs: left, top, right, bottom in shares of the image, over 213 masked radiographs."""

MIN_FIT = 0.5
"""Below this probable overlap the built-in localizer gives the prior box: 98 of 100 pictures without an upright chest
lie below, 99.6 of 100 NIH radiographs above (docs/concepts/lungs.md)."""


class LocatedLungs(NamedTuple):
    """Where the lungs of B images are.

    Attributes:
        boxes: float64, shape ``(B, 4)``: left, top, right, bottom of both lungs together, in shares of the image.
        confidence: float64, shape ``(B,)``, in [0, 1]; 0 means that nothing was found and that the box is a guess.
        masks: bool, shape ``(B, 1, H, W)``, True in the lungs, from a localizer that segments.
    """

    boxes: np.ndarray
    confidence: np.ndarray
    masks: Tensor | None = None


@runtime_checkable
class LungLocalizer(Protocol):
    """Anything that finds lungs: a function like `locate_lungs`, or an object around a segmentation network.

    Example:
        >>> class Middle:
        ...     def __call__(self, images):
        ...         return LocatedLungs(np.tile([0.2, 0.2, 0.8, 0.8], (len(images), 1)), np.ones(len(images)))
        >>> isinstance(Middle(), LungLocalizer), isinstance(locate_lungs, LungLocalizer)
        (True, True)
    """

    def __call__(self, images: Tensor) -> LocatedLungs:
        """Find the lungs in a batch, shape ``(B, C, H, W)``, bright is dense, without writing to it."""
        ...


def locate_lungs(images: Tensor) -> LocatedLungs:
    """Find the box of both lungs in frontal radiographs, with the cascade of `ops.lung_cascade`.

    It works on gradients and ranks of gray, so that unit, exposure and window do not matter. Where it has no confidence
    (a turned image, no chest, both lungs white, one gray, NaN; a lateral view may pass), the answer is
    `PRIOR_LUNG_BOX` with confidence 0. Image i of a batch gets what it gets alone. Works on the CPU, 1 ms per image.

    Args:
        images: batch, shape ``(B, C, H, W)``, bright is dense, any real dtype and unit; only the first channel counts.

    Returns:
        Tight boxes, and as confidence their probable overlap (IoU) with the lungs' box. No masks. Half of the edges
        lie a little inside the lungs: widen a box (`widened`) before cropping to it.

    Raises:
        ValueError: if `images` has another rank or no pixels.

    Example:
        >>> locate_lungs(torch.zeros(1, 1, 64, 64)).confidence
        array([0.])
    """
    planes = to_planes(images)
    boxes, confidence = np.tile(PRIOR_LUNG_BOX, (len(planes), 1)), np.zeros(len(planes))
    for i, plane in enumerate(planes):
        if np.isfinite(plane).all() and plane.min() < plane.max():
            box, fit = LungCascade.shipped().locate(plane)
            if fit >= MIN_FIT:
                boxes[i], confidence[i] = box, fit
    return LocatedLungs(boxes, confidence)


def to_planes(images: Tensor) -> np.ndarray:
    """The first channels of a batch ``(B, C, H, W)`` as float32 ``(B, H, W)`` on the CPU; refuses any other rank."""
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images must have shape (B, C, H, W), none of C, H, W 0, got {tuple(images.shape)}")
    return images[:, 0].detach().to("cpu", torch.float32).numpy()


def boxes_of_masks(masks: np.ndarray) -> np.ndarray:
    """Smallest boxes around what is marked in masks ``(..., H, W)``, as float64 ``(..., 4)``; NaN for an empty mask.

    Marked is what is not 0 in masks of integers or bool, and above 0.5 in those of floating point, which may be
    probabilities; NaN is not marked.

    Example:
        >>> mask = np.zeros((4, 8))
        >>> mask[1:3, 2:8] = 1
        >>> boxes_of_masks(mask).tolist()  # left, top, right, bottom in shares of the image
        [0.25, 0.25, 1.0, 0.75]
    """
    masks = np.asarray(masks)
    if np.issubdtype(masks.dtype, np.floating):
        masks = masks > 0.5
    marked = masks != 0
    lines = marked.any(-2), marked.any(-1)  # which columns are marked, which rows
    first = [line.argmax(-1) / line.shape[-1] for line in lines]
    last = [1 - line[..., ::-1].argmax(-1) / line.shape[-1] for line in lines]
    return np.where(marked.any((-2, -1))[..., None], np.stack([*first, *last], axis=-1), np.nan)


def widened(boxes: np.ndarray, margin: float) -> np.ndarray:
    """Boxes with a margin on each side, a share of their own width or height, cut at the image.

    Example:
        >>> widened(np.array([0.2, 0.2, 0.7, 0.95]), 0.2).round(3).tolist()
        [0.1, 0.05, 0.8, 1.0]
    """
    added = margin * (boxes[..., 2:] - boxes[..., :2])
    return np.concatenate([boxes[..., :2] - added, boxes[..., 2:] + added], axis=-1).clip(0, 1)


def coverage(boxes: np.ndarray, lung_boxes: np.ndarray) -> np.ndarray:
    """Share of the area of lung boxes that boxes keep; both ``(..., 4)`` in one unit, lung boxes of some area.

    Example:
        >>> float(coverage(np.array([0.0, 0.0, 0.5, 1.0]), np.array([0.25, 0.25, 0.75, 0.75])))
        0.5
    """
    inner = np.minimum(boxes[..., 2:], lung_boxes[..., 2:]) - np.maximum(boxes[..., :2], lung_boxes[..., :2])
    inner = inner.clip(min=0)
    sides = lung_boxes[..., 2:] - lung_boxes[..., :2]
    return inner[..., 0] * inner[..., 1] / (sides[..., 0] * sides[..., 1])
