"""Array transforms of radiographs, shape (C, H, W): local contrast, and the two stored forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_simclr import ops
from monai_simclr.transforms.base import Operation, Parameters, RandOperation, check_range

_MIN_CLIP = 0.01


class CLAHE(Operation):
    """Equalize the histogram tile by tile, with limited contrast; shape, dtype and range stay.

    As a fixed step it made radiograph models worse at other hospitals (see `ops.clahe`): if a model is trained with it,
    inference must have it too.

    Args:
        clip_limit: highest count of a histogram bin, as a multiple of the mean; at least 0.01.
        tile_grid: number of tiles down and across.

    Example:
        >>> CLAHE(clip_limit=2.0)(torch.rand(1, 64, 64)).shape
        torch.Size([1, 64, 64])
    """

    def __init__(self, clip_limit: float = 2.0, tile_grid: tuple[int, int] = (8, 8)) -> None:
        self.clip_limit = check_range("clip_limit", (clip_limit, clip_limit), _MIN_CLIP)[0]
        self.tile_grid = _check_grid(tile_grid)

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """See `ops.clahe`."""
        return ops.clahe(images, self.clip_limit, self.tile_grid)


class RandCLAHE(RandOperation):
    """Equalize tile by tile at random, as another vendor's processing of the same exposure would.

    Not as a fixed step: see `CLAHE`.

    Args:
        clip_limit: lowest and highest clip limit, at least 0.01.
        tile_grid: number of tiles down and across.
        prob: probability that an image is transformed.

    Example:
        >>> image = torch.rand(1, 64, 64)
        >>> torch.equal(RandCLAHE(prob=0.0)(image), image)
        True
    """

    def __init__(
        self, clip_limit: tuple[float, float] = (1.0, 3.0), tile_grid: tuple[int, int] = (8, 8), prob: float = 0.5
    ) -> None:
        super().__init__(prob)
        self.clip_limit, self.tile_grid = check_range("clip_limit", clip_limit, _MIN_CLIP), _check_grid(tile_grid)

    def draw(self, n: int) -> Parameters:
        """Draw clip limits, shape ``(n,)``."""
        return {"clip_limit": self.R.uniform(*self.clip_limit, n)}

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """See `ops.clahe`."""
        return ops.clahe(images, params["clip_limit"], self.tile_grid)


class ToStored(Operation):
    """Turn a canonical image into a stored one: a square of `size` pixels in 256 gray levels.

    Args:
        size: pixels along each side, see `recipes.stored_size`.

    Example:
        >>> ToStored(4)(torch.ones(1, 6, 8)).shape
        torch.Size([1, 4, 4])
    """

    def __init__(self, size: int) -> None:
        self.size = _check_size(size)

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """See `ops.quantize`; float (B, C, H, W) in [0, 1] to uint8 (B, C, size, size)."""
        planes = images.to(torch.float32).flatten(0, 1).cpu().numpy()
        stored = torch.stack([torch.from_numpy(ops.quantize(plane, self.size)) for plane in planes])
        return stored.view(*images.shape[:2], self.size, self.size).to(images.device)


class ToNetworkInput(Operation):
    """Turn a stored image into the input of a network: `size` pixels, float32 in [0, 1].

    Args:
        size: pixels along each side.

    Example:
        >>> float(ToNetworkInput(7)(torch.full((1, 8, 8), 255, dtype=torch.uint8)).max())
        1.0
    """

    def __init__(self, size: int) -> None:
        self.size = _check_size(size)

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """See `ops.to_network_input`."""
        return ops.to_network_input(images, self.size)


def _check_grid(tile_grid: tuple[int, int]) -> tuple[int, int]:
    if np.shape(tile_grid) != (2,) or any(int(count) != count or count < 1 for count in tile_grid):
        raise ValueError(f"tile_grid must be (tiles down, tiles across), at least 1 each, got {tile_grid}")
    return int(tile_grid[0]), int(tile_grid[1])


def _check_size(size: int) -> int:
    if int(size) != size or size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    return int(size)
