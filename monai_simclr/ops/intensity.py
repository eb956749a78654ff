"""Intensity: the windows of DICOM, and gamma, brightness and contrast as one curve."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from monai_simclr.ops.amounts import Amount, Backend, on_device, per_image, runs_in_opencv

WindowFunction = Literal["LINEAR_EXACT", "LINEAR", "SIGMOID"]


def window(images: Tensor, center: Amount, width: Amount, function: WindowFunction = "LINEAR_EXACT") -> Tensor:
    """Map the intensities of a window to [0, 1] and clip what lies outside, as a DICOM display does.

    Args:
        images: batch, shape ``(B, C, ...)``, any unit, any real dtype, any number of spatial dimensions.
        center: middle of the window, in the unit of `images`: a number, or shape ``(B,)``.
        width: width of the window, in the unit of `images`: a number, or shape ``(B,)``. Greater than 0; LINEAR
            needs at least 1.
        function: the VOI LUT function of DICOM PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) and
            C.11.2.1.3.2 (LINEAR_EXACT). LINEAR is made for integers and moves the middle by half a level.

    Returns:
        New floating point tensor of the shape of `images` (float32 where `images` holds integers), values in [0, 1].
        A NaN stays NaN.

    Raises:
        ValueError: if a width is too small, a number is not finite, or the function is unknown.

    Example:
        >>> images = torch.tensor([0.0, 30.0, 40.0, 50.0]).view(1, 1, 1, 4)
        >>> window(images, center=40, width=40).flatten()
        tensor([0.0000, 0.2500, 0.5000, 0.7500])
    """
    if function not in get_args(WindowFunction):
        raise ValueError(f"window function must be LINEAR_EXACT, LINEAR or SIGMOID, got {function!r}")
    minimum = 1.0 if function == "LINEAR" else 0.0
    centers = per_image("window center", center, len(images))
    widths = per_image(f"window width of {function}", width, len(images), minimum, exclusive=function != "LINEAR")
    working = images if images.is_floating_point() else images.to(torch.float32)
    shape = (-1, *[1] * (images.ndim - 1))
    middle, span = (on_device(n, images.device, working.dtype).view(shape) for n in (centers, widths))
    if function == "SIGMOID":
        return torch.sigmoid(4 * (working - middle) / span)
    if function == "LINEAR_EXACT":
        return ((working - middle) / span + 0.5).clamp(0, 1)
    # a width of 1 is a step: all at or below center - 0.5 is 0, the rest 1
    ramp = (working - (middle - 0.5)) / (span - 1).clamp(min=1e-12) + 0.5
    step = torch.where(working.isnan(), working, (working > middle - 0.5).to(working.dtype))
    return torch.where(span == 1, step, ramp.clamp(0, 1))


def adjust(
    images: Tensor,
    gamma: Amount = 1.0,
    brightness: Amount = 1.0,
    contrast: Amount = 1.0,
    backend: Backend = "auto",
) -> Tensor:
    """Change gamma, then brightness, then contrast: ``((x ** gamma) * brightness - 0.5) * contrast + 0.5``, clipped.

    Args:
        images: batch, shape ``(B, C, H, W)``: uint8, or floating point in [0, 1].
        gamma: exponent, greater than 0; above 1 darkens. A number, or shape ``(B,)``.
        brightness: factor, at least 0. A number, or shape ``(B,)``.
        contrast: factor about mid-gray, at least 0. A number, or shape ``(B,)``.
        backend: "auto" takes OpenCV's look-up for uint8 on the CPU; the result is the same.

    Returns:
        New tensor of the shape, dtype and device of `images`. uint8 goes through one look-up table per image;
        floating point is arithmetic and agrees with it within one gray level.

    Raises:
        ValueError: if a number is out of its range, or `images` is of another dtype.

    Example:
        >>> adjust(torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3), gamma=2, brightness=1.2).flatten()
        tensor([0.0000, 0.3000, 1.0000])
    """
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"images must be uint8 or floating point in [0, 1], got {images.dtype}")
    count, device = len(images), images.device
    gammas = per_image("gamma", gamma, count, 0.0, exclusive=True)
    factors = per_image("brightness", brightness, count, 0.0), per_image("contrast", contrast, count, 0.0)
    if images.dtype == torch.uint8:
        tables = curves(gammas, *factors)
        if runs_in_opencv(images, backend):
            pairs = zip(images.numpy(), tables, strict=True)
            return torch.from_numpy(np.stack([cv2.LUT(np.ascontiguousarray(image), table) for image, table in pairs]))
        first = torch.arange(count, dtype=torch.int32, device=device).view(-1, 1, 1, 1) * 256
        places = images.to(torch.int32).add_(first).reshape(-1)
        return on_device(tables.reshape(-1), device).index_select(0, places).view(images.shape)
    power, scale, shift = (on_device(n, device, images.dtype).view(-1, 1, 1, 1) for n in (gammas, *_line(*factors)))
    out = images.clamp(min=0)
    if (gammas != 1).any():  # known on the host
        out = out.pow(power)
    return out.mul(scale).add_(shift).clamp_(0, 1)


def curves(gamma: np.ndarray, brightness: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """The look-up tables of `adjust` for uint8, from factors of shape ``(B,)``.

    Returns:
        uint8, shape ``(B, 256)``: the new value of each gray level.

    Example:
        >>> bool((curves(np.ones(1), np.ones(1), np.ones(1))[0] == np.arange(256)).all())
        True
    """
    scale, shift = _line(brightness, contrast)
    levels = (_LEVELS ** gamma[:, None]) * (255 * scale[:, None])
    levels += 255 * shift[:, None]
    np.clip(levels, 0, 255, out=levels)
    return np.rint(levels, out=levels).astype(np.uint8)


_LEVELS = np.arange(256) / 255


def _line(brightness: np.ndarray, contrast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brightness and contrast as one straight line: factor and summand, in shares of the range."""
    return brightness * contrast, 0.5 * (1 - contrast)
