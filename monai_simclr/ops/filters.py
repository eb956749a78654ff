"""Smoothing, every image with its own width."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_simclr.ops.intensity import Amount

__all__ = ["gaussian_blur"]


def gaussian_blur(images: Tensor, sigma: Amount) -> Tensor:
    """Convolve every image with its own Gaussian, cut at three standard deviations, the border repeated.

    Args:
        images: batch, shape ``(B, C, H, W)``, uint8 or floating point.
        sigma: standard deviation in pixels, at least 0 (0 leaves the image as it is): a number, or shape ``(B,)``.

    Returns:
        New tensor of the shape, dtype and device of `images`. uint8 and float32 on the CPU are OpenCV's
        ``GaussianBlur``, everything else is torch; the two agree within one gray level of uint8 and 1e-5 of float32.

    Raises:
        ValueError: if a standard deviation is negative or not finite, or there is not one for each image.

    Example:
        >>> gaussian_blur(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 5), sigma=0.5).flatten()
        tensor([2.6387e-04, 1.0645e-01, 7.8657e-01, 1.0645e-01, 2.6387e-04])
    """
    sigmas = np.broadcast_to(np.asarray(torch.as_tensor(sigma).cpu(), dtype=np.float64).reshape(-1), len(images))
    if not (np.isfinite(sigmas).all() and (sigmas >= 0).all()):
        raise ValueError(f"sigma must be finite and at least 0 pixels, got {sigmas.tolist()}")
    if images.device.type == "cpu" and images.dtype in (torch.uint8, torch.float32):
        return _blur_opencv(images, sigmas)
    return _blur_torch(images, sigmas)


def kernel_size(sigma: float) -> int:
    """Number of taps, odd, that hold three standard deviations on both sides."""
    return 2 * int(np.ceil(3 * sigma)) + 1


def _blur_opencv(images: Tensor, sigmas: np.ndarray) -> Tensor:
    out = images.detach().clone().contiguous()
    for image, sigma in zip(out.numpy(), sigmas, strict=True):
        if sigma == 0:
            continue
        size = kernel_size(sigma)
        for plane in image:
            plane[:] = cv2.GaussianBlur(plane, (size, size), sigma, borderType=cv2.BORDER_REPLICATE)
    return out


def _blur_torch(images: Tensor, sigmas: np.ndarray) -> Tensor:
    count, channels, height, width = images.shape
    working = images if images.is_floating_point() else images.to(torch.float32)
    kernels = _kernels(sigmas).to(images.device, working.dtype).repeat_interleave(channels, 0)  # (B * C, taps)
    reach = kernels.shape[1] // 2
    planes = working.reshape(1, count * channels, height, width)
    for shape, pad in (((1, -1), (reach, reach, 0, 0)), ((-1, 1), (0, 0, reach, reach))):
        weight = kernels.view(count * channels, 1, *shape)
        planes = F.conv2d(F.pad(planes, pad, mode="replicate"), weight, groups=count * channels)
    out = planes.reshape(images.shape)
    return out if images.is_floating_point() else out.round().clamp(0, 255).to(images.dtype)


def _kernels(sigmas: np.ndarray) -> Tensor:
    sizes = [kernel_size(sigma) for sigma in sigmas]
    kernels = torch.zeros(len(sizes), max(sizes, default=1), dtype=torch.float64)
    for row, size, sigma in zip(kernels, sizes, sigmas, strict=True):
        start = (len(row) - size) // 2
        taps = cv2.getGaussianKernel(size, sigma).ravel() if sigma > 0 else np.ones(1)
        row[start : start + size] = torch.from_numpy(taps)
    return kernels
