"""One drawn view of a radiograph, made by OpenCV image by image or by torch for a whole batch: the same picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from monai_simclr.ops.amounts import apply_where, on_device
from monai_simclr.ops.equalization import clahe, clahe_on_device
from monai_simclr.ops.filters import blur_on_device, blur_pixels
from monai_simclr.ops.geometry import warp_on_device, warp_pixels
from monai_simclr.ops.intensity import adjust_on_device, curves

TILE_GRID = (8, 8)
NOISE_PIXELS = 1 << 20
"""Noise comes from a fixed table at a drawn place: fresh normal numbers would cost more than all the rest of a view."""

Drawn = Mapping[str, np.ndarray]


def make_views(images: Tensor, drawn: Drawn, size: int) -> Tensor:
    """Make one view of each image: warp, CLAHE, tone, blur, noise.

    Args:
        images: shape ``(B, 1, H, W)``: uint8, uint16, or floating point in [0, 1].
        drawn: parameters with leading length B, on the host:

            - `box` ``(B, 4)``: left, top, right, bottom of the crop, in shares of the image;
            - `angle`: rotation about the crop's middle in degrees, counterclockwise as seen; `flip`: mirrored or not;
            - `clip`: clip limit of CLAHE, 0 leaves it out;
            - `gamma`, `brightness`, `contrast`: see `ops.adjust`, 1 is neutral;
            - `sigma`: of the blur, in pixels of the view;
            - `noise`: standard deviation in shares of the range, and `seed`: where in the noise table it starts.
        size: pixels along each side of a view.

    Returns:
        New tensor, shape ``(B, 1, size, size)``, of the dtype and on the device of `images`. On the CPU uint8 stays
        uint8 in OpenCV (one warp, one look-up table, one blur) and the rest goes through float32 in OpenCV; on a device
        torch does the whole batch at once. uint8 is rounded after the same steps in both, so that the two agree:
        `views_on_device` says how well. Views of uint8 and of float32 differ by less than 1 gray level in the mean and
        by 8 at most.

    Raises:
        ValueError: if `images` has another shape or dtype.

    Example:
        >>> one = {"box": np.array([[0.25, 0.25, 0.75, 0.75]]), "angle": np.zeros(1), "flip": np.zeros(1, dtype=bool)}
        >>> neutral = {name: np.ones(1) for name in ("gamma", "brightness", "contrast")}
        >>> off = {name: np.zeros(1, dtype=int) for name in ("clip", "sigma", "noise", "seed")}
        >>> images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
        >>> make_views(images, {**one, **neutral, **off}, size=2)[0, 0]
        tensor([[ 5,  6],
                [ 9, 10]], dtype=torch.uint8)
    """
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"views are made of gray images (B, 1, H, W), got shape {tuple(images.shape)}")
    if images.dtype == torch.uint16:
        views = make_views(images.to(torch.float32) / 65535, drawn, size)
        return (views * 65535).round_().to(torch.int32).to(torch.uint16)
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"images must be uint8, uint16 or floating point in [0, 1], got {images.dtype}")
    if images.device.type != "cpu":
        return views_on_device(images, drawn, size)
    pixels = images[:, 0].numpy() if images.dtype == torch.uint8 else images[:, 0].to(torch.float32).numpy()
    columns = {name: value.tolist() for name, value in drawn.items()}  # plain numbers are ten times as fast as NumPy's
    out = np.empty((len(pixels), 1, size, size), dtype=pixels.dtype)
    for i, image in enumerate(pixels):
        _view(image, {name: column[i] for name, column in columns.items()}, out[i, 0])
    return torch.from_numpy(out).to(images.dtype)


def _view(pixels: np.ndarray, row: Mapping[str, Any], out: np.ndarray) -> None:
    """Make one view of one plane, shape ``(H, W)``, uint8 or float32, in `out`; every step after the first in place."""
    whole, size = pixels.dtype == np.uint8, len(out)
    turn = math.radians(row["angle"])
    matrix = _affine(row["box"], math.cos(turn), math.sin(turn), 1 - 2 * row["flip"], pixels.shape, size)
    warp_pixels(pixels, np.array(matrix).reshape(2, 3), (size, size), out=out)
    if row["clip"] > 0:
        out[:] = clahe(torch.from_numpy(out)[None, None], row["clip"], TILE_GRID)[0, 0].numpy()
    tone = row["gamma"], row["brightness"], row["contrast"]
    if tone != (1, 1, 1) and whole:
        cv2.LUT(out, curves(*np.array(tone)[:, None])[0], dst=out)
    elif tone != (1, 1, 1):
        out[:] = adjust_on_device(torch.from_numpy(out)[None, None], *tone)[0, 0].numpy()
    if row["sigma"] > 0:
        blur_pixels(out, row["sigma"])
    if row["noise"] > 0:
        noise = _noise_table()[row["seed"] : row["seed"] + size * size].reshape(size, size)
        strength = row["noise"] * (255 if whole else 1)
        cv2.addWeighted(out, 1.0, noise, strength, 0.0, dst=out, dtype=cv2.CV_8U if whole else cv2.CV_32F)
    if not whole:
        np.clip(out, 0, 1, out=out)


def views_on_device(images: Tensor, drawn: Drawn, size: int) -> Tensor:
    """Do what `make_views` does with torch, for the whole batch at once, wherever `images` are.

    The host never waits for the device and nothing loops over images: which images a step is for is known on the host.
    From the same parameters, at most 0.1 % of the pixels of a uint8 view differ from OpenCV's, by 8 gray levels at most
    (where a steep curve spreads a rounding). float32 views differ by 0.0001 of the range at most where CLAHE is off.
    With CLAHE a rounding can move a gray level into another bin of the histogram: of 156 such views 0.13 % of the
    pixels differed by more than 0.002, and 4 % of the worst one.
    """
    matrices = view_matrices(drawn, (images.shape[2], images.shape[3]), size)
    out = warp_on_device(images if images.dtype == torch.uint8 else images.to(torch.float32), matrices, (size, size))
    out = apply_where(drawn["clip"] > 0, out, lambda part, here: clahe_on_device(part, drawn["clip"][here], TILE_GRID))
    toned = (drawn["gamma"] != 1) | (drawn["brightness"] != 1) | (drawn["contrast"] != 1)
    if toned.any():
        out = adjust_on_device(out, drawn["gamma"], drawn["brightness"], drawn["contrast"])
    out = apply_where(drawn["sigma"] > 0, out, lambda part, here: blur_on_device(part, drawn["sigma"][here]))
    out = apply_where(
        drawn["noise"] > 0, out, lambda part, here: _noisy(part, drawn["noise"][here], drawn["seed"][here])
    )
    return out if images.dtype == torch.uint8 else out.clamp(0, 1).to(images.dtype)


def _noisy(images: Tensor, std: np.ndarray, seed: np.ndarray) -> Tensor:
    size = images.shape[-1]
    windows = _noise_on(images.device).unfold(0, size * size, 1)  # every place of the table, without a copy
    noise = windows.index_select(0, on_device(seed, images.device)).view(len(images), 1, size, size)
    whole = images.dtype == torch.uint8
    strength = on_device(std * (255 if whole else 1), images.device, torch.float32).view(-1, 1, 1, 1)
    out = noise.mul_(strength).add_(images)
    return out.round_().clamp_(0, 255).to(torch.uint8) if whole else out


def view_matrices(drawn: Drawn, shape: tuple[int, ...], size: int) -> np.ndarray:
    """Where a pixel of each view lies in its image: about the crop's middle, scaled, mirrored, rotated.

    Args:
        drawn: `box`, `angle` and `flip` of `make_views`.
        shape: (height, width) of the images.
        size: pixels along each side of a view.

    Returns:
        float64, shape ``(B, 2, 3)``, for `ops.warp`.
    """
    turn = np.radians(drawn["angle"])
    entries = _affine(drawn["box"].T, np.cos(turn), np.sin(turn), 1 - 2 * drawn["flip"].astype(int), shape, size)
    return np.stack(entries, axis=-1).reshape(-1, 2, 3)


def _affine(box: Any, cosine: Any, sine: Any, side: Any, shape: tuple[int, ...], size: int) -> tuple[Any, ...]:
    """The six entries of a view's map, row by row, of plain numbers or of arrays with one number a view."""
    height, width = shape
    left, top, right, bottom = box
    across, down = (right - left) * (width / size) * side, (bottom - top) * (height / size)
    a, b, c, d = cosine * across, -sine * down, sine * across, cosine * down
    middle = (size - 1) / 2
    x, y = (left + right) * (width / 2) - 0.5, (top + bottom) * (height / 2) - 0.5
    return a, b, x - (a + b) * middle, c, d, y - (c + d) * middle


@lru_cache(maxsize=1)
def _noise_table() -> np.ndarray:
    return np.random.Generator(np.random.Philox(0)).standard_normal(NOISE_PIXELS, dtype=np.float32)


@lru_cache(maxsize=4)
def _noise_on(device: torch.device) -> Tensor:
    return on_device(_noise_table(), device)
