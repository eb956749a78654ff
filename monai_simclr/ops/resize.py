"""Images of any shape to squares of one size, and canonical images to stored ones; OpenCV, without torch."""

from __future__ import annotations

import cv2
import numpy as np


def pad_resize(pixels: np.ndarray, size: int, squash: bool = False) -> np.ndarray:
    """Pad an image to a square with zeros and resize it, so that its shape fits and its aspect ratio stays.

    Args:
        pixels: one image, shape ``(H, W)``, uint8, uint16 or float32.
        size: pixels along each side of the result, at least 1.
        squash: resize without padding and lose the aspect ratio, for comparison with pipelines that do.

    Returns:
        New array, shape ``(size, size)``, of the same dtype. The image is in the middle; an odd pixel of padding
        goes below and right. Shrinking averages areas (OpenCV's ``INTER_AREA``), growing interpolates linearly.

    Raises:
        ValueError: if `pixels` is another array or `size` is less than 1.

    Example:
        >>> pad_resize(np.full((2, 4), 9, dtype=np.uint8), 4)
        array([[0, 0, 0, 0],
               [9, 9, 9, 9],
               [9, 9, 9, 9],
               [0, 0, 0, 0]], dtype=uint8)
    """
    if pixels.ndim != 2 or 0 in pixels.shape or pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"an image (H, W) of uint8, uint16 or float32 is needed, got {pixels.dtype} {pixels.shape}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    (height, width), square = pixels.shape, pixels
    if height != width and not squash:
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = np.zeros((side, side), pixels.dtype)
        square[top : top + height, left : left + width] = pixels
    if square.shape == (size, size):
        return square.copy() if square is pixels else square
    how = cv2.INTER_AREA if max(square.shape) > size else cv2.INTER_LINEAR
    return cv2.resize(square, (size, size), interpolation=how)


def undo_pad_resize(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bring a square map, float32 or uint8 ``(S, S)``, back to the `shape` (H, W) of the image that was made square.

    Example:
        >>> undo_pad_resize(np.arange(16, dtype=np.float32).reshape(4, 4), (2, 4))
        array([[ 4.,  5.,  6.,  7.],
               [ 8.,  9., 10., 11.]], dtype=float32)
    """
    (height, width), side = shape, max(shape)
    square = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
    top, left = (side - height) // 2, (side - width) // 2
    return square[top : top + height, left : left + width].copy()


_ROUNDING = 1e-3
"""How far interpolation may leave [0, 1]: too little for another gray level."""


def quantize(pixels: np.ndarray, size: int, squash: bool = False) -> np.ndarray:
    """`pad_resize` a canonical image, float32 in [0, 1], and round it to uint8, as the image store holds it.

    Raises:
        ValueError: if a pixel is out of [0, 1] by more than a rounding (0.001), or NaN.

    Example:
        >>> quantize(np.array([[0.0, 1.0]], dtype=np.float32), 2)
        array([[  0, 255],
               [  0,   0]], dtype=uint8)
    """
    low, high = float(np.min(pixels)), float(np.max(pixels))
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # a NaN fails too
        raise ValueError(
            f"a canonical image has values in [0, 1], got {low:g} to {high:g}; read it with RadiographReader"
        )
    return np.rint(pad_resize(np.asarray(pixels, dtype=np.float32), size, squash) * 255).astype(np.uint8)
