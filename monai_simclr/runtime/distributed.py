"""The processes of one run: how many there are, which one this is, and what all of them say to a question."""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["answers", "even_batch", "gathered", "is_first", "processes", "rank", "world_size"]


def world_size() -> int:
    """How many processes train together; 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that writes and speaks.

    Example:
        >>> is_first()
        True
    """
    return rank() == 0


def even_batch(batch_size: int, images: int) -> int:
    """A batch over all ranks; where there are fewer images than that, as many of them as the ranks share evenly.

    Example:
        >>> even_batch(32, images=100), even_batch(32, images=9)
        (32, 9)
    """
    return batch_size if images >= batch_size else max(images // world_size(), 1) * world_size()


def answers(number: int) -> list[int]:
    """The number that each rank gives, in the order of the ranks; every rank must ask at the same point.

    It goes through the CPU (gloo), also where gradients go through NCCL, so that no GPU is waited for.

    Example:
        >>> answers(3)
        [3]
    """
    if world_size() == 1:
        return [number]
    given = [torch.zeros((), dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(given, torch.tensor(number, dtype=torch.int64), group=_cpu_group())
    return [int(one) for one in given]


@functools.lru_cache(maxsize=1)
def _cpu_group() -> dist.ProcessGroup | None:
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def processes() -> tuple[int, int]:
    """How many processes there are, and which one this is: ``(1, 0)`` without ``torch.distributed``."""
    return world_size(), rank()


def gathered(tensor: Tensor, world: int) -> Tensor:
    """The tensors of all processes, of equal shapes, one after the other along the first dimension."""
    if world == 1:
        return tensor
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(world)]
    dist.all_gather(parts, tensor)
    return torch.cat(parts)
