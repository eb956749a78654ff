"""Mixed precision on any device: an inferer that runs the network under autocast.

MONAI's trainers know automatic mixed precision on CUDA only. bfloat16 needs no loss scaling, so wrapping the forward
pass is all that it takes, on CPUs that have it as well as on GPUs. float16 needs the scaler of MONAI's ``amp=True``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor

logger = logging.getLogger("monai_simclr")

Precision = Literal["float32", "bfloat16", "float16"]
"""In what a network computes; parameters, the loss and the optimizer stay in float32."""


class AutocastInferer(Inferer):
    """Run a network under `torch.autocast` and give its output back in float32.

    Args:
        precision: ``"bfloat16"``, or ``"float32"`` (no autocast).

    Raises:
        ValueError: for another name; float16 needs loss scaling, which is MONAI's `amp=True` on CUDA.
    """

    def __init__(self, precision: str = "bfloat16") -> None:
        super().__init__()
        if precision not in ("bfloat16", "float32"):
            raise ValueError(
                f"precision must be 'bfloat16' or 'float32', got {precision!r}; for float16 on CUDA use the "
                f"trainer's amp=True"
            )
        self.precision = precision

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        if self.precision == "bfloat16" and inputs.device.type == "cpu":
            _warn_of_slow_bfloat16()
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return network(inputs, *args, **kwargs).float()


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16 faster than in float32, as far as torch can tell; if not, it is emulated.

    Example:
        >>> type(has_bfloat16()).__name__
        'bool'
    """
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return told.get("architecture") != "x86_64" or bool(told.get("avx512_bf16") or told.get("amx_bf16"))


@functools.cache
def _warn_of_slow_bfloat16() -> None:
    """Say once that float32 is faster, on a CPU without instructions for bfloat16."""
    if not has_bfloat16():
        logger.warning("this CPU has no bfloat16 instructions: float32 is faster on it; pass --precision float32")


def inferer_for(precision: Precision) -> Inferer:
    """The inferer that goes with a precision in a `ContrastiveTrainer`.

    For float16 the autocast is MONAI's, around the whole step, and the inferer is the plain one.

    Raises:
        ValueError: if there is no such precision.

    Example:
        >>> type(inferer_for("bfloat16")).__name__
        'AutocastInferer'
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    return SimpleInferer() if precision == "float16" else AutocastInferer(precision)


def precision_settings(precision: Precision, device: torch.device) -> dict[str, Any]:
    """What a MONAI trainer needs for a precision: its `inferer`, and `amp` where gradients have to be scaled.

    Raises:
        ValueError: if there is no such precision, or the device is no GPU and it is float16.

    Example:
        >>> sorted(precision_settings("bfloat16", torch.device("cpu")))
        ['inferer']
    """
    inferer = inferer_for(precision)
    if precision != "float16":
        return {"inferer": inferer}
    if device.type != "cuda":
        raise ValueError(f"float16 needs a CUDA device, got {device.type!r}; use precision bfloat16 here")
    return {"inferer": inferer, "amp": True, "amp_kwargs": {"dtype": torch.float16}}
