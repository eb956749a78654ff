"""Crops that keep the lungs, lazy and invertible as MONAI's: where the lungs' box comes from, and the cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from monai.config import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms.croppad.array import Crop
from monai.transforms.transform import Randomizable
from torch import Tensor

from monai_simclr import ops
from monai_simclr.transforms.base import as_tensor, check_number, check_range
from monai_simclr.transforms.crops import draw_crops

LungSource = Literal["located", "prior"] | ops.LungLocalizer
"""`ops.locate_lungs`, the usual place (`ops.PRIOR_LUNG_BOX`), or a localizer of one's own."""


class FoundLungs(NamedTuple):
    """The lungs' box, float64 ``(4,)``, in shares of the image and not empty, and its source (see `LungCrop`)."""

    box: np.ndarray
    source: str


class CropToLungs(Crop):
    """What crops share that need to know where the lungs are.

    The box comes from the first of these that has one: a box or mask that is passed; the localizer; the built-in
    `ops.locate_lungs`; `ops.PRIOR_LUNG_BOX`. None, NaN, an empty mask, a box outside the image and a localizer's
    confidence of 0 all mean "none", so that one bad mask does not end an epoch.
    """

    def __init__(self, lungs: LungSource, lungs_key: str | None, lazy: bool) -> None:
        super().__init__(lazy)
        if not (callable(lungs) or lungs in ("located", "prior")):
            raise ValueError(
                f"lungs must be 'located', 'prior' or a LungLocalizer (images -> LocatedLungs), got {lungs!r}"
            )
        self.lungs, self.lungs_key = lungs, lungs_key

    @property
    def requires_current_data(self) -> bool:
        """Whether pixels or a mask are read, so that MONAI applies what is pending first."""
        return self.lungs != "prior" or self.lungs_key is not None

    def read_item(self, item: Mapping[Any, Any], image: Any, allow_missing: bool) -> dict[str, FoundLungs]:
        """The lungs of the first image of an item, for the crop of all: `make_dict_transform` asks for them."""
        key = self.lungs_key
        if key is not None and key not in item and not allow_missing:
            raise KeyError(
                f"lungs_key={key!r} is not in the item, which has {sorted(map(str, item))}; "
                "with allow_missing_keys=True such items fall back to the other sources of a lung box"
            )
        return {"lungs": self.find(image, None if key is None else item.get(key))}

    def find(self, image: NdarrayOrTensor, lungs: FoundLungs | NdarrayOrTensor | None = None) -> FoundLungs:
        """Find the lungs in one image.

        Args:
            image: shape ``(C, H, W)``, bright is dense, row 0 cranial.
            lungs: what is known already: four edges in shares of the image, or a mask ``(H, W)`` or ``(1, H, W)``, also
                of probabilities (see `ops.boxes_of_masks`); None for what `lungs_key` of the metadata holds.

        Raises:
            ValueError: if that is neither, or edges are in the wrong order or in pixels.
        """
        _with_size(image)
        if isinstance(lungs, FoundLungs):
            return lungs
        if lungs is None and self.lungs_key is not None and isinstance(image, MetaTensor):
            lungs = image.meta.get(self.lungs_key)
        box = None if lungs is None else _known_box(lungs)
        if box is not None:
            return FoundLungs(box, "given")
        localizers = [(self.lungs, "localizer")] if callable(self.lungs) else []
        if self.lungs != "prior":
            localizers.append((ops.locate_lungs, "located"))
        for localizer, source in localizers:
            answer = localizer(as_tensor(image)[None])
            boxes, confidence = np.asarray(answer.boxes), np.asarray(answer.confidence)
            if boxes.shape != (1, 4) or confidence.shape != (1,):
                raise ValueError(
                    f"a LungLocalizer answers one image with boxes (1, 4) and confidence (1,), got {boxes.shape} and "
                    f"{confidence.shape} from {localizer!r}"
                )
            box = _box_inside(boxes[0]) if confidence[0] > 0 else None
            if box is not None:
                return FoundLungs(box, source)
        return FoundLungs(np.array(ops.PRIOR_LUNG_BOX), "prior")

    def cut(self, image: NdarrayOrTensor, box: np.ndarray, found: FoundLungs, lazy: bool | None) -> Tensor:
        """Crop to whole pixels, never less than `box`, and note what is kept of the lungs."""
        tensor, (height, width) = _with_size(image)
        scale = np.array([width, height] * 2)
        pixels = np.concatenate([np.floor(box[:2] * scale[:2]), np.ceil(box[2:] * scale[2:])]).clip(0, scale)
        left, top, right, bottom = (int(edge) for edge in pixels)
        out = super().__call__(tensor, (slice(top, bottom), slice(left, right)), lazy)
        if isinstance(out, MetaTensor):
            kept = float(ops.coverage(pixels, found.box * scale))
            out.meta.update(lung_coverage=kept, lung_source=found.source)
            if out.pending_operations:  # nothing is cut yet
                return out
        return out.clone()  # MONAI's crop is a view of the input


