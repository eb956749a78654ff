"""Intensity: the windows of DICOM, gamma, brightness and contrast as one curve, and blur."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_simclr.ops.amounts import Amount, Backend, check_canonical, on_device, per_image, runs_in_opencv

WindowFunction = Literal["LINEAR_EXACT", "LINEAR", "SIGMOID"]


def window(images: Tensor, center: Amount, width: Amount, function: WindowFunction = "LINEAR_EXACT") -> Tensor:
    """Map the intensities of a window to [0, 1] and clip what lies outside, as a DICOM display does.

    Args:
        images: batch, shape ``(B, C, ...)``, any unit, any real dtype, any number of spatial dimensions.
        center: middle of the window, in the unit of `images`: a number, or shape ``(B,)``.
        width: width of the window, likewise; greater than 0, for LINEAR at least 1.
        function: the VOI LUT function of DICOM PS3.3 C.11.2.1.2.1 (LINEAR, for integers: the middle is half a level
            off), C.11.2.1.3.1 (SIGMOID) or C.11.2.1.3.2 (LINEAR_EXACT).

    Returns:
        New floating point tensor (float32 for integers) of the shape of `images`, in [0, 1]; a NaN stays NaN.

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
        ValueError: if a number is out of its range, or `images` is of another dtype or floating point far out of
            [0, 1] (see `ops.check_canonical`).

    Example:
        >>> adjust(torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3), gamma=2, brightness=1.2).flatten()
        tensor([0.0000, 0.3000, 1.0000])
    """
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"images must be uint8 or floating point in [0, 1], got {images.dtype}")
    check_canonical(images)
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
    """The look-up tables of `adjust`, uint8 ``(B, 256)``, from factors of shape ``(B,)``.

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


def gaussian_blur(images: Tensor, sigma: Amount, backend: Backend = "auto") -> Tensor:
    """Convolve every image with its own Gaussian, cut at three standard deviations, the border repeated.

    Args:
        images: batch, shape ``(B, C, H, W)``, uint8 or floating point.
        sigma: standard deviation in pixels, at least 0 (0 leaves the image as it is): a number, or shape ``(B,)``.
        backend: "auto" takes OpenCV's ``sepFilter2D``, which rounds uint8 once, for uint8 and float32 on the CPU. They
            agree within one gray level of uint8 and 1e-5 of float32.

    Returns:
        New tensor of the shape, dtype and device of `images`.

    Raises:
        ValueError: if a standard deviation is negative or not finite, or there is not one for each image.

    Example:
        >>> gaussian_blur(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 5), sigma=0.5).flatten()
        tensor([2.6387e-04, 1.0645e-01, 7.8657e-01, 1.0645e-01, 2.6387e-04])
    """
    sigmas = per_image("sigma", sigma, len(images), 0.0)
    if runs_in_opencv(images, backend):
        out = images.detach().clone().contiguous()
        for image, width in zip(out.numpy(), sigmas, strict=True):
            taps = cv2.getGaussianKernel(2 * int(np.ceil(3 * width)) + 1, width)
            for plane in image if width > 0 else ():
                cv2.sepFilter2D(plane, -1, taps, taps, dst=plane, borderType=cv2.BORDER_REPLICATE)
        return out
    count, channels, height, width = images.shape
    working = images if images.is_floating_point() else images.to(torch.float32)
    reach = int(np.ceil(3 * sigmas.max(initial=0.0)))
    distance = np.abs(np.arange(-reach, reach + 1))
    weights = np.exp(-0.5 * (distance / np.maximum(sigmas, 1e-6)[:, None]) ** 2)
    weights[distance > np.ceil(3 * sigmas)[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    kernels = on_device(weights, images.device, working.dtype).repeat_interleave(channels, 0)
    planes = working.reshape(1, count * channels, height, width)
    for shape, pad in (((1, -1), (reach, reach, 0, 0)), ((-1, 1), (0, 0, reach, reach))):
        kernel = kernels.view(count * channels, 1, *shape)
        planes = F.conv2d(F.pad(planes, pad, mode="replicate"), kernel, groups=count * channels)
    out = planes.reshape(images.shape)
    return out if images.is_floating_point() else out.round().clamp(0, 255).to(images.dtype)
