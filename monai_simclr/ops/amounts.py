"""Amounts of an operation: one number for a batch or one for each image, checked on the host before anything runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Amount = float | np.ndarray | Tensor
"""One number for a whole batch, or one for each image, shape ``(B,)``; on the host, or it is copied there."""


def per_image(name: str, amount: Amount, count: int, least: float | None = None, above: bool = False) -> np.ndarray:
    """Check an amount and spread it over a batch.

    Amounts stay on the host: an operation that had to read them from a device would make the host wait for it.

    Args:
        name: what the amount is called, for the error.
        amount: one number, or shape ``(count,)``.
        count: how many images there are.
        least: smallest allowed value; None allows all.
        above: whether `least` itself is too small.

    Returns:
        float64, shape ``(count,)``.

    Raises:
        ValueError: if a number is out of range or not finite, or there is not one for each image.

    Example:
        >>> per_image("gamma", 2, count=3)
        array([2., 2., 2.])
    """
    given = amount.detach().cpu() if isinstance(amount, Tensor) else amount
    numbers = np.asarray(given, dtype=np.float64)
    if numbers.ndim > 1 or numbers.size not in (1, count):
        raise ValueError(f"{name} must be one number or {count}, one for each image, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got {numbers.tolist()}")
    if least is not None and ((numbers <= least) if above else (numbers < least)).any():
        bound = "greater than" if above else "at least"
        raise ValueError(f"{name} must be {bound} {least:g}, got {numbers.tolist()}")
    return numbers.reshape(-1) if numbers.size == count else np.full(count, numbers.item())


def on_device(numbers: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy numbers to a device without making the host wait (through pinned memory where there is CUDA)."""
    tensor = torch.from_numpy(np.array(numbers))
    tensor = tensor if dtype is None else tensor.to(dtype)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def apply_where(chosen: np.ndarray, images: Tensor, step: Callable[[Tensor, np.ndarray], Tensor]) -> Tensor:
    """Apply a step to some images of a batch only; it keeps their shape and dtype.

    Args:
        chosen: bool, shape ``(B,)``, on the host, so that nothing waits for the device.
        images: batch, shape ``(B, ...)``; not written to.
        step: takes the chosen images and their numbers, and returns what they become.

    Returns:
        `images` itself where none is chosen, otherwise a new tensor.

    Example:
        >>> apply_where(np.array([False, True]), torch.ones(2, 1), lambda some, numbers: some + 1).flatten()
        tensor([1., 2.])
    """
    here = np.flatnonzero(chosen)
    if len(here) in (0, len(images)):
        return step(images, here) if len(here) else images
    index = on_device(here, images.device)
    done = step(images.index_select(0, index), here)
    if images.dtype == torch.uint16:  # torch cannot write to some rows of it; the bits are those of int16
        return images.view(torch.int16).index_copy(0, index, done.view(torch.int16)).view(torch.uint16)
    return images.index_copy(0, index, done)
