"""Array transforms of radiographs, shape (C, H, W): contrast, windows and the two stored forms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_simclr import ops
from monai_simclr.ops.intensity import WindowFunction
from monai_simclr.transforms.base import Operation, Parameters, RandOperation, check_range

__all__ = ["CLAHE", "FinishedImage", "RandCLAHE", "RandWindow", "StoredImage", "Window"]


class CLAHE(Operation):
    """Equalize the histogram tile by tile, with limited contrast; shape, dtype and range stay.

    As a fixed step it made radiograph models worse at other hospitals (see `ops.clahe`): if a model is trained with it,
    inference must have it too.

    Args:
        clip_limit: highest count of a histogram bin, as a multiple of the mean; greater than 0.
        tile_grid: number of tiles down and across.

    Example:
        >>> CLAHE(clip_limit=2.0)(torch.rand(1, 64, 64)).shape
        torch.Size([1, 64, 64])
    """

    def __init__(self, clip_limit: float = 2.0, tile_grid: tuple[int, int] = (8, 8)) -> None:
        if not clip_limit > 0:
            raise ValueError(f"clip_limit must be greater than 0, got {clip_limit}")
        self.clip_limit, self.tile_grid = float(clip_limit), (tile_grid[0], tile_grid[1])

    def apply(self, images: Tensor) -> Tensor:
        """See `ops.clahe`."""
        return ops.clahe(images, self.clip_limit, self.tile_grid)


class RandCLAHE(RandOperation):
    """Equalize tile by tile at random, as another vendor's processing of the same exposure would.

    It must stay random: see `CLAHE` for what a fixed step does.

    Args:
        clip_limit: lowest and highest clip limit, greater than 0.
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
        self.clip_limit, self.tile_grid = check_range("clip_limit", clip_limit, 0.01), (tile_grid[0], tile_grid[1])

    def draw(self, n: int) -> Parameters:
        """Draw clip limits, shape ``(n,)``."""
        return {"clip_limit": self.R.uniform(*self.clip_limit, n)}

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """See `ops.clahe`."""
        return ops.clahe(images, params["clip_limit"], self.tile_grid)


class Window(Operation):
    """Map an intensity window to float32 [0, 1], as a DICOM display does (PS3.3 C.11.2).

    Args:
        center: middle of the window, in the unit of the image.
        width: width of the window, in the unit of the image.
        function: DICOM's VOI LUT function, see `ops.window`.

    Example:
        >>> Window(center=2048, width=4096)(torch.tensor([[[0.0, 2048.0, 4096.0]]])).flatten().tolist()
        [0.0, 0.5, 1.0]
    """

    def __init__(self, center: float, width: float, function: WindowFunction = "LINEAR_EXACT") -> None:
        self.center, self.width, self.function = center, width, function

    def apply(self, images: Tensor) -> Tensor:
        """See `ops.window`."""
        return ops.window(images, self.center, self.width, self.function)


class RandWindow(RandOperation):
    """Window a canonical image at random, as another exposure or display of the same chest would show it.

    Args:
        center: lowest and highest middle of the window, in shares of the range.
        width: lowest and highest width of the window, in shares of the range; greater than 0.
        prob: probability that an image is transformed.

    Example:
        >>> image = torch.full((1, 2, 2), 0.5)
        >>> RandWindow(center=(0.5, 0.5), width=(0.8, 0.8), prob=1.0)(image).flatten().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """

    def __init__(
        self, center: tuple[float, float] = (0.4, 0.6), width: tuple[float, float] = (0.7, 1.0), prob: float = 0.8
    ) -> None:
        super().__init__(prob)
        self.center, self.width = check_range("center", center, 0.0, 1.0), check_range("width", width, 0.01)

    def draw(self, n: int) -> Parameters:
        """Draw centers and widths, shape ``(n,)``."""
        return {"center": self.R.uniform(*self.center, n), "width": self.R.uniform(*self.width, n)}

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """Window floating point images in [0, 1], or uint8 ones by their 255; the dtype stays."""
        if images.dtype != torch.uint8:
            return ops.window(images, params["center"], params["width"]).to(images.dtype)
        return (ops.window(images, 255 * params["center"], 255 * params["width"]) * 255).round().to(torch.uint8)


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
