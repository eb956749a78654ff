"""Spatial transforms that stay MONAI's, lazy and invertible: a mild rotation, and crops that keep the lungs."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import Crop
from monai.transforms.spatial.array import RandRotate
from monai.transforms.transform import Randomizable
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_simclr import ops
from monai_simclr.transforms.base import check_prob, check_range
from monai_simclr.transforms.crops import draw_crops

__all__ = ["LungCrop", "LungSource", "RandLungPreservingCrop", "RandMildRotate"]

LungSource = Literal["prior", "located"]
"""Where the lungs are taken to be: `ops.PRIOR_LUNG_BOX`, or what `ops.locate_lungs` finds in the pixels."""


class RandMildRotate(RandRotate):
    """Rotate a radiograph a little, as a tilted patient or cassette would.

    A preset of `monai.transforms.RandRotate`: lazy and invertible as that is, the size stays, and the corners repeat
    the border instead of turning black. It never turns a chest so far that no radiographer would accept it.

    Args:
        degrees: largest rotation to either side, at most 45.
        prob: probability that an image is rotated.
        lazy: whether to only note the rotation, for MONAI's lazy resampling.

    Raises:
        ValueError: if `degrees` or `prob` is out of its range.

    Example:
        >>> RandMildRotate(degrees=10, prob=1.0)(torch.rand(1, 32, 32)).shape
        torch.Size([1, 32, 32])
    """

    def __init__(self, degrees: float = 10.0, prob: float = 0.5, lazy: bool = False) -> None:
        if not 0 <= degrees <= 45:
            raise ValueError(f"degrees must be in [0, 45] for a mild rotation, got {degrees}")
        super().__init__(range_x=math.radians(degrees), prob=check_prob("prob", prob), padding_mode="border", lazy=lazy)
        self.degrees = degrees


class LungCrop(Crop):
    """Crop to the lungs with a margin, which takes away much of what tells hospitals apart.

    Args:
        margin: what is added on each side, as a share of the lungs' box; effusions and the heart lie at its border.
        lungs: "located" looks for them in the pixels, "prior" takes the usual place.
        lazy: whether to only note the crop, for MONAI's lazy resampling.

    Note:
        arXiv 2603.05157 (2026): cropping to the lungs reduced shortcut learning and kept the diagnostic performance.

    Example:
        >>> LungCrop(margin=0.0, lungs="prior")(torch.rand(1, 100, 100)).shape
        torch.Size([1, 76, 84])
    """

    def __init__(self, margin: float = 0.08, lungs: LungSource = "located", lazy: bool = False) -> None:
        super().__init__(lazy)
        if not 0 <= margin <= 1:
            raise ValueError(f"margin must be in [0, 1], got {margin}")
        self.margin, self.lungs = margin, _check_source(lungs)

    @property
    def requires_current_data(self) -> bool:
        """Whether pixels are read, so that MONAI applies what is pending first."""
        return self.lungs == "located"

    def __call__(self, img: NdarrayOrTensor, lazy: bool | None = None) -> Tensor:  # type: ignore[override]
        tensor = convert_to_tensor(img, track_meta=get_track_meta())
        box = _lung_box(tensor, self.lungs)
        return super().__call__(tensor, _slices(ops.widened(box, self.margin), _spatial(tensor)), lazy)


class RandLungPreservingCrop(Randomizable, Crop):
    """Crop at random, as another collimation would, and never lose the lungs.

    Of `max_tries` drawn crops the first that keeps enough of the lungs is taken; if none does, the first one grows
    until it holds them all. No crop below the bound is ever returned. Where MONAI tracks metadata, the share that was
    kept is in ``meta["lung_coverage"]``.

    Args:
        scale: lowest and highest area of the crop, as a share of the image's.
        min_lung_coverage: share of the area of the lungs' box that the crop keeps at least.
        aspect: lowest and highest ratio of the crop's width to its height, relative to the image's.
        lungs: "prior" takes the usual place of the lungs, "located" looks for them in the pixels.
        max_tries: how many crops are drawn.
        lazy: whether to only note the crop, for MONAI's lazy resampling.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> crop = RandLungPreservingCrop(scale=(0.1, 0.2), min_lung_coverage=0.9).set_random_state(0)
        >>> crop(torch.rand(1, 100, 100)).meta["lung_coverage"] >= 0.9
        True
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.3, 1.0),
        min_lung_coverage: float = 0.8,
        aspect: tuple[float, float] = (0.75, 4 / 3),
        lungs: LungSource = "prior",
        max_tries: int = 20,
        lazy: bool = False,
    ) -> None:
        Crop.__init__(self, lazy)
        if max_tries < 1:
            raise ValueError(f"max_tries must be at least 1, got {max_tries}")
        self.scale = check_range("scale", scale, 1e-3, 1.0)
        self.min_lung_coverage = check_prob("min_lung_coverage", min_lung_coverage)
        self.aspect = check_range("aspect", aspect, 0.1, 10.0)
        self.lungs, self.max_tries = _check_source(lungs), max_tries
        self.slices: tuple[slice, ...] | None = None
        self.lung_coverage = math.nan

    @property
    def requires_current_data(self) -> bool:
        """Whether pixels are read, so that MONAI applies what is pending first."""
        return self.lungs == "located"

    def randomize(self, data: Any) -> None:
        """Draw the crop for an image, shape ``(C, H, W)``."""
        tensor = convert_to_tensor(data, track_meta=get_track_meta())
        lungs = _lung_box(tensor, self.lungs)
        box = draw_crops(self.R, lungs[None], self.scale, self.aspect, self.min_lung_coverage, self.max_tries)[0]
        height, width = _spatial(tensor)
        self.slices = _slices(box, (height, width))
        rows, columns = self.slices
        pixels = np.array([columns.start, rows.start, columns.stop, rows.stop])
        self.lung_coverage = float(ops.coverage(pixels, lungs * np.array([width, height, width, height])))

    def __call__(  # type: ignore[override]
        self, img: NdarrayOrTensor, randomize: bool = True, lazy: bool | None = None
    ) -> Tensor:
        if randomize:
            self.randomize(img)
        if self.slices is None:
            raise RuntimeError("RandLungPreservingCrop has drawn no crop; call it with randomize=True first")
        out = super().__call__(convert_to_tensor(img, track_meta=get_track_meta()), self.slices, lazy)
        if isinstance(out, MetaTensor):
            out.meta["lung_coverage"] = self.lung_coverage
        return out


def _check_source(lungs: LungSource) -> LungSource:
    if lungs not in ("prior", "located"):
        raise ValueError(f"lungs must be 'prior' or 'located', got {lungs!r}")
    return lungs


def _spatial(image: Tensor) -> tuple[int, int]:
    shape = image.peek_pending_shape() if isinstance(image, MetaTensor) else image.shape[1:]
    if len(shape) != 2:
        raise ValueError(f"a radiograph has shape (C, H, W), got {tuple(image.shape)}")
    return int(shape[0]), int(shape[1])


def _lung_box(image: Tensor, lungs: LungSource) -> np.ndarray:
    if lungs == "prior":
        return np.array(ops.PRIOR_LUNG_BOX)
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    return ops.locate_lungs(plain[None].to(torch.float32)).boxes[0]


def _slices(box: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Whole pixels that hold a box, never less than the box."""
    (height, width), (left, top, right, bottom) = shape, (float(edge) for edge in box)
    rows = slice(max(math.floor(top * height), 0), min(math.ceil(bottom * height), height))
    return rows, slice(max(math.floor(left * width), 0), min(math.ceil(right * width), width))
