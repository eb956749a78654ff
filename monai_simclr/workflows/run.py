"""What every command of the bundle shares: its settings, its executed config, how its errors end."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import weakref
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType

import torch
from ignite.engine import Engine, Events

from monai_simclr.handlers.checkpoint import check_same
from monai_simclr.runtime.distributed import is_main_process, rank, record_failure, world_size
from monai_simclr.runtime.exit_codes import exit_code, format_error, stop_at_once
from monai_simclr.runtime.files import write_json
from monai_simclr.runtime.locks import lock_folder, unlock_folder
from monai_simclr.runtime.names import register_escapes
from monai_simclr.workflows.identity import config_identity
from monai_simclr.workflows.settings import check_workflow, running_workflow

DEBUG_VARIABLE = "MONAI_SIMCLR_DEBUG"
"""Set to anything, it shows the traceback of every error of a bundle command."""

_CHECK = "monai_simclr.workflows.check_settings"
_CHECKPOINT, _IDENTITY = "train#checkpoint", "train#identity#_target_"
"""Where a config whose runs may go on has its `Checkpoint`, and what says which run it is."""


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", torch.device(self.device))  # a command line gives its name

    def path(self, name: str) -> Path:
        """Path of a file of this run."""
        return Path(self.output_dir) / name


def install_excepthook() -> None:
    """Let errors, SIGTERM and SIGUSR1 end `python -m monai.bundle` in a sentence and a code; a config's first step.

    Nothing is done in a Python session of somebody else.
    """
    if getattr(sys.modules["__main__"].__spec__, "name", "") == "monai.bundle.__main__":
        sys.excepthook = _end_with_a_sentence
        stop_at_once("what was saved is kept")  # a trainer that saves catches the signals while it runs
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors=register_escapes())
        logging.getLogger("ignite.engine").setLevel(logging.CRITICAL)  # it would say each error twice before us


def start_run(run: Run) -> None:
    """Start a bundle command: hold its folder and keep its executed config.

    It is the first step of ``run`` and not of ``initialize``, so that who only looks at a bundle (`monai.bundle.load`,
    `create_workflow`, `check_properties`) leaves no file anywhere.

    The config goes to ``output_dir/config.json``, overrides included. Where a run may go on, `RecordConfig` writes it,
    after the run was found to be the same: a refused command leaves the config of what ran. Outside a bundle run
    nothing is written and nothing held. The folder is given back when the workflow is gone. Of several ranks the first
    one holds and writes.

    Raises:
        FileExistsError: if another process works in the folder, or the folder holds a run of other settings.
    """
    workflow = running_workflow()
    if workflow is None:
        return
    if is_main_process():
        lock_folder(run.output_dir)
        weakref.finalize(workflow, unlock_folder, run.output_dir)
    parser, checkpoints = workflow.parser, run.path("checkpoints")
    if _CHECK not in str(parser.get(workflow.init_id)):  # a bundle of an earlier version, or steps of the user's own
        check_workflow(workflow)
    if checkpoints.exists() and _CHECKPOINT in parser:
        if parser.get(_IDENTITY) == "monai_simclr.workflows.run_identity":
            check_same(checkpoints, config_identity(parser))
    elif is_main_process():
        write_json(run.path("config.json"), parser.config, default=str)


class RecordConfig:
    """Keep the executed config of a run that starts or goes on; a handler that stands behind its `Checkpoint`.

    Args:
        run: settings of the run.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        workflow = running_workflow()
        if workflow is not None and is_main_process():
            write_json(self.run.path("config.json"), workflow.parser.config, default=str)


def _end_with_a_sentence(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The last line on stderr is ours; a traceback stands above it for a bug of ours, or when it was asked for."""
    if exit_code(error) == 1 or os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(kind, error, trace)
    record_failure(error)
    who = f"rank {rank()}: " if world_size() > 1 else ""
    print(who + format_error(error), file=sys.stderr, flush=True)
    if world_size() > 1:
        sys.stdout.flush()
        os._exit(exit_code(error))  # the other ranks may be gone, and leaving in good order would wait for them
    raise SystemExit(exit_code(error))