class LungCrop(CropToLungs):
    """Crop to the lungs with a margin, which removes much of what tells hospitals apart.

    A crop as MONAI's: lazy and invertible. It never cuts into the lungs' box. Where MONAI tracks metadata,
    ``meta["lung_source"]`` says where the box comes from ("given", "localizer", "located", "prior") and
    ``meta["lung_coverage"]`` which share of it was kept.

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
        return self.cut(img, ops.widened(found.box, self.margin), found, lazy)


class RandLungPreservingCrop(Randomizable, CropToLungs):
    """Crop at random, as another collimation would, and never lose the lungs.

    Of `max_tries` drawn crops the first that keeps enough of the lungs' box is taken; if none does, the first one
    grows toward it until it keeps enough. Lazy, invertible and with the metadata of `LungCrop`.

    Args:
        scale: lowest and highest area of the crop, as a share of the image's.
        min_lung_coverage: smallest share of the area of the lungs' box that the crop keeps.
        aspect: lowest and highest ratio of the crop's width to its height, relative to the image's.
        lungs: see `LungCrop`.
        max_tries: how many crops are drawn.
        lungs_key: see `LungCrop`.
        lazy: see `LungCrop`.

    Raises:
        ValueError: see `LungCrop`.

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
        return self.cut(img, *self.drawn, lazy)


def _with_size(image: NdarrayOrTensor) -> tuple[Tensor, tuple[int, int]]:
    """The image as MONAI tracks it, and its height and width after what is pending."""
    tensor = as_tensor(image, get_track_meta())
    shape = tensor.peek_pending_shape() if isinstance(tensor, MetaTensor) else tensor.shape[1:]
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"a radiograph has shape (C, H, W) and some pixels, got {tuple(tensor.shape)}")
    return tensor, (int(shape[0]), int(shape[1]))


def _known_box(lungs: NdarrayOrTensor) -> np.ndarray | None:
    """The box of four edges or a mask, or None if it is empty."""
    edges = lungs.detach().cpu().numpy() if isinstance(lungs, Tensor) else np.asarray(lungs)
    if edges.shape == (4,):
        return _box_inside(edges)
    mask = edges[0] if edges.ndim == 3 and len(edges) == 1 else edges
    if mask.ndim != 2:
        raise ValueError(
            f"lungs are given as four edges, shape (4,), or a mask, shape (H, W) or (1, H, W); got shape {edges.shape}"
        )
    return _box_inside(ops.boxes_of_masks(mask))


def _box_inside(edges: np.ndarray) -> np.ndarray | None:
    """The part of a box that is in the image, or None where there is none; refuses what is not a box."""
    box = edges.astype(np.float64)
    if np.isnan(box).any():
        return None
    if not (box[:2] < box[2:]).all():
        raise ValueError(f"a lung box is left < right and top < bottom, in this order: l, t, r, b; got {box.tolist()}")
    if np.abs(box).max() > 4:
        raise ValueError(
            f"the edges of a lung box are shares of the image, got {box.tolist()}; divide pixels by width and height"
        )
    inside = box.clip(0, 1)
    return inside if (inside[2:] - inside[:2] > 1e-6).all() else None
