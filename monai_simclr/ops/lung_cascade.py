"""A cascade of ridge regressions that moves a box onto the lungs: what `locate_lungs` runs.

The first stage looks at the whole image, each later one at the last box with a margin. A stage turns gradients and
ranks of gray into the move of four edges, by one matrix: cascaded pose regression (Dollar et al., CVPR 2010),
supervised descent (Xiong and De la Torre, CVPR 2013).

The numbers in ``lung_cascade.npz`` come from ``benchmarks/lungs_fit.py``; no pixel of a patient is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import BinaryIO

import cv2
import numpy as np

_REDUCED = 128
_SIDE, _CELLS, _ORIENTATIONS, _GRAYS = 64, 8, 8, 16
WHOLE = np.array([0.0, 0.0, 1.0, 1.0])
"""The box of the whole image."""
N_FEATURES = _CELLS * _CELLS * _ORIENTATIONS + _GRAYS * _GRAYS
"""How many `features` there are: 8 orientations in 8 x 8 cells, and 16 x 16 ranks of gray."""

_CELL_OF_PIXEL = np.arange(_SIDE) * _CELLS // _SIDE
_FIRST_BIN = (_CELL_OF_PIXEL[:, None] * _CELLS + _CELL_OF_PIXEL) * _ORIENTATIONS


@dataclass(frozen=True)
class LungCascade:
    """The regressions of the box, one per stage, and the one that predicts how well the last box but one fits.

    Attributes:
        margins: shape ``(stages,)``: what each stage sees around its box, as a share of the box's sides.
        weights: float32, shape ``(stages, N_FEATURES, 4)``: features to the move of left, top, right, bottom.
        biases: float32, shape ``(stages, 4)``.
        fit_weights: float32, shape ``(N_FEATURES,)``: features of the last stage to the overlap (IoU) with the lungs.
        fit_bias: of that overlap.
    """

    margins: np.ndarray
    weights: np.ndarray
    biases: np.ndarray
    fit_weights: np.ndarray
    fit_bias: float

    def locate(self, plane: np.ndarray) -> tuple[np.ndarray, float]:
        """Find the lungs' box in a plane, float32 ``(H, W)``, bright is dense, any size and unit, finite.

        Returns:
            The box, float64 ``(4,)``: left, top, right, bottom in shares of the image, in [0, 1]; and its probable
            overlap (IoU) with the lungs before the last correction, in [0, 1].
        """
        return self.follow(reduced(plane))[:2]

    def follow(self, plane: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        """`locate` in a plane that is `reduced`; and the features of its first stage, which sees the whole image."""
        box, first = WHOLE, features(look(plane, WHOLE, float(self.margins[0])))
        seen = first
        for stage, (margin, weights, bias) in enumerate(zip(self.margins, self.weights, self.biases, strict=True)):
            if not _is_plausible(box):
                return box.clip(0, 1), 0.0, first
            seen = features(look(plane, box, float(margin))) if stage else first
            width, height = box[2:] - box[:2]
            box = box + (seen @ weights + bias).astype(np.float64) * [width, height, width, height]
        fit = float(np.clip(seen @ self.fit_weights + self.fit_bias, 0, 1))
        return box.clip(0, 1), fit if _is_plausible(box) else 0.0, first

    def save(self, file: BinaryIO) -> None:
        """Write all numbers to an ``.npz`` file."""
        np.savez_compressed(file, **vars(self))

    @classmethod
    @lru_cache(maxsize=1)
    def shipped(cls) -> LungCascade:
        """The cascade that comes with the package, read once."""
        with (files("monai_simclr.ops") / "lung_cascade.npz").open("rb") as file, np.load(file) as numbers:
            arrays = {name: numbers[name] for name in numbers.files}
        return cls(**{**arrays, "fit_bias": float(arrays["fit_bias"])})


def reduced(plane: np.ndarray) -> np.ndarray:
    """Bring an image, float32 ``(H, W)``, to the 128 x 128 pixels that the cascade works on, whatever its aspect."""
    how = cv2.INTER_AREA if min(plane.shape) >= _REDUCED else cv2.INTER_LINEAR
    return cv2.resize(plane, (_REDUCED, _REDUCED), interpolation=how)


def look(plane: np.ndarray, box: np.ndarray, margin: float) -> np.ndarray:
    """Cut a box with a margin (a share of its sides) out of an image and bring it to 64 x 64 pixels, float32.

    The border repeats outside the image, which has about 128 pixels a side, so that nothing is skipped.
    """
    height, width = plane.shape
    left, top, right, bottom = (float(edge) for edge in box)
    across, down = (right - left) * width, (bottom - top) * height
    step_x, step_y = across * (1 + 2 * margin) / _SIDE, down * (1 + 2 * margin) / _SIDE
    first_x = left * width - margin * across + (step_x - 1) / 2
    first_y = top * height - margin * down + (step_y - 1) / 2
    matrix = np.array([[step_x, 0.0, first_x], [0.0, step_y, first_y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(plane, matrix, (_SIDE, _SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def features(patch: np.ndarray) -> np.ndarray:
    """Describe a patch by its gradients and its ranks of gray, neither of which changes with exposure or unit.

    Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), with the sign of the gradient kept because lungs
    are dark, divided by their mean, square root taken; then the ranks of a 16 x 16 reduction, from -1 to 1: a patch,
    float32 ``(64, 64)``, becomes float32 ``(N_FEATURES,)``.

    Example:
        >>> ramp = np.tile(np.arange(64, dtype=np.float32), (64, 1))
        >>> bool(np.allclose(features(ramp), features(300 * ramp + 7), atol=1e-5))
        True
    """
    smooth = cv2.GaussianBlur(patch, (0, 0), 0.7)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE)
    size, angle = cv2.cartToPolar(across, down)
    place = angle * (_ORIENTATIONS / (2 * np.pi))
    lower = np.floor(place)
    share, lower = place - lower, lower.astype(np.int64) & (_ORIENTATIONS - 1)
    bins = np.concatenate([_FIRST_BIN + lower, _FIRST_BIN + ((lower + 1) & (_ORIENTATIONS - 1))]).ravel()
    amounts = np.concatenate([(1 - share) * size, share * size]).ravel()
    histogram = np.bincount(bins, amounts, _CELLS * _CELLS * _ORIENTATIONS)
    mean = histogram.mean()
    gray = cv2.resize(smooth, (_GRAYS, _GRAYS), interpolation=cv2.INTER_AREA).ravel()
    # equal values share their mean rank, so that padding has no order
    ordered = np.sort(gray)
    ranks = (np.searchsorted(ordered, gray, "left") + np.searchsorted(ordered, gray, "right")) / len(gray) - 1
    return np.concatenate([np.sqrt(histogram / (mean if mean > 0 else 1.0)), ranks]).astype(np.float32)


def _is_plausible(box: np.ndarray) -> bool:
    sides = box[2:] - box[:2]
    return bool((sides > 0.1).all() and (box[:2] < 0.9).all() and (box[2:] > 0.1).all())
