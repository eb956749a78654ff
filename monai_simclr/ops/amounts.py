"""What operations on batches share: amounts, the range of floating point, backends, steps for some images only."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Amount = float | np.ndarray | Tensor
"""One number for a whole batch, or one for each image, shape ``(B,)``; on the host, or it is copied there."""

_SLACK = 0.5

Backend = Literal["auto", "torch"]
"""What computes: OpenCV for the dtypes it takes on the CPU and torch for the rest, or always torch, whole batches."""


def per_image(
    name: str, amount: Amount, count: int, minimum: float | None = None, exclusive: bool = False
) -> np.ndarray:
    """Check an amount and spread it over the images of a batch, as float64 ``(count,)`` on the host.

    It must be at least `minimum`, or above it (`exclusive`); errors have its `name`.

    Raises:
        ValueError: if a number is out of range or not finite, or there is not one for each image.

    Example:
        >>> per_image("gamma", 2, count=3)
        array([2., 2., 2.])
    """
    numbers = np.asarray(amount.detach().cpu() if isinstance(amount, Tensor) else amount, dtype=np.float64)
    if numbers.ndim > 1 or numbers.size not in (1, count):
        raise ValueError(f"{name} must be one number or {count}, one for each image, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got {numbers.tolist()}")
    if minimum is not None and ((numbers <= minimum) if exclusive else (numbers < minimum)).any():
        bound = "greater than" if exclusive else "at least"
        raise ValueError(f"{name} must be {bound} {minimum:g}, got {numbers.tolist()}")
    return numbers.reshape(-1) if numbers.size == count else np.full(count, numbers.item())


def on_device(numbers: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy numbers to a device without making the host wait (through pinned memory where there is CUDA)."""
    tensor = torch.from_numpy(np.array(numbers)).to(dtype=dtype)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def runs_in_opencv(
    images: Tensor, backend: Backend, dtypes: Collection[torch.dtype] = (torch.uint8, torch.float32)
) -> bool:
    """Whether an operation takes OpenCV, which works on the CPU, on `dtypes`."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {list(get_args(Backend))}, got {backend!r}")
    return backend == "auto" and images.device.type == "cpu" and images.dtype in dtypes


def check_canonical(images: Tensor) -> None:
    """Refuse floating point that is far out of [0, 1]: gray levels of 0 to 255, or standardized values.

    Operations clip to [0, 1], so that such images would become all white or lose their dark half. What noise, cubic
    interpolation and small shifts of the brightness add is within half of the range on either side, and passes; so does
    NaN. Only the CPU is asked: the host does not wait for another device.

    Raises:
        ValueError: if a pixel is below -0.5 or above 1.5.

    Example:
        >>> check_canonical(torch.tensor([0.0, 1.01]))
        >>> check_canonical(torch.tensor([0.0, 233.0]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: a canonical image has values in [0, 1], got 0 to 233; scale it first, ...
    """
    if not images.is_floating_point() or images.device.type != "cpu" or images.numel() == 0:
        return
    low, high = (float(bound) for bound in images.detach().aminmax())
    if math.isnan(low):  # one NaN makes both bounds NaN
        low, high = (float(bound) for bound in images.detach().nan_to_num(0.0, torch.inf, -torch.inf).aminmax())
    if low < -_SLACK or high > 1 + _SLACK:
        raise ValueError(
            f"a canonical image has values in [0, 1], got {low:g} to {high:g}; scale it first, for example with "
            "ScaleIntensity"
        )


def apply_where(chosen: np.ndarray, images: Tensor, step: Callable[[Tensor, np.ndarray], Tensor]) -> Tensor:
    """Apply a step, which keeps shape and dtype, to the chosen images of a batch, and give it their numbers.

    `chosen` is bool ``(B,)`` on the host, so that nothing waits for the device. Where none is chosen, the result is
    `images` itself.

    Example:
        >>> apply_where(np.array([False, True]), torch.ones(2, 1), lambda part, rows: part + 1).flatten()
        tensor([1., 2.])
    """
    rows = np.flatnonzero(chosen)
    if len(rows) in (0, len(images)):
        return step(images, rows) if len(rows) else images
    index = on_device(rows, images.device)
    done = step(images.index_select(0, index), rows)
    if images.dtype == torch.uint16:  # torch cannot write to some rows of it; the bits are those of int16
        return images.view(torch.int16).index_copy(0, index, done.view(torch.int16)).view(torch.uint16)
    return images.index_copy(0, index, done)
