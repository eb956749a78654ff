"""Drawn views of radiographs, by OpenCV image by image or by torch for the whole batch: the same pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from monai_simclr.ops.amounts import Backend, apply_where, check_canonical, on_device, runs_in_opencv
from monai_simclr.ops.equalization import clahe
from monai_simclr.ops.geometry import warp
from monai_simclr.ops.intensity import adjust, curves, gaussian_blur

TILE_GRID = (8, 8)
NOISE_PIXELS = 1 << 20
"""Noise comes from a fixed table at a drawn place: fresh normal numbers would cost more than the rest of a view."""
_CPU = torch.device("cpu")

Drawn = Mapping[str, np.ndarray]


def make_views(images: Tensor, drawn: Drawn, size: int, backend: Backend = "auto") -> Tensor:
    """Make one view of each image: warp, CLAHE, tone, blur, noise.

    Args:
        images: shape ``(B, 1, H, W)``: uint8, uint16, or floating point in [0, 1].
        drawn: parameters with leading length B, on the host:

            - `box` ``(B, 4)``: left, top, right, bottom of the crop, in shares of the image;
            - `angle`: rotation about the crop's middle in degrees, counterclockwise as seen; `flip`: mirrored or not;
            - `clip`: clip limit of CLAHE, 0 for none; `gamma`, `brightness`, `contrast`: see `ops.adjust`;
            - `sigma`: standard deviation of the blur, in pixels of the view;
            - `noise`: standard deviation in shares of the range, and `seed`: where in the noise table it starts.
        size: pixels along each side of a view.
        backend: "auto" takes OpenCV on the CPU, where uint8 stays uint8 (one warp, one look-up table, one blur) and
            the rest goes through float32. torch makes the whole batch at once: the host never waits, nothing loops
            over images. At most 0.1 % of uint8 pixels differ between the two, by 8 gray levels at most (where a steep
            curve spreads a rounding), and float32 by 0.0001 of the range; with CLAHE of floats, where a rounding can
            move a gray level into another bin, 0.13 % of the pixels of 156 views differed by more than 0.002.

    Returns:
        New tensor, shape ``(B, 1, size, size)``, of the dtype and on the device of `images`. Views of uint8 and of
        float32 differ by less than 1 gray level on average and by 8 at most.

    Raises:
        ValueError: if `images` has another shape or dtype, or is floating point far out of [0, 1] (see
            `ops.check_canonical`).

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
        views = make_views(images.to(torch.float32) / 65535, drawn, size, backend)
        return (views * 65535).round_().to(torch.int32).to(torch.uint16)
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"images must be uint8, uint16 or floating point in [0, 1], got {images.dtype}")
    check_canonical(images)
    if not runs_in_opencv(images, backend, [images.dtype]):
        return _views_in_torch(images, drawn, size)
    pixels = images[:, 0].numpy() if images.dtype == torch.uint8 else images[:, 0].to(torch.float32).numpy()
    columns = {name: value.tolist() for name, value in drawn.items()}  # plain numbers are ten times as fast as NumPy's
    tone = drawn["gamma"], drawn["brightness"], drawn["contrast"]
    if pixels.dtype == np.uint8 and any((factor != 1).any() for factor in tone):
        columns["table"] = curves(*tone)  # in a tenth of the time of one after another
    out = np.empty((len(pixels), 1, size, size), dtype=pixels.dtype)
    for i, image in enumerate(pixels):
        _view_in_opencv(image, {name: column[i] for name, column in columns.items()}, out[i, 0])
    return torch.from_numpy(out).to(images.dtype)


def _view_in_opencv(pixels: np.ndarray, row: Mapping[str, Any], out: np.ndarray) -> None:
    """Make one view of one plane, shape ``(H, W)``, uint8 or float32, in `out`; every step after the first in place."""
    whole, size = pixels.dtype == np.uint8, len(out)
    turn = math.radians(row["angle"])
    matrix = _affine(row["box"], math.cos(turn), math.sin(turn), 1 - 2 * row["flip"], pixels.shape, size)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    affine = np.array(matrix).reshape(2, 3)
    cv2.warpAffine(pixels, affine, (size, size), dst=out, flags=how, borderMode=cv2.BORDER_REPLICATE)
    if row["clip"] > 0:
        out[:] = clahe(torch.from_numpy(out)[None, None], row["clip"], TILE_GRID)[0, 0].numpy()
    tone = row["gamma"], row["brightness"], row["contrast"]
    if tone != (1, 1, 1) and whole:
        cv2.LUT(out, row["table"], dst=out)
    elif tone != (1, 1, 1):
        out[:] = adjust(torch.from_numpy(out)[None, None], *tone)[0, 0].numpy()
    if row["sigma"] > 0:
        taps = cv2.getGaussianKernel(2 * math.ceil(3 * row["sigma"]) + 1, row["sigma"])
        cv2.sepFilter2D(out, -1, taps, taps, dst=out, borderType=cv2.BORDER_REPLICATE)
    if row["noise"] > 0:
        noise = _noise_table(_CPU).numpy()[row["seed"] : row["seed"] + size * size].reshape(size, size)
        strength = row["noise"] * (255 if whole else 1)
        cv2.addWeighted(out, 1.0, noise, strength, 0.0, dst=out, dtype=cv2.CV_8U if whole else cv2.CV_32F)
    if not whole:
        np.clip(out, 0, 1, out=out)


def _views_in_torch(images: Tensor, drawn: Drawn, size: int) -> Tensor:
    """Make all views at once; which images a step is for is known on the host."""
    whole = images.dtype == torch.uint8
    matrices = view_matrices(drawn, (images.shape[2], images.shape[3]), size)
    out = warp(images if whole else images.to(torch.float32), matrices, (size, size), backend="torch")
    clip, sigma, std = drawn["clip"], drawn["sigma"], drawn["noise"]
    out = apply_where(clip > 0, out, lambda part, rows: clahe(part, clip[rows], TILE_GRID, backend="torch"))
    tone = drawn["gamma"], drawn["brightness"], drawn["contrast"]
    if any((factor != 1).any() for factor in tone):
        out = adjust(out, *tone, backend="torch")
    out = apply_where(sigma > 0, out, lambda part, rows: gaussian_blur(part, sigma[rows], backend="torch"))

    def add_noise(part: Tensor, rows: np.ndarray) -> Tensor:
        windows = _noise_table(part.device).unfold(0, size * size, 1)  # every place of the table, without a copy
        noise = windows.index_select(0, on_device(drawn["seed"][rows], part.device)).view(len(part), 1, size, size)
        strength = on_device(std[rows] * (255 if whole else 1), part.device, torch.float32).view(-1, 1, 1, 1)
        noisy = noise.mul_(strength).add_(part)
        return noisy.round_().clamp_(0, 255).to(torch.uint8) if whole else noisy

    out = apply_where(std > 0, out, add_noise)
    return out if whole else out.clamp(0, 1).to(images.dtype)


def view_matrices(drawn: Drawn, shape: tuple[int, ...], size: int) -> np.ndarray:
    """Where a pixel of each view lies in its image, by `box`, `angle` and `flip`: float64 ``(B, 2, 3)`` for `ops.warp`.

    The images have `shape` (height, width), the views `size` pixels along each side.
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


@lru_cache(maxsize=4)
def _noise_table(device: torch.device) -> Tensor:
    return on_device(np.random.Generator(np.random.Philox(0)).standard_normal(NOISE_PIXELS, dtype=np.float32), device)
