"""Several processes: how they meet, how a network is shared, and who speaks when one of them fails."""

from __future__ import annotations

import logging
import os
import time
from datetime import timedelta

import torch
from torch import nn

from monai_simclr.runtime.distributed import is_first
from monai_simclr.runtime.exit_codes import last_line
from monai_simclr.runtime.files import write_json

__all__ = ["distributed", "join_ranks", "part_ranks", "record_failure"]

logger = logging.getLogger("monai_simclr")

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def join_ranks(device: torch.device | str, minutes: float = 30.0) -> None:
    """Join the processes that torchrun started: nccl on GPUs, gloo on CPUs. Only the first one speaks from then on.

    Args:
        device: of this process.
        minutes: how long a rank waits for another one that is alive and says nothing, at most; a rank that has died is
            noticed at once (gloo), or by torchrun, which ends all others.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=timedelta(minutes=minutes))
    if not is_first():
        logging.getLogger("monai_simclr").setLevel(logging.ERROR)


def part_ranks() -> None:
    """Leave the other processes in good order: together, and when gloo's own thread has nothing left to clean up.

    That thread drops the gradients' last Python objects, for which it needs the interpreter; a process that takes the
    group down at that moment holds the interpreter and waits for the thread, for ever (seen in torch 2.13, in the
    destructor of ProcessGroupGloo below DistributedDataParallel's). Sleeping gives the interpreter away.
    """
    torch.distributed.barrier()
    time.sleep(0.3)
    torch.distributed.destroy_process_group()


def distributed(network: nn.Module, device: torch.device | str) -> nn.Module:
    """A network for several ranks: batch statistics over all of them (GPUs only), gradients averaged."""
    device = torch.device(device)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return nn.parallel.DistributedDataParallel(network, device_ids=[device])
    if any(isinstance(module, _NORMS) for module in network.modules()):
        logger.info(
            "batch statistics are those of each rank (torch synchronizes them on GPUs only): the result is near that "
            "of one rank with the whole batch, not equal to it"
        )
    return nn.parallel.DistributedDataParallel(network)


def record_failure(error: BaseException) -> None:
    """Tell torchrun what happened, so that its summary names the rank that failed first, with its sentence."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        write_json(path, {"message": last_line(error), "timestamp": str(int(time.time()))})
