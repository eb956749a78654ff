"""Smoothing, every image with its own width."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_simclr.ops.amounts import Amount, on_device, per_image


def gaussian_blur(images: Tensor, sigma: Amount) -> Tensor:
    """Convolve every image with its own Gaussian, cut at three standard deviations, the border repeated.

    Args:
        images: batch, shape ``(B, C, H, W)``, uint8 or floating point.
        sigma: standard deviation in pixels, at least 0 (0 leaves the image as it is): a number, or shape ``(B,)``.

    Returns:
        New tensor of the shape, dtype and device of `images`. uint8 and float32 on the CPU go through OpenCV's
        ``sepFilter2D``, which rounds uint8 once (its ``GaussianBlur`` rounds twice and takes three times as long),
        everything else through torch. The two agree within one gray level of uint8 and 1e-5 of float32.

    Raises:
        ValueError: if a standard deviation is negative or not finite, or there is not one for each image.

    Example:
        >>> gaussian_blur(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 5), sigma=0.5).flatten()
        tensor([2.6387e-04, 1.0645e-01, 7.8657e-01, 1.0645e-01, 2.6387e-04])
    """
    if images.device.type != "cpu" or images.dtype not in (torch.uint8, torch.float32):
        return blur_on_device(images, sigma)
    out = images.detach().clone().contiguous()
    for image, width in zip(out.numpy(), per_image("sigma", sigma, len(images), 0.0), strict=True):
        for plane in image if width > 0 else ():
            blur_pixels(plane, width)
    return out


def blur_pixels(pixels: np.ndarray, sigma: float) -> None:
    """Blur one plane, shape ``(H, W)``, uint8 or float32, on the CPU, in place."""
    taps = cv2.getGaussianKernel(2 * _reach(sigma) + 1, sigma)
    cv2.sepFilter2D(pixels, -1, taps, taps, dst=pixels, borderType=cv2.BORDER_REPLICATE)


def blur_on_device(images: Tensor, sigma: Amount) -> Tensor:
    """Do what `gaussian_blur` does with torch, for the whole batch at once, wherever `images` are."""
    sigmas = per_image("sigma", sigma, len(images), 0.0)
    count, channels, height, width = images.shape
    working = images if images.is_floating_point() else images.to(torch.float32)
    reach = _reach(sigmas.max(initial=0.0))
    taps = on_device(_taps(sigmas, reach), images.device, working.dtype).repeat_interleave(channels, 0)
    planes = working.reshape(1, count * channels, height, width)
    for shape, pad in (((1, -1), (reach, reach, 0, 0)), ((-1, 1), (0, 0, reach, reach))):
        weight = taps.view(count * channels, 1, *shape)
        planes = F.conv2d(F.pad(planes, pad, mode="replicate"), weight, groups=count * channels)
    out = planes.reshape(images.shape)
    return out if images.is_floating_point() else out.round().clamp(0, 255).to(images.dtype)


def _reach(sigma: float) -> int:
    """Pixels on each side that hold three standard deviations."""
    return int(np.ceil(3 * sigma))


def _taps(sigmas: np.ndarray, reach: int) -> np.ndarray:
    """Weights of each Gaussian, shape ``(B, 2 * reach + 1)``, zero beyond its own three standard deviations."""
    distance = np.abs(np.arange(-reach, reach + 1))
    taps = np.exp(-0.5 * (distance / np.maximum(sigmas, 1e-6)[:, None]) ** 2)
    taps[distance > np.ceil(3 * sigmas)[:, None]] = 0
    return taps / taps.sum(axis=1, keepdims=True)
