"""Mixed precision on any device: an inferer that runs the network under autocast.

MONAI's trainers have automatic mixed precision on CUDA only. bfloat16 needs no loss scaling, so autocast around the
forward pass is enough, on CPUs that support it as well as on GPUs. float16 needs the scaler of MONAI's ``amp=True``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor

logger = logging.getLogger("monai_simclr")

Precision = Literal["float32", "bfloat16", "float16"]
"""Precision of the network's computations; parameters, the loss and the optimizer stay in float32."""


class AutocastInferer(Inferer):
    """Run a network under `torch.autocast` and return its output in float32.

    Args:
        precision: ``"bfloat16"``, or ``"float32"`` (no autocast).

    Raises:
        ValueError: for another name; float16 needs loss scaling, which is MONAI's `amp=True` on CUDA.
    """

    def __init__(self, precision: str = "bfloat16") -> None:
        super().__init__()
        if precision not in ("bfloat16", "float32"):
            raise ValueError(
                f"precision must be 'bfloat16' or 'float32', got {precision!r}; for float16 on CUDA use the trainer's "
                "amp=True"
            )
        self.precision, self._warned = precision, False

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        bfloat16 = self.precision == "bfloat16"
        if bfloat16 and inputs.device.type == "cpu" and not self._warned and not has_bfloat16():
            self._warned = True
            logger.warning("this CPU has no bfloat16 instructions: float32 is faster on it; pass --precision float32")
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16):
            return network(inputs, *args, **kwargs).float()


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16, as far as torch can tell; otherwise it is emulated, slowly.

    Example:
        >>> type(has_bfloat16()).__name__
        'bool'
    """
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return known.get("architecture") != "x86_64" or bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def inferer_for(precision: Precision) -> Inferer:
    """The inferer of a `ContrastiveTrainer`; for float16 the plain one, as MONAI's autocast is around the whole step.

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
    """Arguments of a MONAI trainer for a precision: its `inferer`, and `amp` where gradients must be scaled.

    Raises:
        ValueError: if there is no such precision, or it is float16 and the device is not a GPU.

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
