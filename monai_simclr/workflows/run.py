"""What every command of the bundle shares: its settings, its executed config, how its errors end."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import traceback
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_simclr.engines.precision import resolve_precision
from monai_simclr.handlers.checkpoint import check_same
from monai_simclr.networks import PRETRAINED
from monai_simclr.runtime.distributed import is_main_process, rank, record_failure, world_size
from monai_simclr.runtime.exit_codes import SettingError, exit_code, format_error
from monai_simclr.runtime.files import write_json
from monai_simclr.runtime.locks import lock_folder, unlock_folder
from monai_simclr.runtime.names import register_escapes
from monai_simclr.runtime.signals import ignore_stops, stop_at_once
from monai_simclr.workflows.calling import calling_workflow
from monai_simclr.workflows.identity import config_identity
from monai_simclr.workflows.settings import check_settings

logger = logging.getLogger("monai_simclr")

DEBUG_VARIABLE = "MONAI_SIMCLR_DEBUG"
"""Set to anything, it shows the traceback of every error of a bundle command."""


@dataclass(frozen=True)
class Run:
    """Settings that every command has.

    Attributes:
        output_dir: folder of the run, for ``config.json``, ``metrics.json`` and results.
        size: side of the network's input in pixels.
        seed: of all random numbers.
        device: of the networks.
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


def initialize() -> None:
    """A config's first step: from here on errors end in one line and an exit code; then `check_settings`.

    Errors, SIGTERM and SIGUSR1 are handled in `python -m monai.bundle` only, and settings checked in a workflow only:
    in another Python session, or for an app that builds single parts of a config, nothing changes.

    Raises:
        SettingError: names the settings, what came and what is possible.
    """
    if getattr(sys.modules["__main__"].__spec__, "name", "") == "monai.bundle.__main__":
        sys.excepthook = _exit_with_message
        stop_at_once("what was saved is kept")  # a trainer that saves catches the signals while it runs
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors=register_escapes())
        logging.getLogger("ignite.engine").setLevel(logging.CRITICAL)  # it would report each error twice before us
        atexit.register(gc.freeze)  # nothing is searched for garbage at the end: two seconds with MONAI imported
    workflow = calling_workflow()
    if workflow is not None:
        check_settings(workflow)


def start_run(run: Run, writes: str | Path | None = None) -> None:
    """Lock the folder of a bundle command and record its executed config, overrides included.

    It is the first step of ``run`` and not of ``initialize``, so that those who only look at a bundle
    (`monai.bundle.load`, `create_workflow`, `check_properties`) leave no file anywhere; and a step of its own, because
    a config's arguments are built before a call: a run that is refused here must not decode an archive first.

    The config goes to ``output_dir/config.json``. Of a run that may be resumed `RecordConfig` writes it, after the run
    was compared: a refused command leaves the config of what ran. Outside a bundle run nothing is written or locked.
    The lock is released with the workflow. Of several ranks the first one locks and writes.

    Args:
        run: settings of the command.
        writes: the encoder that the run will write; what is there is replaced at the end, which is logged.

    Raises:
        SettingError: if `writes` does not end in ``.safetensors``, which is what is written.
        FileExistsError: if another process works in the folder, the folder holds a run of other settings, or `writes`
            is an encoder that is installed with the package.
    """
    if writes is not None and Path(writes).suffix != ".safetensors":
        raise SettingError(
            f"encoder_path must end in .safetensors, the format of the encoder that is written, got {str(writes)!r}"
        )
    if writes is not None and Path(writes).resolve() in {path.resolve() for path in PRETRAINED.values()}:
        raise FileExistsError(
            f"{writes} is installed with monai-simclr and stays as it is; pass another --encoder_path, or copy the "
            "bundle with monai-simclr bundle DIR"
        )
    if writes is not None and Path(writes).exists():
        logger.info(f"{writes} is there already; the encoder of this run will replace it")
    workflow = calling_workflow()
    if workflow is None:
        return
    if is_main_process():
        lock_folder(run.output_dir)
        weakref.finalize(workflow, unlock_folder, run.output_dir)
    parser, checkpoints = workflow.parser, run.path("checkpoints")
    if "monai_simclr.workflows.initialize" not in str(parser.get(workflow.init_id)):
        check_settings(workflow)  # initial steps of the user's own
    if checkpoints.exists() and "train#checkpoint" in parser:
        if parser.get("train#identity#_target_") == "monai_simclr.workflows.run_identity":
            check_same(checkpoints, config_identity(parser))
    else:
        RecordConfig(run)()


@dataclass(frozen=True)
class RecordConfig:
    """Record the executed config of a run that starts or resumes; a handler that follows its `Checkpoint`.

    Its precision is what "auto" stood for, so that the recorded config computes the same on any machine; whom its
    `dataset_dir` names is left out (`without_names`).

    Attributes:
        run: settings of the run.
    """

    run: Run

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine | None = None) -> None:
        workflow = calling_workflow()
        if workflow is not None and is_main_process():
            config = without_names(workflow.parser.config)  # type: ignore[arg-type]
            if "precision" in config:
                precision = resolve_precision(workflow.parser.get_parsed_content("precision"), self.run.device)
                config["precision"] = precision
            write_json(self.run.path("config.json"), config, default=str)


def without_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config for the record, without what its `dataset_dir` says of patients.

    The address of a DICOMweb service stands without its query, and files of an inference as their number, unless its
    `outputs` keep paths.

    Example:
        >>> without_names({"dataset_dir": "dicomweb+https://host/web?PatientName=DOE"})
        {'dataset_dir': 'dicomweb+https://host/web'}
        >>> without_names({"dataset_dir": ["doe.dcm", "roe.dcm"], "outputs": {"paths": False}})["dataset_dir"]
        '2 files'
    """
    given, outputs = config.get("dataset_dir"), config.get("outputs")
    shown = given
    if isinstance(given, str) and "://" in given:
        shown = given.partition("?")[0]
    elif isinstance(outputs, Mapping) and "paths" in outputs and outputs["paths"] is not True:
        if isinstance(given, (list, tuple)):
            shown = f"{len(given)} file{'s' * (len(given) != 1)}"
        elif isinstance(given, (str, Path)) and Path(given).is_file():
            shown = "1 file"
    return {**config, **({} if shown is given else {"dataset_dir": shown})}


def _exit_with_message(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End with one line on stderr and the error's exit code; a traceback comes first for a bug, or when asked for."""
    ranks, line = world_size(), format_error(error)
    if ranks > 1:
        ignore_stops()  # several machines are not asked to stop in the same moment
        line = f"rank {rank()}: {line}"
    # torch holds back what comes to sys.stderr in a hook of ranks, and would write it after the end
    stream = sys.__stderr__ if ranks > 1 else sys.stderr
    if exit_code(error) == 1 or os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(kind, error, trace, file=stream)
    record_failure(error)
    print(f"{line}\n", end="", file=stream, flush=True)  # at once, for other ranks write too
    if ranks > 1:
        sys.stdout.flush()
        os._exit(exit_code(error))  # the other ranks may be gone, and a regular exit would wait for them
    raise SystemExit(exit_code(error))
