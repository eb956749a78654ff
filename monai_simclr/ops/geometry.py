"""Geometry of whole batches: an affine warp of each image, and stored images at the size that a network sees."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_simclr.ops.amounts import Backend, on_device, runs_in_opencv
from monai_simclr.ops.resize import pad_resize


def warp(
    images: Tensor,
    matrices: Tensor | np.ndarray,
    size: tuple[int, int],
    fill: float | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Move every image by its own affine map, with linear interpolation, in one pass.

    Args:
        images: batch, shape ``(B, C, H, W)``, any real dtype.
        matrices: shape ``(B, 2, 3)``; each maps (column, row, 1) of a pixel of the *result* to (column, row) in the
            image. Pixel centers have integer coordinates, as in OpenCV.
        size: (height, width) of the result in pixels.
        fill: value outside the image; None repeats the border.
        backend: "auto" takes OpenCV's ``warpAffine`` for uint8 and float32 on the CPU, else torch's ``grid_sample``.
            They agree within one gray level of uint8 and 0.002 of the range of float32 inside the image; with a `fill`
            the outermost pixel may blend otherwise.

    Returns:
        New tensor, shape ``(B, C, *size)``, of the dtype and on the device of `images`.

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
    maps = np.asarray(matrices.detach().cpu() if isinstance(matrices, Tensor) else matrices, dtype=np.float64)
    if runs_in_opencv(images, backend):
        border = cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT
        how: dict[str, Any] = {
            "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            "borderMode": border,
            "borderValue": [fill or 0.0],
        }
        warped = np.empty((*images.shape[:2], *size), dtype=images.numpy().dtype)
        for image, matrix, target in zip(images.numpy(), maps, warped, strict=True):
            for channel, plane in zip(image, target, strict=True):
                cv2.warpAffine(channel, matrix, size[::-1], dst=plane, **how)
        return torch.from_numpy(warped)
    working = torch.promote_types(images.dtype, torch.float32) if images.is_floating_point() else torch.float32
    # the normalization to grid_sample's [-1, 1] goes into the matrix, on the host: one pass less over the pixels
    extent = np.array([images.shape[3], images.shape[2]], dtype=np.float64)[:, None]
    scaled = 2 * maps / extent
    scaled[:, :, 2] += 1 / extent[:, 0] - 1
    a = on_device(scaled, images.device, working)[:, None, None]  # (B, 1, 1, 2, 3)
    rows, columns = (torch.arange(n, device=images.device, dtype=working) for n in size)
    grid = (a[..., 0] * columns[:, None] + a[..., 2]) + a[..., 1] * rows[:, None, None]
    source = images.to(working) if fill is None else images.to(working) - fill
    padding = "border" if fill is None else "zeros"
    out = F.grid_sample(source, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    out = out if fill is None else out + fill
    return out.to(images.dtype) if images.is_floating_point() else out.round().to(images.dtype)


def to_network_input(images: Tensor, size: int) -> Tensor:
    """Resize stored images, uint8 ``(B, 1, S, S)``, to what a network sees: float32 ``(B, 1, size, size)`` in [0, 1].

    OpenCV averages the areas on the CPU, so that every device sees the same numbers.

    Raises:
        ValueError: if `images` is not such a batch.

    Example:
        >>> to_network_input(torch.full((1, 1, 8, 8), 51, dtype=torch.uint8), 7)[0, 0, 0, :2]
        tensor([0.2000, 0.2000])
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 1 or images.shape[2] != images.shape[3]:
        raise ValueError(f"stored images are uint8 (B, 1, S, S), got {images.dtype} {tuple(images.shape)}")
    resized = np.empty((len(images), 1, size, size), dtype=np.uint8)
    for image, target in zip(images.cpu().numpy(), resized, strict=True):
        target[0] = pad_resize(image[0], size)
    return torch.from_numpy(resized).to(images.device).to(torch.float32).div_(255)
