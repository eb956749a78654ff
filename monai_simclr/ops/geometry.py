"""Geometry of whole images: one affine warp for a whole batch."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["warp"]


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
