"""Geometry of whole images: padding to a square, resizing, and one affine warp for a whole batch."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["fit", "unfit", "warp"]


def fit(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pad an image to a square with zeros and resize it, so that its shape fits and its aspect ratio stays.

    Args:
        pixels: one image, shape ``(H, W)``, uint8, uint16 or float32.
        size: pixels along each side of the result, at least 1.

    Returns:
        New array, shape ``(size, size)``, of the same dtype. The image is in the middle; an odd pixel of padding
        goes below and right. Shrinking averages areas (OpenCV's ``INTER_AREA``), growing interpolates linearly.

    Raises:
        ValueError: if `pixels` is no such array or `size` is less than 1.

    Example:
        >>> fit(np.full((2, 4), 9, dtype=np.uint8), 4)
        array([[0, 0, 0, 0],
               [9, 9, 9, 9],
               [9, 9, 9, 9],
               [0, 0, 0, 0]], dtype=uint8)
    """
    if pixels.ndim != 2 or 0 in pixels.shape or pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"an image (H, W) of uint8, uint16 or float32 is needed, got {pixels.dtype} {pixels.shape}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    square = _square(pixels)
    if len(square) == size:
        return square.copy() if square is pixels else square
    how = cv2.INTER_AREA if len(square) > size else cv2.INTER_LINEAR
    return cv2.resize(square, (size, size), interpolation=how)


def unfit(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bring a square map back onto the image that `fit` made the square of.

    Args:
        pixels: shape ``(S, S)``, float32 or uint8.
        shape: (H, W) of the image.

    Returns:
        New array, shape `shape`, linearly interpolated; what `fit` had added is cut off.

    Example:
        >>> unfit(np.arange(16, dtype=np.float32).reshape(4, 4), (2, 4))
        array([[ 4.,  5.,  6.,  7.],
               [ 8.,  9., 10., 11.]], dtype=float32)
    """
    (height, width), side = shape, max(shape)
    square = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
    top, left = (side - height) // 2, (side - width) // 2
    return square[top : top + height, left : left + width].copy()


def _square(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape
    side = max(height, width)
    if height == width:
        return pixels
    square = np.zeros((side, side), pixels.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


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
    if images.device.type == "cpu" and images.dtype in (torch.uint8, torch.float32):
        return _warp_opencv(images, np.asarray(matrices, dtype=np.float64), size, fill)
    return _warp_torch(images, torch.as_tensor(matrices), size, fill)


def _warp_opencv(images: Tensor, matrices: np.ndarray, size: tuple[int, int], fill: float | None) -> Tensor:
    out = np.empty((*images.shape[:2], *size), dtype=images.numpy().dtype)
    border = cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for image, matrix, target in zip(images.numpy(), matrices, out, strict=True):
        for channel, plane in zip(image, target, strict=True):
            plane[:] = cv2.warpAffine(
                channel, matrix, size[::-1], flags=flags, borderMode=border, borderValue=[0.0 if fill is None else fill]
            )
    return torch.from_numpy(out)


def _warp_torch(images: Tensor, matrices: Tensor, size: tuple[int, int], fill: float | None) -> Tensor:
    working = images.dtype if images.is_floating_point() else torch.float32
    coordinates = torch.promote_types(working, torch.float32)
    matrices = matrices.to(images.device, coordinates)
    rows, columns = (torch.arange(n, device=images.device, dtype=coordinates) for n in size)
    a = matrices[:, :, None, None]  # (B, 2, 1, 1, 3)
    points = a[..., 0] * columns[None, :] + a[..., 1] * rows[:, None] + a[..., 2]  # (B, 2, h, w)
    extent = torch.tensor([images.shape[-1], images.shape[-2]], device=images.device, dtype=coordinates)
    grid = ((2 * points + 1) / extent.view(1, 2, 1, 1) - 1).permute(0, 2, 3, 1)
    source = images.to(coordinates) if fill is None else images.to(coordinates) - fill
    padding = "border" if fill is None else "zeros"
    out = F.grid_sample(source, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    out = out if fill is None else out + fill
    return out.to(images.dtype) if images.is_floating_point() else out.round().to(images.dtype)
