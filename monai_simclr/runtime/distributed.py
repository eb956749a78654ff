"""The processes of one run: how many there are, which one this is, what all of them know, how they start and end."""

from __future__ import annotations

import functools
import logging
import os
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from monai_simclr.runtime.exit_codes import format_error
from monai_simclr.runtime.files import write_json

logger = logging.getLogger("monai_simclr")


def world_size() -> int:
    """Number of processes that train together; 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def processes() -> tuple[int, int]:
    """`world_size` and `rank`."""
    return world_size(), rank()


def is_main_process() -> bool:
    """Whether this is the process that writes files and logs.

    Example:
        >>> is_main_process()
        True
    """
    return rank() == 0


def even_batch(batch_size: int, images: int) -> int:
    """A batch over all ranks; of fewer images than that, as many as the ranks can share evenly.

    Example:
        >>> even_batch(32, images=100), even_batch(32, images=9)
        (32, 9)
    """
    return batch_size if images >= batch_size else max(images // world_size(), 1) * world_size()


def all_gather_int(number: int) -> list[int]:
    """The numbers of all ranks, in their order; every rank must call this at the same point.

    It goes through the CPU (gloo), also where gradients go through NCCL, so that it does not wait for a GPU.

    Example:
        >>> all_gather_int(3)
        [3]
    """
    if world_size() == 1:
        return [number]
    numbers = [torch.zeros((), dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(numbers, torch.tensor(number, dtype=torch.int64), group=_cpu_group())
    return [int(item) for item in numbers]


@functools.lru_cache(maxsize=1)
def _cpu_group() -> dist.ProcessGroup | None:
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def gathered(tensor: Tensor, world: int) -> Tensor:
    """The tensors of all processes, of equal shapes, concatenated along the first dimension."""
    if world == 1:
        return tensor
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(world)]
    dist.all_gather(parts, tensor)
    return torch.cat(parts)


def share_weights(network: nn.Module) -> None:
    """Give every rank the first rank's parameters; every rank must call this at the same point."""
    if world_size() > 1:
        for parameter in network.parameters():
            dist.broadcast(parameter.data, 0)


def init_distributed(device: torch.device | str, minutes: float = 30.0, after: Any = None) -> None:
    """Join the processes that torchrun started: nccl on GPUs, gloo on CPUs. From then on only the first one logs.

    Args:
        device: of this process.
        minutes: maximum time to wait for a rank that is alive and silent; a rank that has died is noticed at once
            (gloo), or by torchrun, which ends all others.
        after: what a config must have built before the ranks wait for each other, as an image store.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=minutes))
    if not is_main_process():
        logging.getLogger("monai_simclr").setLevel(logging.ERROR)


def destroy_distributed() -> None:
    """Leave the other processes together, once gloo's own thread has nothing left to clean up.

    That thread drops the gradients' last Python objects, for which it needs the interpreter; a process that destroys
    the group at that moment holds the interpreter and waits for the thread, forever (seen in torch 2.13, in the
    destructor of ProcessGroupGloo below DistributedDataParallel's). Sleeping releases the interpreter.
    """
    dist.barrier()
    time.sleep(0.3)
    dist.destroy_process_group()


def distributed(network: nn.Module, device: torch.device | str) -> nn.Module:
    """A network on its device; of several ranks, gradients averaged, batch statistics over all ranks (on GPUs only)."""
    device = torch.device(device)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if world_size() == 1:
        return network
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return nn.parallel.DistributedDataParallel(network, device_ids=[device])
    if any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) for module in network.modules()):
        logger.info(
            "batch statistics are those of each rank (torch synchronizes them on GPUs only): the result is near that "
            "of one rank with the whole batch, not equal to it"
        )
    return nn.parallel.DistributedDataParallel(network)


def record_failure(error: BaseException) -> None:
    """Report an error to torchrun, whose summary then names the rank that failed first, with its message."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        write_json(path, {"message": format_error(error), "timestamp": str(int(time.time()))})
