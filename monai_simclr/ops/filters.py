"""Smoothing, every image with its own width."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_simclr.ops.amounts import Amount, Backend, on_device, per_image, runs_in_opencv


def gaussian_blur(images: Tensor, sigma: Amount, backend: Backend = "auto") -> Tensor:
    """Convolve every image with its own Gaussian, cut at three standard deviations, the border repeated.

    Args:
        images: batch, shape ``(B, C, H, W)``, uint8 or floating point.
        sigma: standard deviation in pixels, at least 0 (0 leaves the image as it is): a number, or shape ``(B,)``.
        backend: "auto" takes OpenCV's ``sepFilter2D`` for uint8 and float32 on the CPU, which rounds uint8 once (its
            ``GaussianBlur`` rounds twice and takes three times as long). They agree within one gray level of uint8 and
            1e-5 of float32.

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
