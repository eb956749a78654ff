"""Whom a crop asks where the lungs are, in which order, and what it makes of the answer."""

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
"""Whom to ask: `ops.locate_lungs`, the usual place (`ops.PRIOR_LUNG_BOX`), or a localizer of one's own."""


class FoundLungs(NamedTuple):
    """The box that a crop keeps to, and where it comes from."""

    box: np.ndarray
    """float64, shape ``(4,)``: left, top, right, bottom in shares of the image, cut at the image, of some area."""
    source: str
    """"given", "localizer", "located" or "prior"."""


class LungBoxMixin:
    """What crops share that need to know where the lungs are.

    The box comes from the first of these that has one: a box or mask that is given; the localizer; the built-in
    `ops.locate_lungs`; `ops.PRIOR_LUNG_BOX`. None, NaN, an empty mask, a box beside the image and a localizer's
    confidence of 0 all say "I have none", so that one bad mask does not end an epoch. `meta["lung_source"]` of the
    cropped image tells which it was.

    Args:
        lungs: "located", "prior" (asks nobody and reads no pixels), or a `LungLocalizer`.
        lungs_key: key of a box or mask; see `given_in`.

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

    def given_in(self, item: Mapping[Any, Any], image: Any) -> Any:
        """What `lungs_key` holds: in the item of a dictionary transform, or else in the metadata of the image."""
        if self.lungs_key is None:
            return None
        found = item.get(self.lungs_key)
        return image.meta.get(self.lungs_key) if found is None and isinstance(image, MetaTensor) else found

    def find(self, image: Tensor, given: FoundLungs | NdarrayOrTensor | None = None) -> FoundLungs:
        """Say where the lungs are in one image.

        Args:
            image: shape ``(C, H, W)``, bright is dense, row 0 cranial.
            given: what is known already: four edges in shares of the image, or a mask ``(H, W)`` or ``(1, H, W)``.

        Raises:
            ValueError: if `given` is neither, or edges are in the wrong order or in pixels.
        """
        spatial_size(image)
        if isinstance(given, FoundLungs):
            return given
        box = _inside(_box_of(given))
        if box is not None:
            return FoundLungs(box, "given")
        plain = (image.as_tensor() if isinstance(image, MetaTensor) else image)[None]
        if callable(self.lungs):
            box = _ask(self.lungs, plain)
            if box is not None:
                return FoundLungs(box, "localizer")
        box = None if self.lungs == "prior" else _ask(ops.locate_lungs, plain)
        return FoundLungs(np.array(ops.PRIOR_LUNG_BOX), "prior") if box is None else FoundLungs(box, "located")


def as_image(image: NdarrayOrTensor) -> Tensor:
    """A tensor, a MetaTensor where MONAI tracks metadata."""
    return as_tensor(image, get_track_meta())


def spatial_size(image: Tensor) -> tuple[int, int]:
    """Height and width of one image, after what is pending; refuses what is no radiograph."""
    shape = image.peek_pending_shape() if isinstance(image, MetaTensor) else image.shape[1:]
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"a radiograph has shape (C, H, W) and some pixels, got {tuple(image.shape)}")
    return int(shape[0]), int(shape[1])


def _ask(localizer: ops.LungLocalizer, images: Tensor) -> np.ndarray | None:
    answer = localizer(images)
    boxes, confidence = np.asarray(answer.boxes, dtype=np.float64), np.asarray(answer.confidence, dtype=np.float64)
    if boxes.shape != (1, 4) or confidence.shape != (1,):
        raise ValueError(
            f"a LungLocalizer answers one image with boxes (1, 4) and confidence (1,), got {boxes.shape} and "
            f"{confidence.shape} from {localizer!r}"
        )
    return _inside(_checked(boxes[0])) if confidence[0] > 0 else None


def _box_of(given: Any) -> np.ndarray | None:
    """Four edges from edges or a mask."""
    if given is None:
        return None
    values = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if values.shape == (4,):
        return _checked(values.astype(np.float64))
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2:
        raise ValueError(
            f"lungs are given as four edges, shape (4,), or a mask, shape (H, W) or (1, H, W); got shape {values.shape}"
        )
    return ops.boxes_of_masks(values)


def _checked(box: np.ndarray) -> np.ndarray:
    if np.isnan(box).any():
        return box
    if not (box[:2] < box[2:]).all():
        raise ValueError(f"a lung box is left < right and top < bottom, in this order: l, t, r, b; got {box.tolist()}")
    if np.abs(box).max() > 4:
        raise ValueError(
            f"the edges of a lung box are shares of the image, got {box.tolist()}; divide pixels by width and height"
        )
    return box


def _inside(box: np.ndarray | None) -> np.ndarray | None:
    """The part in the image, or None where there is none."""
    if box is None or np.isnan(box).any():
        return None
    cut = box.clip(0, 1)
    return cut if (cut[2:] - cut[:2] > 1e-6).all() else None
