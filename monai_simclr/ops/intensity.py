"""Intensity: the windows of DICOM, and gamma, brightness and contrast as one curve."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

__all__ = ["Amount", "WindowFunction", "adjust", "curve", "window"]

WindowFunction = Literal["LINEAR_EXACT", "LINEAR", "SIGMOID"]
Amount = float | np.ndarray | Tensor
"""One number for a whole batch, or one for each image, shape ``(B,)``."""


def window(images: Tensor, center: Amount, width: Amount, function: WindowFunction = "LINEAR_EXACT") -> Tensor:
    """Map the intensities of a window to [0, 1] and clip what lies outside, as a DICOM display does.

    Args:
        images: batch, shape ``(B, C, H, W)``, any unit and real dtype.
        center: middle of the window, in the unit of `images`: a number, or shape ``(B,)``.
        width: width of the window, in the unit of `images`: a number, or shape ``(B,)``. Greater than 0; LINEAR
            needs at least 1.
        function: the VOI LUT function of DICOM PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) and
            C.11.2.1.3.2 (LINEAR_EXACT). LINEAR is made for integers and moves the middle by half a level.

    Returns:
        New floating point tensor of the shape of `images` (float32 where `images` holds integers), values in [0, 1].

    Raises:
        ValueError: if a width is too small, a number is not finite, or the function is unknown.

    Example:
        >>> images = torch.tensor([0.0, 30.0, 40.0, 50.0]).view(1, 1, 1, 4)
        >>> window(images, center=40, width=40).flatten()
        tensor([0.0000, 0.2500, 0.5000, 0.7500])
    """
    images = images if images.is_floating_point() else images.to(torch.float32)
    center, width = _per_image("center", center, images), _per_image("width", width, images)
    least = 1.0 if function == "LINEAR" else 0.0
    if not ((width >= 1) if function == "LINEAR" else (width > 0)).all():
        bound = f"at least {least:g}" if function == "LINEAR" else "greater than 0"
        raise ValueError(f"window width of {function} must be {bound}, got {width.flatten().tolist()}")
    if function == "LINEAR_EXACT":
        return ((images - center) / width + 0.5).clamp(0, 1)
    if function == "LINEAR":  # a width of 1 is a step: all at or below center - 0.5 is 0, the rest 1
        step = (images > center - 0.5).to(images.dtype)
        ramp = ((images - (center - 0.5)) / (width - 1).clamp(min=1e-12) + 0.5).clamp(0, 1)
        return torch.where(width == 1, step, ramp)
    if function == "SIGMOID":
        return torch.sigmoid(4 * (images - center) / width)
    raise ValueError(f"window function must be LINEAR_EXACT, LINEAR or SIGMOID, got {function!r}")


def adjust(images: Tensor, gamma: Amount = 1.0, brightness: Amount = 1.0, contrast: Amount = 1.0) -> Tensor:
    """Change gamma, then brightness, then contrast: ``((x ** gamma) * brightness - 0.5) * contrast + 0.5``, clipped.

    Args:
        images: batch, shape ``(B, C, H, W)``: uint8, or floating point in [0, 1].
        gamma: exponent, greater than 0; above 1 darkens. A number, or shape ``(B,)``.
        brightness: factor, at least 0. A number, or shape ``(B,)``.
        contrast: factor about mid-gray, at least 0. A number, or shape ``(B,)``.

    Returns:
        New tensor of the shape, dtype and device of `images`. uint8 on the CPU goes through one look-up table an image;
        everything else is arithmetic and agrees with it within one gray level.

    Raises:
        ValueError: if a number is out of its range, or `images` is of another dtype.

    Example:
        >>> adjust(torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3), gamma=2, brightness=1.2).flatten()
        tensor([0.0000, 0.3000, 1.0000])
    """
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"images must be uint8 or floating point in [0, 1], got {images.dtype}")
    working = images if images.is_floating_point() else images.to(torch.float32) / 255
    amounts = {"gamma": gamma, "brightness": brightness, "contrast": contrast}
    factors = {name: _per_image(name, amount, working) for name, amount in amounts.items()}
    for name, factor in factors.items():
        if (factor < 0).any() or (name == "gamma" and (factor == 0).any()):
            raise ValueError(
                f"{name} must be {'greater than' if name == 'gamma' else 'at least'} 0, got {amounts[name]}"
            )
    if images.device.type == "cpu" and images.dtype == torch.uint8:
        rows = np.broadcast_arrays(np.zeros(len(images)), *(f.flatten().numpy() for f in factors.values()))[1:]
        return _look_up(images, [curve(*map(float, row)) for row in zip(*rows, strict=True)])
    out = working.clamp(min=0) ** factors["gamma"] * factors["brightness"]
    out = ((out - 0.5) * factors["contrast"] + 0.5).clamp(0, 1)
    return out if images.is_floating_point() else (out * 255).round().to(torch.uint8)


def curve(gamma: float, brightness: float, contrast: float) -> np.ndarray:
    """The look-up table of `adjust` for uint8.

    Returns:
        uint8, shape ``(256,)``: where each gray level goes.

    Example:
        >>> bool((curve(1.0, 1.0, 1.0) == np.arange(256)).all())
        True
    """
    levels = _LEVELS if gamma == 1.0 else _LEVELS**gamma
    scale, shift = 255 * brightness * contrast, 127.5 * (1 - contrast)
    return np.rint(np.clip(levels * scale + shift, 0, 255)).astype(np.uint8)


_LEVELS = np.arange(256) / 255


def _look_up(images: Tensor, tables: list[np.ndarray]) -> Tensor:
    pixels = images.numpy()
    return torch.from_numpy(
        np.stack([cv2.LUT(np.ascontiguousarray(p), t) for p, t in zip(pixels, tables, strict=True)])
    )


def _per_image(name: str, amount: Amount, images: Tensor) -> Tensor:
    tensor = torch.as_tensor(amount, device=images.device).to(images.dtype)
    if tensor.ndim > 1 or tensor.numel() not in (1, len(images)):
        raise ValueError(f"{name} must be one number or {len(images)}, one for each image, got {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} must be finite, got {tensor.tolist()}")
    return tensor.view(-1, 1, 1, 1)
