"""Array transforms of radiographs, shape (C, H, W): local contrast, a mild rotation, the halves of preprocessing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import RandRotate
from torch import Tensor

from monai_simclr import ops
from monai_simclr.transforms.base import Operation, Parameters, RandOperation, as_tensor, check_number, check_range

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


class RandMildRotate(RandRotate):
    """Rotate a radiograph a little, as a tilted patient or cassette would.

    A preset of `monai.transforms.RandRotate`: lazy and invertible as that is, the size stays, and the corners repeat
    the border instead of turning black. uint8 and uint16 are rounded and stay what they are, also in the inverse; MONAI
    makes float32 of them, and does so too while a rotation is pending.

    Args:
        degrees: largest rotation to either side, at most 45.
        prob: probability that an image is rotated.
        lazy: whether to leave the rotation pending, for MONAI's lazy resampling, which gives float32 of the same range:
            scale uint8 to [0, 1] before a lazy pipeline.

    Raises:
        ValueError: if `degrees` or `prob` is out of its range.

    Example:
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

    def __call__(self, img: Any, *args: Any, lazy: bool | None = None, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """Rotate one image, shape ``(C, H, W)``; the arguments are those of MONAI's `RandRotate`."""
        shape = img.peek_pending_shape() if isinstance(img, MetaTensor) else img.shape[1:]
        if len(shape) != 2:
            raise ValueError(f"RandMildRotate takes one image (C, H, W), got shape {tuple(img.shape)}")
        image = as_tensor(img, get_track_meta()).clone()  # MONAI notes even in its input that it did nothing
        out = super().__call__(_in_float(image), *args, **{**kwargs, "lazy": lazy})
        return out if (self.lazy if lazy is None else lazy) else _rounded(out, image.dtype)

    def inverse(self, data: Tensor) -> Tensor:
        """Rotate a result of this transform, or what a network made of it, back."""
        return _rounded(super().inverse(_in_float(data)), data.dtype)


def _in_float(image: Tensor) -> Tensor:
    """float32 of uint16, which torch does not rotate."""
    return image.to(torch.float32) if image.dtype == torch.uint16 else image


def _rounded(image: Tensor, dtype: torch.dtype) -> Tensor:
    """The gray levels of uint8 and uint16 that are nearest; any other dtype as it came out."""
    if image.dtype == dtype or dtype not in (torch.uint8, torch.uint16):
        return image
    return image.round().to(torch.int32).to(dtype)  # interpolated with the border repeated: within the range


class ToStored(Operation):
    """Turn a canonical image into a stored one: a square of `size` pixels (`recipes.stored_size`) in 256 gray levels.

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
    """Turn a stored image into the input of a network: a square of `size` pixels, float32 in [0, 1].

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
