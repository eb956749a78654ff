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

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""Precision of the network's computations; parameters, the loss and the optimizer stay in float32."""


class AutocastInferer(Inferer):
    """Run a network under `torch.autocast` and return its output in float32.

    Args:
        precision: ``"bfloat16"``, ``"float32"`` (no autocast), or ``"auto"``, see `resolve_precision`.

    Raises:
        ValueError: for another name; float16 needs loss scaling, which is MONAI's `amp=True` on CUDA.
    """

    def __init__(self, precision: str = "auto") -> None:
        super().__init__()
        if precision not in ("auto", "bfloat16", "float32"):
            raise ValueError(
                f"precision must be 'auto', 'bfloat16' or 'float32', got {precision!r}; for float16 on CUDA use the "
                "trainer's amp=True"
            )
        self.precision, self._warned = precision, False

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        if self.precision == "auto":
            self.precision = resolve_precision("auto", inputs.device)
        bfloat16 = self.precision == "bfloat16"
        if bfloat16 and inputs.device.type == "cpu" and not self._warned and _emulates_bfloat16():
            self._warned = True
            logger.warning("this CPU has no bfloat16 instructions: float32 is faster on it; pass --precision float32")
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16):
            return network(inputs, *args, **kwargs).float()


def has_bfloat16(device: str | torch.device = "cpu") -> bool:
    """Whether a processor or GPU computes in bfloat16 by itself, as far as torch can tell; others emulate it, slowly.

    Example:
        >>> type(has_bfloat16()).__name__
        'bool'
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and any(name.endswith("bf16") and bool(there) for name, there in _capabilities().items())


def _capabilities() -> dict[str, Any]:
    return getattr(torch.cpu, "get_capabilities", dict)()  # type: ignore[no-any-return]


def _emulates_bfloat16() -> bool:
    """Whether that is known; torch knows all instructions of x86 only."""
    return _capabilities().get("architecture") == "x86_64" and not has_bfloat16()


def resolve_precision(precision: Precision, device: str | torch.device) -> Precision:
    """What "auto" stands for on a device: bfloat16 where `has_bfloat16`, else float32; others are what they say.

    Example:
        >>> resolve_precision("auto", "cpu") in ("bfloat16", "float32"), resolve_precision("float32", "cpu")
        (True, 'float32')
    """
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


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
