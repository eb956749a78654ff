"""The second half of preprocessing: what the store holds to what a network sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from monai_simclr.ops.resize import pad_resize


def to_network_input(images: Tensor, size: int) -> Tensor:
    """Resize stored images to what a network sees, float32 in [0, 1].

    Args:
        images: stored images, uint8, shape ``(B, 1, S, S)``, on any device.
        size: pixels along each side of the result.

    Returns:
        New float32 tensor, shape ``(B, 1, size, size)``, on the device of `images`: areas averaged by OpenCV on the
        CPU, so that every device sees the same numbers.

    Raises:
        ValueError: if `images` is no such batch.

    Example:
        >>> to_network_input(torch.full((1, 1, 8, 8), 51, dtype=torch.uint8), 7)[0, 0, 0, :2]
        tensor([0.2000, 0.2000])
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 1 or images.shape[2] != images.shape[3]:
        raise ValueError(f"stored images are uint8 (B, 1, S, S), got {images.dtype} {tuple(images.shape)}")
    pixels = images.cpu().numpy()
    resized = np.empty((len(pixels), 1, size, size), dtype=np.uint8)
    for image, target in zip(pixels, resized, strict=True):
        target[0] = pad_resize(image[0], size)
    return torch.from_numpy(resized).to(images.device).to(torch.float32) / 255
