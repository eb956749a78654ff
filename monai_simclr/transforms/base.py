"""What a transform of ours is: draw parameters, apply them; every other form follows from these two."""

from __future__ import annotations

from abc import abstractmethod
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

__all__ = ["Operation", "Parameters", "RandOperation"]

Parameters = dict[str, Any]
"""Drawn parameters by name: arrays or tensors whose first axis is the image."""


class Operation(Transform):
    """A deterministic transform, made of one function on a batch.

    Subclasses write `apply`. Calling the object takes one image, shape ``(C, H, W)``, as a numpy array, tensor or
    MetaTensor and returns a new MetaTensor (a plain tensor where MONAI does not track metadata).
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI declares it for instances)

    @abstractmethod
    def apply(self, images: Tensor) -> Tensor:
        """Transform a batch, shape ``(B, C, H, W)``, without writing to it."""

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        return _on_one(img, self.apply)


class RandOperation(RandomizableTransform):
    """A random transform, made of two functions: `draw` random parameters, `apply` them.

    Subclasses write these two. Everything else follows by rule: one image (`__call__`), a whole batch in which every
    image has its own parameters (`batch`), and the dictionary form (`over_keys`). Only ``self.R`` is random.

    Args:
        prob: probability that an image is transformed, in [0, 1].

    Raises:
        ValueError: if `prob` is outside [0, 1].
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI declares it for instances)

    def __init__(self, prob: float = 1.0) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must be in [0, 1], got {prob}")
        super().__init__(prob)
        self.keep: np.ndarray = np.zeros(0, dtype=bool)
        self.drawn: Parameters = {}

    @abstractmethod
    def draw(self, n: int) -> Parameters:
        """Draw the parameters of `n` images from ``self.R``; every value has leading length `n`."""

    @abstractmethod
    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """Transform a batch, shape ``(B, C, H, W)``, without writing to it; image i by element i of each parameter."""

    def randomize(self, data: Any = None, n: int = 1) -> None:
        """Decide for each of `n` images whether it is transformed (`self.keep`), and draw how (`self.drawn`)."""
        self.keep = self.R.random_sample(n) < self.prob
        self.drawn = self.draw(n)
        self._do_transform = bool(self.keep.any())

    def batch(self, images: Tensor) -> Tensor:
        """Transform a batch, shape ``(B, C, H, W)``; element i is what image i alone becomes with its parameters."""
        self.randomize(n=len(images))
        return self._gated(images)

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> Tensor:
        if randomize:
            self.randomize()
        if len(self.keep) != 1:
            raise RuntimeError(f"{type(self).__name__} has no draw for one image; call it with randomize=True first")
        return _on_one(img, self._gated)

    def _gated(self, images: Tensor) -> Tensor:
        if self.keep.all():
            return self.apply(images, **self.drawn)
        out = images.clone()
        if self.keep.any():
            chosen = torch.from_numpy(self.keep).to(images.device)
            out[chosen] = self.apply(images[chosen], **{name: value[self.keep] for name, value in self.drawn.items()})
        return out


def check_range(
    name: str, bounds: tuple[float, float], least: float, most: float = float("inf")
) -> tuple[float, float]:
    """A pair (lowest, highest) in order and within bounds, or a `ValueError` that says which argument is wrong."""
    if len(bounds) != 2 or not least <= bounds[0] <= bounds[1] <= most:
        raise ValueError(f"{name} must be (lowest, highest) within [{least:g}, {most:g}], got {bounds}")
    return float(bounds[0]), float(bounds[1])


def check_prob(name: str, prob: float) -> float:
    """A probability, or a `ValueError` that says which argument is wrong."""
    if not 0 <= prob <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {prob}")
    return float(prob)


def _on_one(img: NdarrayOrTensor, function: Any) -> Tensor:
    tensor = convert_to_tensor(img, track_meta=get_track_meta())
    plain = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    out = function(plain[None])[0]
    return convert_to_dst_type(out, dst=tensor, dtype=out.dtype)[0]
