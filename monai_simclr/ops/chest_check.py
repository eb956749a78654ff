"""Does an image show a chest from the front, upright and whole? One linear rule on what the lung cascade sees.

The cascade's own confidence says how well a box fits; it passes a fifth of the pictures of a third of a chest. This
rule looks at the same features twice, in the whole image and where the cascade ends, and was fitted to tell real chests
from the same chests turned, inverted and cut, and from noise, patterns, text and drawn bones.

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

from monai_simclr.ops.lung_cascade import LungCascade, features, look, reduced
from monai_simclr.ops.lungs import LEAST_FIT, to_planes

_WHOLE, _MARGIN = np.array([0.0, 0.0, 1.0, 1.0]), 0.2


@dataclass(frozen=True)
class ChestCheck:
    """Weights of the features, and a bias that puts the threshold at 0."""

    weights: np.ndarray
    """float32, shape ``(2 * N_FEATURES,)``: of the whole image, then of the lungs' place."""
    bias: float

    def score(self, plane: np.ndarray) -> float:
        """Log-odds above the threshold that a plane, float32 ``(H, W)``, shows an upright chest.

        It is -inf where there is nothing to see, and where the cascade does not trust itself (`LEAST_FIT`).
        """
        found = seen(plane)
        if found is None or found.fit < LEAST_FIT:
            return -math.inf
        return float(found.features @ self.weights + self.bias)

    @property
    def checksum(self) -> str:
        """SHA-256 of the numbers: rows that were made with others are made again."""
        return hashlib.sha256(self.weights.tobytes() + np.float64(self.bias).tobytes()).hexdigest()

    def save(self, file: BinaryIO) -> None:
        """Write all numbers to an ``.npz`` file."""
        np.savez_compressed(file, **vars(self))

    @classmethod
    @lru_cache(maxsize=1)
    def shipped(cls) -> ChestCheck:
        """The rule that comes with the package, read once."""
        with (files("monai_simclr.ops") / "chest_check.npz").open("rb") as file, np.load(file) as numbers:
            return cls(numbers["weights"], float(numbers["bias"]))


class Seen(NamedTuple):
    """What the rule judges by."""

    features: np.ndarray
    """float32, shape ``(2 * N_FEATURES,)``: of the whole image, then of the place where the cascade finds the lungs."""
    fit: float
    """How well the cascade thinks that place fits, in [0, 1]."""


def seen(plane: np.ndarray) -> Seen | None:
    """Look at a plane, float32 ``(H, W)``, bright is dense, any size and unit; None for one gray or NaN."""
    if not np.isfinite(plane).all() or plane.min() == plane.max():
        return None
    box, fit = LungCascade.shipped().locate(plane)
    small = reduced(plane)
    return Seen(np.concatenate([features(look(small, _WHOLE, 0.0)), features(look(small, box, _MARGIN))]), fit)


def chest_scores(images: Tensor) -> np.ndarray:
    """Say of every image whether it shows a chest from the front, upright, whole, and not inverted.

    It is made to stop what should not be decided on: turned, upside down, inverted or cut radiographs, other parts of
    the body, noise, photographs. A mirror image passes, and so may a lateral view; docs/concepts/abstention.md has the
    rates. Image i of a batch gets what it gets alone. Works on the CPU, 1 ms an image.

    Args:
        images: batch, shape ``(B, C, H, W)``, bright is dense, any real dtype and unit; the first channel is looked at.

    Returns:
        float64, shape ``(B,)``: 0 or more for a chest; ``-inf`` where the lung localizer has no confidence.

    Raises:
        ValueError: if `images` has another rank or no pixels.

    Example:
        >>> import torch
        >>> chest_scores(torch.rand(1, 1, 64, 64)) >= 0
        array([False])
    """
    return np.array([ChestCheck.shipped().score(plane) for plane in to_planes(images)], dtype=np.float64)
