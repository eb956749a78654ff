"""What a transform of ours is: draw parameters, apply them; every other form follows from these two."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import RandomizableTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_simclr.ops.amounts import apply_where
from monai_simclr.ops.keyed import KeyedRandom

Parameters = dict[str, Any]
"""Parameters by name: arrays whose first axis is the image."""


class BatchTransform(Transform):
    """One image, shape ``(C, H, W)``, or a whole batch, from one function on a batch: `apply`."""

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI declares it for instances)
    any_rank = False
    """Whether it also takes images of other than two spatial dimensions."""

    @abstractmethod
    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """Transform a batch, shape ``(B, C, H, W)``, without writing to it; image i by element i of each parameter."""

    def read(self, meta: Mapping[str, Any], images: Tensor) -> Parameters:
        """Parameters that come from the metadata of the images; `images` is a batch (of one)."""
        return {}

    def describe(self, meta: dict[str, Any], **params: Any) -> None:
        """Bring the metadata of one result, `meta`, up to date with what `apply` made of the image."""

    def _parameters(self, meta: Mapping[str, Any], images: Tensor) -> Parameters:
        return self.read(meta, images)

    def _transform(self, images: Tensor, params: Parameters) -> Tensor:
        return self.apply(images, **params)

    def _run(self, img: NdarrayOrTensor, is_batch: bool) -> Tensor:
        tensor = as_tensor(img)
        images = tensor if is_batch else tensor[None]
        if images.ndim != 4 and not (self.any_rank and images.ndim > 2):
            raise ValueError(
                f"{type(self).__name__} takes one image (C, H, W), or a batch (B, C, H, W) through .batch(); got shape "
                f"{tuple(tensor.shape)}; add a missing channel with EnsureChannelFirst, cut volumes into slices"
            )
        params = self._parameters(img.meta if isinstance(img, MetaTensor) else {}, images)
        out = self._transform(images, params)
        if is_batch:
            return out
        if not get_track_meta():
            return out[0]
        if isinstance(img, MetaTensor):
            one: MetaTensor = convert_to_dst_type(out[0], dst=img, dtype=out.dtype)[0]  # type: ignore[assignment]
        else:
            one = MetaTensor(out[0])
        self.describe(one.meta, **params)
        return one


def as_tensor(image: NdarrayOrTensor, track_meta: bool = False) -> Tensor:
    """A plain tensor, or a MetaTensor; MONAI's own conversion would make int32, of unknown range, of uint16."""
    image = plain_layout(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint16:
        image = torch.from_numpy(image)
    return convert_to_tensor(image, track_meta=track_meta)


def plain_layout(image: Any) -> Any:
    """The same image, contiguous, writeable and in native byte order; as it is if it is all that.

    Transposes, flips, strides, `broadcast_to`, `expand` and channels_last leave other layouts; OpenCV and torch's
    views refuse some of them, or warn.
    """
    if isinstance(image, np.ndarray):
        plain = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))
        return plain if plain.flags.writeable else plain.copy()
    return image.contiguous() if isinstance(image, Tensor) else image


class Operation(BatchTransform):
    """A deterministic transform, made of one function on a batch.

    Subclasses write `apply`. Calling the object takes one image, shape ``(C, H, W)``, as a numpy array, tensor or
    MetaTensor and returns a new MetaTensor (a plain tensor where MONAI does not track metadata).
    """

    def batch(self, images: Tensor) -> Tensor:
        """Transform a batch, shape ``(B, C, H, W)``; element i is what image i alone becomes. A plain tensor."""
        return self._run(images, is_batch=True)

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        return self._run(img, is_batch=False)


class RandOperation(RandomizableTransform, BatchTransform):
    """A random transform, made of two functions: `draw` random parameters, `apply` them.

    Subclasses write these two. Everything else follows by rule: one image (`__call__`), a whole batch in which every
    image has its own parameters (`batch`), and the dictionary form (`make_dict_transform`). Only ``self.R`` is random.
    `prob` is the probability that an image is transformed.
    """

    def __init__(self, prob: float = 1.0) -> None:
        super().__init__(check_number("prob", prob))
        self.keep: np.ndarray = np.zeros(0, dtype=bool)
        self.drawn: Parameters = {}

    @abstractmethod
    def draw(self, n: int) -> Parameters:
        """Draw the parameters of `n` images from ``self.R``; every value has leading length `n`."""

    def randomize(self, data: Any = None, n: int = 1) -> None:
        """Decide for each of `n` images whether it is transformed (`self.keep`), and draw how (`self.drawn`)."""
        if self.prob == 1 and isinstance(self.R, KeyedRandom):
            self.R.skip()
            self.keep = np.ones(n, dtype=bool)
        else:
            self.keep = self.R.random_sample(n) < self.prob
        self.drawn = self.draw(n)
        self._do_transform = bool(self.keep.any())

    def randomize_from(self, random: KeyedRandom | None, n: int) -> None:
        """Draw for `n` images from keyed numbers, or from ``self.R`` without them; ``self.R`` stays what it is."""
        own = self.R
        try:
            self.R = own if random is None else random  # type: ignore[assignment]
            self.randomize(n=n)
        finally:
            self.R = own

    def batch(self, images: Tensor, random: KeyedRandom | None = None) -> Tensor:
        """Transform a batch, shape ``(B, C, H, W)``; element i is what image i alone becomes with its parameters.

        With `random` in place of ``self.R`` that is a function of the image's key, whatever else is in the batch.
        """
        self.randomize_from(random, len(images))
        return self._run(images, is_batch=True)

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> Tensor:
        if randomize:
            self.randomize()
        if len(self.keep) != 1:
            raise RuntimeError(f"{type(self).__name__} has no draw for one image; call it with randomize=True first")
        return self._run(img, is_batch=False)

    def _parameters(self, meta: Mapping[str, Any], images: Tensor) -> Parameters:
        return {**self.read(meta, images), **self.drawn}

    def _transform(self, images: Tensor, params: Parameters) -> Tensor:
        if self.keep.all():
            return self.apply(images, **params)
        if not self.keep.any():
            return images.clone()
        return apply_where(
            self.keep, images, lambda part, rows: self.apply(part, **{name: params[name][rows] for name in params})
        )


def check_range(
    name: str, bounds: tuple[float, float], minimum: float, maximum: float = float("inf")
) -> tuple[float, float]:
    """A pair (lowest, highest), from a tuple or a config's list, in order and within bounds; else a `ValueError`."""
    if np.shape(bounds) != (2,) or not minimum <= bounds[0] <= bounds[1] <= maximum:
        raise ValueError(f"{name} must be (lowest, highest) within [{minimum:g}, {maximum:g}], got {bounds}")
    return float(bounds[0]), float(bounds[1])


def check_number(name: str, number: float, minimum: float = 0, maximum: float = 1) -> float:
    """A number within bounds, by default a probability or a share; else a `ValueError` that names the argument."""
    if not isinstance(number, int | float | np.number) or not minimum <= number <= maximum:
        raise ValueError(f"{name} must be in [{minimum:g}, {maximum:g}], got {number}")
    return float(number)
