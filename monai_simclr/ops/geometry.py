"""Geometry of whole images: one affine warp for a whole batch."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_simclr.ops.amounts import on_device


def warp(images: Tensor, matrices: Tensor | np.ndarray, size: tuple[int, int], fill: float | None = None) -> Tensor:
    """Move every image by its own affine map, with linear interpolation, in one pass.

    Args:
        images: batch, shape ``(B, C, H, W)``, any real dtype.
        matrices: shape ``(B, 2, 3)``; each maps (column, row, 1) of a pixel of the *result* to (column, row) in the
            image. Pixel centers have integer coordinates, as in OpenCV.
        size: (height, width) of the result in pixels.
        fill: value of what lies outside the image; None repeats the border.

    Returns:
        New tensor, shape ``(B, C, *size)``, of the dtype and on the device of `images`. uint8 and float32 on the CPU
        are OpenCV's ``warpAffine``, everything else is torch's ``grid_sample``. The two agree within one grey level of
        uint8 and 0.002 of the range of float32 inside the image; with a `fill` the outermost pixel may blend otherwise.

    Raises:
        ValueError: if there is not one matrix for each image.

    Example:
        >>> images = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)
        >>> warp(images, np.array([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]), (3, 3))[0, 0]  # one pixel to the left
        tensor([[1, 2, 2],
                [4, 5, 5],
                [7, 8, 8]], dtype=torch.uint8)
    """
    if tuple(matrices.shape) != (len(images), 2, 3):
        raise ValueError(
            f"{len(images)} images need matrices of shape {(len(images), 2, 3)}, got {tuple(matrices.shape)}"
        )
    if images.device.type != "cpu" or images.dtype not in (torch.uint8, torch.float32):
        return warp_on_device(images, matrices, size, fill)
    maps = np.asarray(matrices, dtype=np.float64)
    out = np.empty((*images.shape[:2], *size), dtype=images.numpy().dtype)
    for image, matrix, target in zip(images.numpy(), maps, out, strict=True):
        for channel, plane in zip(image, target, strict=True):
            warp_pixels(channel, matrix, size, fill, out=plane)
    return torch.from_numpy(out)


def warp_pixels(
    pixels: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    fill: float | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Warp one plane, shape ``(H, W)``, uint8 or float32, on the CPU, into `out` if it is given."""
    border = cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT
    return cv2.warpAffine(
        pixels,
        matrix,
        size[::-1],
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
        borderValue=[0.0 if fill is None else fill],
    )


def warp_on_device(
    images: Tensor, matrices: Tensor | np.ndarray, size: tuple[int, int], fill: float | None = None
) -> Tensor:
    """Do what `warp` does with torch, for the whole batch at once, wherever `images` are."""
    working = torch.promote_types(images.dtype, torch.float32) if images.is_floating_point() else torch.float32
    grid = _grid(matrices, (images.shape[2], images.shape[3]), size, images.device, working)
    source = images.to(working) if fill is None else images.to(working) - fill
    padding = "border" if fill is None else "zeros"
    out = F.grid_sample(source, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    out = out if fill is None else out + fill
    return out.to(images.dtype) if images.is_floating_point() else out.round().to(images.dtype)


def _grid(
    matrices: Tensor | np.ndarray,
    source: tuple[int, int],
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Where each pixel of the result lies in the image, in `grid_sample`'s [-1, 1], shape ``(B, *size, 2)``."""
    numbers = matrices.detach().cpu().numpy() if isinstance(matrices, Tensor) else matrices
    # the normalization goes into the matrix, on the host and in float64: one pass less over the pixels
    extent = np.array([source[1], source[0]], dtype=np.float64)[:, None]
    scaled = 2 * np.asarray(numbers, dtype=np.float64) / extent
    scaled[:, :, 2] += 1 / extent[:, 0] - 1
    a = on_device(scaled, device, dtype)[:, None, None]  # (B, 1, 1, 2, 3)
    rows, columns = (torch.arange(n, device=device, dtype=dtype) for n in size)
    return (a[..., 0] * columns[:, None] + a[..., 2]) + a[..., 1] * rows[:, None, None]
