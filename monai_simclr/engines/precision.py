"""Mixed precision on any device: an inferer that runs the network under autocast.

MONAI's trainers know automatic mixed precision on CUDA only. bfloat16 needs no loss scaling, so wrapping the forward
pass is
all that it takes, on CPUs that have it as well as on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

__all__ = ["AutocastInferer"]


class AutocastInferer(Inferer):
    """Run a network under `torch.autocast` and give its output back in float32.

    Args:
        precision: ``"bfloat16"`` or ``"float32"`` (no autocast).

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
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return network(inputs, *args, **kwargs).float()
