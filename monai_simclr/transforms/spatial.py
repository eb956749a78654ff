"""Spatial transforms on MONAI's, lazy and invertible: a mild rotation, and crops that keep the lungs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from monai.config import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import Crop
from monai.transforms.spatial.array import RandRotate
from monai.transforms.transform import Randomizable
from torch import Tensor

from monai_simclr import ops
from monai_simclr.transforms.base import check_number, check_range, plain_layout
from monai_simclr.transforms.crops import draw_crops
from monai_simclr.transforms.lung_source import FoundLungs, LungBoxMixin, LungSource, as_image, spatial_size


class RandMildRotate(RandRotate):
    """Rotate a radiograph a little, as a tilted patient or cassette would.

    A preset of `monai.transforms.RandRotate`: lazy and invertible as that is, the size stays, and the corners repeat
    the border instead of turning black.

    Args:
        degrees: largest rotation to either side, at most 45.
        prob: probability that an image is rotated.
        lazy: whether to leave the rotation pending, for MONAI's lazy resampling.

    Raises:
        ValueError: if `degrees` or `prob` is out of its range.

    Example:
        >>> import torch
        >>> RandMildRotate(degrees=10, prob=1.0)(torch.rand(1, 32, 32)).shape
        torch.Size([1, 32, 32])
    """

    def __init__(self, degrees: float = 10.0, prob: float = 0.5, lazy: bool = False) -> None:
        if not 0 <= degrees <= 45:
            raise ValueError(f"degrees must be in [0, 45] for a mild rotation, got {degrees}")
        super().__init__(
            range_x=math.radians(degrees), prob=check_number("prob", prob), padding_mode="border", lazy=lazy
        )
        self.degrees = degrees

    def __call__(self, img: Any, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """Rotate one image, shape ``(C, H, W)``; the arguments are those of MONAI's `RandRotate`."""
        shape = img.peek_pending_shape() if isinstance(img, MetaTensor) else img.shape[1:]
        if len(shape) != 2:
            raise ValueError(f"RandMildRotate takes one image (C, H, W), got shape {tuple(img.shape)}")
        return super().__call__(plain_layout(img), *args, **kwargs)


class _CropToLungs(LungBoxMixin, Crop):
    """The cut, on whole pixels, and what the metadata note of it."""

    def __init__(self, lungs: LungSource, lungs_key: str | None, lazy: bool) -> None:
        Crop.__init__(self, lazy)
        LungBoxMixin.__init__(self, lungs, lungs_key)

    def _cut(self, img: NdarrayOrTensor, box: np.ndarray, found: FoundLungs, lazy: bool | None) -> Tensor:
        tensor = as_image(img)
        height, width = spatial_size(tensor)
        scale = np.array([width, height] * 2)
        edges = box * scale
        pixels = np.concatenate([np.floor(edges[:2]), np.ceil(edges[2:])]).clip(0, scale)  # never less than the box
        left, top, right, bottom = (int(edge) for edge in pixels)
        out = Crop.__call__(self, tensor, (slice(top, bottom), slice(left, right)), lazy)
        if isinstance(out, MetaTensor):
            out.meta["lung_coverage"], out.meta["lung_source"] = (
                float(ops.coverage(pixels, found.box * scale)),
                found.source,
            )
            if out.pending_operations:  # nothing is cut yet
                return out
        return out.clone()  # MONAI's crop is a view of the input


