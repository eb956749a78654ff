"""Contrast-limited adaptive histogram equalization (CLAHE): OpenCV's, and the same in torch."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from monai_simclr.ops.amounts import Amount, Backend, check_canonical, on_device, per_image, runs_in_opencv

_BINS = 256
_LEVELS = {torch.uint8: 256, torch.uint16: 65536}


def clahe(
    images: Tensor, clip_limit: Amount = 2.0, tile_grid: tuple[int, int] = (8, 8), backend: Backend = "auto"
) -> Tensor:
    """Equalize the histogram of every tile, with its slope limited, and blend the tiles' curves between their centers.

    Args:
        images: batch, shape ``(B, C, H, W)``: uint8, uint16, or floating point in [0, 1]. Every channel on its own.
        clip_limit: highest count of a histogram bin, as a multiple of the mean count; greater than 0. A number, or one
            for each image, shape ``(B,)``.
        tile_grid: number of tiles down and across.
        backend: "auto" takes OpenCV for uint8 and uint16 on the CPU. torch works on the whole batch, and the host never
            waits; integers are OpenCV's where the grid divides the image, elsewhere within one gray level on at most
            0.5 % of the pixels.

    Returns:
        New tensor of the shape, dtype and device of `images`. For uint16 there are 65,536 bins, so that a clip limit
        below 65,536 / pixels of a tile is that number; scale 12-bit images to [0, 1] instead. Floating point, clipped
        to [0, 1], interpolates between the 256 bins of uint8: no bands. A NaN counts as 0 and stays NaN. A constant
        image stays constant, at another gray level.

    Raises:
        ValueError: if a number is out of range, the dtype is another, floating point is far out of [0, 1] (see
            `ops.check_canonical`), or the grid has more tiles than the image has rows or columns.

    Note:
        Zuiderveld, Graphics Gems IV (1994). As a fixed step of preprocessing it made radiograph models worse at other
        hospitals (Eur Radiol Exp 2023: external AUC .705 against .944); REMEDIS (Azizi et al. 2023) has it at random.

    Example:
        >>> images = torch.arange(64, 192, dtype=torch.uint8).view(1, 1, 8, 16)
        >>> clahe(images, clip_limit=40.0, tile_grid=(1, 1)).flatten()[[0, 63, 127]]
        tensor([  2, 128, 255], dtype=torch.uint8)
    """
    if images.dtype not in _LEVELS and not images.is_floating_point():
        raise ValueError(f"images must be uint8, uint16 or floating point in [0, 1], got {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"CLAHE works on images (B, C, H, W), got shape {tuple(images.shape)}")
    if min(tile_grid) < 1 or tile_grid[0] > images.shape[2] or tile_grid[1] > images.shape[3]:
        raise ValueError(f"a grid of {tile_grid} tiles does not fit images of {tuple(images.shape[2:])} pixels")
    check_canonical(images)
    limits = per_image("clip_limit", clip_limit, len(images), 0.0, exclusive=True)
    if runs_in_opencv(images, backend, _LEVELS):
        pixels = images.numpy()
        equalized = np.empty_like(pixels, order="C")
        for image, target, limit in zip(pixels, equalized, limits.tolist(), strict=True):
            operator = cv2.createCLAHE(limit, tile_grid[::-1])  # OpenCV counts tiles across first
            for channel, plane in zip(image, target, strict=True):
                operator.apply(np.ascontiguousarray(channel), plane)
        return torch.from_numpy(equalized)
    limits = limits.repeat(images.shape[1])
    images = images.contiguous()  # flattened below, and given its shape again
    if images.dtype in _LEVELS:
        bins = _LEVELS[images.dtype]
        levels = images.to(torch.int32).flatten(0, 1)
        curves = _tile_curves(levels, limits, tile_grid, bins).round_().clamp_(0, bins - 1).flatten()
        out = _blend(levels, [curves], tile_grid, bins)[0]
        return out.round_().clamp_(0, bins - 1).to(images.dtype).view(images.shape)
    # position between the bins; a NaN would index nowhere
    place = images.to(torch.float32).nan_to_num(0.0).clamp_(0, 1).mul_(_BINS - 1).flatten(0, 1)
    curves = _tile_curves(place.round().to(torch.int32), limits, tile_grid, _BINS).flatten()
    below = place.floor().clamp_(max=_BINS - 2)
    low, high = _blend(below.to(torch.int32), [curves, curves[1:]], tile_grid, _BINS)
    out = torch.lerp(low, high, place.sub_(below)).div_(_BINS - 1).clamp_(0, 1).view(images.shape)
    return torch.where(images.isnan(), images, out.to(images.dtype))


def _tile_curves(levels: Tensor, limits: np.ndarray, tile_grid: tuple[int, int], bins: int) -> Tensor:
    """The curve of every tile, (planes, tiles, bins), from its clipped histogram; `levels` are integers, (P, H, W)."""
    device, count, sides, tiles = levels.device, len(levels), _padded(levels, tile_grid), math.prod(tile_grid)
    tile_numbers = []
    for axis, (length, padded, along) in enumerate(zip(levels.shape[1:], sides, tile_grid, strict=True), 1):
        position = torch.arange(padded, device=device)
        if padded > length:  # a line goes on as its mirror image (OpenCV's BORDER_REFLECT_101)
            turn = max(2 * (length - 1), 1)
            levels = levels.index_select(axis, torch.minimum(position % turn, turn - position % turn))
        tile_numbers.append(position // (padded // along))
    down, across = tile_numbers
    places = levels.long()
    places += (down[:, None] * tile_grid[1] + across) * bins
    places += (torch.arange(count, device=device) * tiles * bins).view(-1, 1, 1)
    counts = torch.zeros(count * tiles * bins, dtype=torch.int32, device=device)
    counts.scatter_add_(0, places.flatten(), counts.new_ones(1).expand(places.numel()))
    counts = counts.view(count, tiles, bins)
    pixels = math.prod(sides) // tiles
    # cut at the limit; what was cut off is spread over all bins, the rest in even steps, as OpenCV does
    limit = on_device((limits * pixels / bins).astype(np.int32).clip(min=1), device).view(-1, 1, 1)
    excess = (counts - limit).clamp_(min=0).sum(2, keepdim=True, dtype=torch.int32)
    rest, bin_ = excess % bins, torch.arange(bins, device=device, dtype=torch.int32)
    step = (bins // rest.clamp(min=1)).clamp(min=1)
    counts = torch.minimum(counts, limit) + excess // bins + ((bin_ % step == 0) & (bin_ // step < rest))
    scale = np.float32(bins - 1) / np.float32(pixels)  # rounded to float32, as OpenCV does
    return counts.cumsum(2, dtype=torch.int32).to(torch.float32).mul_(float(scale))


def _padded(levels: Tensor, tile_grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that the grid divides; OpenCV adds a whole grid to the side that already divides, too."""
    height, width = levels.shape[1:]
    if height % tile_grid[0] == 0 and width % tile_grid[1] == 0:
        return height, width
    return height + tile_grid[0] - height % tile_grid[0], width + tile_grid[1] - width % tile_grid[1]


