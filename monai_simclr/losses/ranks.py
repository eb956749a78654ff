"""What the loss asks of other processes. No gradient passes here: see `ntxent` for why none is needed."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gathered", "processes"]


def processes() -> tuple[int, int]:
    """How many processes there are, and which one this is: ``(1, 0)`` without ``torch.distributed``."""
    ready = dist.is_available() and dist.is_initialized()
    return (dist.get_world_size(), dist.get_rank()) if ready else (1, 0)


def gathered(tensor: Tensor, world: int) -> Tensor:
    """The tensors of all processes, of equal shapes, one after the other along the first dimension."""
    if world == 1:
        return tensor
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(world)]
    dist.all_gather(parts, tensor)
    return torch.cat(parts)