class LungCrop(_CropToLungs):
    """Crop to the lungs with a margin, which removes much of what tells hospitals apart.

    A crop as MONAI's: lazy and invertible. It never cuts into the lungs' box. Where MONAI tracks metadata,
    ``meta["lung_source"]`` says where the box comes from ("given", "localizer", "located", "prior") and
    ``meta["lung_coverage"]`` what was kept of it (1.0).

    Args:
        margin: what is added on each side, as a share of the lungs' box; effusions and the heart lie at its border.
        lungs: "located" finds them in the pixels (the image must be upright, bright is dense), "prior" takes the
            usual place, a `LungLocalizer` is asked first.
        lungs_key: key of a box (four edges in shares of the image) or mask that goes before all others: in the
            dictionary form a key of the item, or else, as in the array form, one of the image's metadata.
        lazy: whether to leave the crop pending, for MONAI's lazy resampling.

    Raises:
        ValueError: if an argument is out of its range; when called, if an image has not two spatial dimensions.

    Note:
        arXiv 2603.05157 (2026): cropping to the lungs reduced shortcut learning and kept the diagnostic performance.

    Example:
        >>> import torch
        >>> LungCrop(margin=0.0, lungs="prior")(torch.rand(1, 100, 100)).shape
        torch.Size([1, 76, 84])
    """

    def __init__(
        self, margin: float = 0.05, lungs: LungSource = "located", lungs_key: str | None = None, lazy: bool = False
    ) -> None:
        super().__init__(lungs, lungs_key, lazy)
        self.margin = check_number("margin", margin)

    def __call__(  # type: ignore[override]
        self, img: NdarrayOrTensor, lazy: bool | None = None, lungs: FoundLungs | NdarrayOrTensor | None = None
    ) -> Tensor:
        """Crop one image, shape ``(C, H, W)``; `lungs` is a box or mask that is known already."""
        found = self.find(img, lungs)
        return self._cut(img, ops.widened(found.box, self.margin), found, lazy)


class RandLungPreservingCrop(Randomizable, _CropToLungs):
    """Crop at random, as another collimation would, and never lose the lungs.

    A crop as MONAI's: lazy and invertible. Of `max_tries` drawn crops the first that keeps enough of the lungs' box is
    taken; if none does, the first one grows toward it until it keeps enough. Where MONAI tracks metadata,
    ``meta["lung_coverage"]`` says which share was kept, and ``meta["lung_source"]`` where the box comes from ("given",
    "localizer", "located", "prior").

    Args:
        scale: lowest and highest area of the crop, as a share of the image's.
        min_lung_coverage: smallest share of the area of the lungs' box that the crop keeps.
        aspect: lowest and highest ratio of the crop's width to its height, relative to the image's.
        lungs: see `LungCrop`.
        max_tries: how many crops are drawn.
        lungs_key: see `LungCrop`.
        lazy: whether to leave the crop pending, for MONAI's lazy resampling.

    Raises:
        ValueError: if an argument is out of its range; when called, if an image has not two spatial dimensions.

    Example:
        >>> import torch
        >>> crop = RandLungPreservingCrop(scale=(0.1, 0.2), min_lung_coverage=0.9).set_random_state(0)
        >>> crop(torch.rand(1, 100, 100)).meta["lung_coverage"] >= 0.9
        True
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.3, 1.0),
        min_lung_coverage: float = 0.8,
        aspect: tuple[float, float] = (0.75, 4 / 3),
        lungs: LungSource = "located",
        max_tries: int = 20,
        lungs_key: str | None = None,
        lazy: bool = False,
    ) -> None:
        super().__init__(lungs, lungs_key, lazy)
        if max_tries < 1:
            raise ValueError(f"max_tries must be at least 1, got {max_tries}")
        self.scale = check_range("scale", scale, 1e-3, 1.0)
        self.min_lung_coverage = check_number("min_lung_coverage", min_lung_coverage)
        self.aspect = check_range("aspect", aspect, 0.1, 10.0)
        self.max_tries = max_tries
        self.drawn: tuple[np.ndarray, FoundLungs] | None = None

    def randomize(self, data: Any, lungs: FoundLungs | NdarrayOrTensor | None = None) -> None:
        """Draw the crop for an image, shape ``(C, H, W)``; `lungs` is a box or mask that is known already."""
        found = self.find(data, lungs)
        bounds = self.scale, self.aspect, self.min_lung_coverage, self.max_tries
        self.drawn = draw_crops(self.R, found.box[None], *bounds)[0], found

    def __call__(  # type: ignore[override]
        self,
        img: NdarrayOrTensor,
        randomize: bool = True,
        lazy: bool | None = None,
        lungs: FoundLungs | NdarrayOrTensor | None = None,
    ) -> Tensor:
        """Crop one image, shape ``(C, H, W)``; `lungs` is a box or mask that is known already."""
        if randomize:
            self.randomize(img, lungs)
        if self.drawn is None:
            raise RuntimeError("RandLungPreservingCrop has drawn no crop; call it with randomize=True first")
        return self._cut(img, *self.drawn, lazy)
