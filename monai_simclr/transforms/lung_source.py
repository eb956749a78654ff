"""Where a crop takes the lungs' box from: its sources in order, and the checks of what they give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from monai.config import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from monai_simclr import ops
from monai_simclr.transforms.base import as_tensor

LungSource = Literal["located", "prior"] | ops.LungLocalizer
"""`ops.locate_lungs`, the usual place (`ops.PRIOR_LUNG_BOX`), or a localizer of one's own."""


class FoundLungs(NamedTuple):
    """The box that a crop keeps to, and its source."""

    box: np.ndarray
    """float64, shape ``(4,)``: left, top, right, bottom in shares of the image, clipped to the image, not empty."""
    source: str
    """"given", "localizer", "located" or "prior"."""


class LungBoxMixin:
    """What crops share that need to know where the lungs are.

    The box comes from the first of these that has one: a box or mask that is passed; the localizer; the built-in
    `ops.locate_lungs`; `ops.PRIOR_LUNG_BOX`. None, NaN, an empty mask, a box outside the image and a localizer's
    confidence of 0 all mean "none", so that one bad mask does not end an epoch.

    Args:
        lungs: "located", "prior" (reads no pixels), or a `LungLocalizer`.
        lungs_key: key of a box or mask, in the item of a dictionary or in the metadata of an image.

    Raises:
        ValueError: if `lungs` is none of these.
    """

    def __init__(self, lungs: LungSource, lungs_key: str | None) -> None:
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
        """The lungs of the first image of an item, for the crop of all: what `make_dict_transform` asks for."""
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
            lungs: what is known already: four edges in shares of the image, or a mask ``(H, W)`` or ``(1, H, W)``;
                None for what `lungs_key` of the metadata holds.

        Raises:
            ValueError: if that is neither, or edges are in the wrong order or in pixels.
        """
        spatial_size(as_image(image))
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


def as_image(image: NdarrayOrTensor) -> Tensor:
    """A tensor, a MetaTensor where MONAI tracks metadata."""
    return as_tensor(image, get_track_meta())


def spatial_size(image: Tensor) -> tuple[int, int]:
    """Height and width of one image, after what is pending; refuses what cannot be a radiograph."""
    shape = image.peek_pending_shape() if isinstance(image, MetaTensor) else image.shape[1:]
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"a radiograph has shape (C, H, W) and some pixels, got {tuple(image.shape)}")
    return int(shape[0]), int(shape[1])


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
