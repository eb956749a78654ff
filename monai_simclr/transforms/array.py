"""Array transforms of radiographs, shape (C, H, W): contrast and stored form."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_simclr import ops
from monai_simclr.transforms.base import Operation

__all__ = ["FinishedImage", "StoredImage"]


class StoredImage(Operation):
    """Turn a canonical image into what the image store holds: a square of `size` pixels in 256 gray levels.

    Args:
        size: pixels along each side, see `recipes.stored_size`.

    Example:
        >>> StoredImage(4)(torch.ones(1, 6, 8)).shape
        torch.Size([1, 4, 4])
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def apply(self, images: Tensor) -> Tensor:
        """See `ops.quantize`; float (B, C, H, W) in [0, 1] to uint8 (B, C, size, size)."""
        planes = images.to(torch.float32).flatten(0, 1).cpu().numpy()
        stored = torch.stack([torch.from_numpy(ops.quantize(plane, self.size)) for plane in planes])
        return stored.view(*images.shape[:2], self.size, self.size).to(images.device)


class FinishedImage(Operation):
    """Turn a stored image into what a network sees: `size` pixels, float32 in [0, 1].

    Args:
        size: pixels along each side.

    Example:
        >>> float(FinishedImage(7)(torch.full((1, 8, 8), 255, dtype=torch.uint8)).max())
        1.0
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def apply(self, images: Tensor) -> Tensor:
        """See `ops.finish`."""
        return ops.finish(images, self.size)
