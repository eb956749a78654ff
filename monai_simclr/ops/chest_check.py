"""Does an image show a chest from the front, upright and whole? A linear classifier on the lung cascade's features.

The cascade's own confidence says how well a box fits; it passes a fifth of the pictures of a third of a chest. This
one takes the same features twice, of the whole image and of the cascade's box, and was fitted to tell real chests from
the same chests turned, inverted and cropped, and from noise, patterns, text and drawn bones.

The numbers in ``chest_check.npz`` come from ``benchmarks/chest_fit.py``; no pixel of a patient is in them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import BinaryIO, NamedTuple

import numpy as np
from torch import Tensor

from monai_simclr.ops.lung_cascade import WHOLE, LungCascade, features, look, reduced
from monai_simclr.ops.lungs import MIN_FIT, to_planes


@dataclass(frozen=True)
class ChestCheck:
    """Weights of the features, float32 ``(2 * N_FEATURES,)``, and a bias that puts the threshold at 0."""

    weights: np.ndarray
    bias: float

    def score(self, plane: np.ndarray) -> float:
        """Log-odds, relative to the threshold, that a plane, float32 ``(H, W)``, shows an upright chest.

        -inf where there is no contrast, and where the cascade has no confidence (`MIN_FIT`).
        """
        chest = seen(plane)
        if chest is None or chest.fit < MIN_FIT:
            return -math.inf
        return float(chest.features @ self.weights + self.bias)

    @property
    def checksum(self) -> str:
        """SHA-256 of the numbers: rows made with other numbers are made again."""
        return hashlib.sha256(self.weights.tobytes() + np.float64(self.bias).tobytes()).hexdigest()

    def save(self, file: BinaryIO) -> None:
        """Write all numbers to an ``.npz`` file."""
        np.savez_compressed(file, **vars(self))

    @classmethod
    @lru_cache(maxsize=1)
    def shipped(cls) -> ChestCheck:
        """The classifier that comes with the package, read once."""
        with (files("monai_simclr.ops") / "chest_check.npz").open("rb") as file, np.load(file) as numbers:
            return cls(numbers["weights"], float(numbers["bias"]))


class Seen(NamedTuple):
    """Features of the whole image and of the cascade's box, and the probable overlap of that box with the lungs."""

    features: np.ndarray
    fit: float


def seen(plane: np.ndarray) -> Seen | None:
    """Features of a plane, float32 ``(H, W)``, bright is dense, any size and unit; None for one gray or NaN."""
    if not np.isfinite(plane).all() or plane.min() == plane.max():
        return None
    small, cascade = reduced(plane), LungCascade.shipped()
    box, fit, whole = cascade.follow(small)
    if cascade.margins[0] != 0:  # ours sees the whole image without a margin first, too
        whole = features(look(small, WHOLE, margin=0.0))
    return Seen(np.concatenate([whole, features(look(small, box, margin=0.2))]), fit)


def chest_scores(images: Tensor) -> np.ndarray:
    """Score every image for showing a chest from the front, upright, whole, and not inverted.

    It is meant to stop what no decision should be made on: turned, inverted or cropped radiographs, other parts of the
    body, noise, photographs. A mirror image passes, and so may a lateral view; docs/concepts/abstention.md has the
    rates. Image i of a batch gets what it gets alone. Works on the CPU, 1 ms per image.

    Args:
        images: see `locate_lungs`.

    Returns:
        float64, shape ``(B,)``: 0 or more for a chest; ``-inf`` where the lung localizer has no confidence.

    Raises:
        ValueError: see `locate_lungs`.

    Example:
        >>> import torch
        >>> chest_scores(torch.rand(1, 1, 64, 64)) >= 0
        array([False])
    """
    return np.array([ChestCheck.shipped().score(plane) for plane in to_planes(images)], dtype=np.float64)
