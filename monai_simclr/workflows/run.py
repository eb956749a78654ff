"""What every command of the bundle shares: its settings, its executed config, how its errors end, several ranks."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from monai_simclr.exits import exit_code, last_line
from monai_simclr.files import write_json

__all__ = ["DEBUG_VARIABLE", "Run", "begin", "distributed", "join_ranks"]

DEBUG_VARIABLE = "MONAI_SIMCLR_DEBUG"
"""Set to anything, it shows the traceback of every error of a bundle command."""


@dataclass(frozen=True)
class Run:
    """Settings that every command has.

    Attributes:
        output_dir: folder of the run, for ``config.json``, ``metrics.json`` and what the command makes.
        size: side of the network's images in pixels.
        seed: of everything random.
        device: where networks run.
    """

    output_dir: str
    size: int
    seed: int
    device: torch.device

    def path(self, name: str) -> Path:
        """Path of a file of this run."""
        return Path(self.output_dir) / name


def begin(run: Run) -> None:
    """Start a bundle command: keep its executed config, and let its errors end in a sentence and an exit code.

    The config goes to ``output_dir/config.json``, overrides included. MONAI gives a config's expressions no way to the
    parser that evaluates them, so the parser is taken from the frames that called us; outside a bundle run there is
    none and nothing is written. The hook for errors is set in `python -m monai.bundle` only, never in a Python session
    of somebody else.
    """
    from monai.bundle import ConfigWorkflow

    if getattr(sys.modules["__main__"].__spec__, "name", "") == "monai.bundle.__main__":
        sys.excepthook = _end_with_a_sentence
    frame = sys._getframe()
    while frame is not None:
        workflow = frame.f_locals.get("self")
        if isinstance(workflow, ConfigWorkflow):
            write_json(run.path("config.json"), workflow.parser.config, default=str)
            return
        frame = frame.f_back  # type: ignore[assignment]


def _end_with_a_sentence(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The last line on stderr is ours; a traceback stands above it for a bug of ours, or when it was asked for."""
    if exit_code(error) == 1 or os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(kind, error, trace)
    print(last_line(error), file=sys.stderr, flush=True)
    raise SystemExit(exit_code(error))


def join_ranks(device: torch.device) -> None:
    """Join the processes that torchrun started: nccl on GPUs, gloo on CPUs."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def distributed(network: nn.Module, device: torch.device) -> nn.Module:
    """A network for several ranks: batch statistics over all of them (GPUs only), gradients averaged."""
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