def _blend(levels: Tensor, tables: list[Tensor], tile_grid: tuple[int, int], bins: int) -> list[Tensor]:
    """Every pixel through the curves of the four nearest tiles, weighted by its distance to their centers.

    `levels` (P, H, W) say where in a curve a pixel is; a table holds the curves of all tiles of all planes. Weights and
    order of operations are OpenCV's, so that the sums round alike.
    """
    device, size = levels.device, math.prod(tile_grid) * bins
    neighbors = []  # by side: tiles before and after every pixel, and how far it is between their centers
    for length, padded, count in zip(levels.shape[1:], _padded(levels, tile_grid), tile_grid, strict=True):
        inverse = float(np.float32(1) / np.float32(padded // count))
        position = torch.arange(length, dtype=torch.float32, device=device) * inverse - 0.5
        first = position.floor()
        neighbors.append((first.long().clamp(min=0), (first.long() + 1).clamp(max=count - 1), position - first))
    (top, bottom, v), (left, right, u) = neighbors
    # 32-bit places are read twice as fast; they are moved from tile to tile in place
    kind = torch.int32 if len(levels) * size < 2**31 else torch.int64
    places = levels.to(kind, copy=True)
    places += (torch.arange(len(levels), device=device, dtype=kind) * size).view(-1, 1, 1)
    corners, before = [], torch.zeros(1, dtype=kind, device=device)
    for rows, columns in ((top, left), (top, right), (bottom, left), (bottom, right)):
        start = ((rows[:, None] * tile_grid[1] + columns) * bins).to(kind)
        places += start - before
        before = start
        corners.append([table.index_select(0, places.view(-1)).view(levels.shape) for table in tables])

    def mixed(low: list[Tensor], high: list[Tensor], share: Tensor) -> list[Tensor]:
        return [a.mul_(1 - share).add_(b.mul_(share)) for a, b in zip(low, high, strict=True)]

    return mixed(mixed(corners[0], corners[1], u), mixed(corners[2], corners[3], u), v[:, None])
