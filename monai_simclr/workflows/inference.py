"""Predict the files of a folder, once or for as long as it is watched, in one process or several."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from torch.utils.data import DataLoader

from monai_simclr import recipes
from monai_simclr.data.loading import leave_signals
from monai_simclr.data.pseudonyms import hash_key
from monai_simclr.inference import (
    InferenceConfig,
    Journal,
    OutputOptions,
    PredictionWriter,
    Runtime,
    read_inference_config,
    use_runtime,
    write_tables,
)
from monai_simclr.inference.config import hash_settings
from monai_simclr.inference.runtimes import describe_difference
from monai_simclr.networks import FindingClassifier, load_classifier
from monai_simclr.ops.chest_check import ChestCheck
from monai_simclr.runtime.distributed import all_gather_int, is_main_process, rank, world_size
from monai_simclr.runtime.metrics import closing_line, write_metrics
from monai_simclr.runtime.progress import Wording, shown_progress
from monai_simclr.runtime.signals import Preempted, StopSignals
from monai_simclr.workflows.arrivals import Arrivals
from monai_simclr.workflows.calling import calling_parser
from monai_simclr.workflows.dicomweb import DicomWeb
from monai_simclr.workflows.identity import config_identity
from monai_simclr.workflows.run import Run

logger = logging.getLogger("monai_simclr")

_ROWS = 2
"""Form of a journal's rows; rows of another form are predicted again."""

_WITHOUT_EFFECT = ("network#", "run#0", "evaluator#network", "dataset#data")
"""Parts of the config that change no row: how the network is distributed, the start of the run, which files."""

_LOADER_OPTIONS = (
    *("batch_size", "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "prefetch_factor"),
)

_WORDING = Wording("predicting", "predicted", "could not be read")

_KEPT = "every row that was predicted is kept; run the same command to resume"


def infer(
    run: Run,
    path: str | Path,
    evaluator: SupervisedEvaluator,
    dataset_dir: str | Path | Sequence[str | Path],
    outputs: OutputOptions,
    watch: float = 0.0,
    runtime: Runtime = "torch",
) -> None:
    """Predict every file that has no row yet, and write the tables.

    A watched folder may be empty, and may disappear and come back; see `Arrivals` for what each look predicts. The
    evaluator runs over data loaders like its own, with the files of a look.

    Args:
        run: settings of the run.
        path: the trained classifier, with its inference config next to it.
        evaluator: runs a `FindingClassifier` over an `InferenceDataset`.
        dataset_dir: folder, paths of files, or the address of a DICOMweb service with a query, whose radiographs are
            fetched to ``incoming`` in the output folder (see `Worklist`).
        outputs: what is written in addition to the predictions; `stow` sends the DICOM results to that service.
        watch: seconds between two looks at the folder; 0 looks once.
        runtime: what computes the features, see `use_runtime`.

    Raises:
        FileNotFoundError: without a classifier or the file of the runtime, or without files (while watching: without a
            folder at the start).
        ValueError: if images would be prepared otherwise than in training.
        FileExistsError: if another process writes to the same output folder.
        Preempted: on SIGTERM and SIGUSR1, after the current batch; `KeyboardInterrupt` likewise on Ctrl-C.
    """
    config = read_inference_config(path)
    config.check_preprocessing(recipes.settings(run.size))
    if not isinstance(evaluator.network, FindingClassifier):
        raise ValueError(
            f"the evaluator's network must be a FindingClassifier, got {type(evaluator.network).__name__}; each rank "
            "has files of its own and cannot wait for the others as DistributedDataParallel does: pass @network_def"
        )
    network = load_classifier(evaluator.network, path, run.device)
    config = replace(config, runtime=use_runtime(network, path, runtime))
    if runtime == "int8":
        logger.warning(f"int8 is not float32: {describe_difference(config.runtime['difference'])}")
    parser = calling_parser()
    settings = {} if parser is None else config_identity(parser, ("run", "network_def"))
    identity = {
        "model": config.model_sha256,
        "runtime": config.runtime,
        "operating": hash_settings({name: vars(point) for name, point in config.operating.items()}),
        "outputs": vars(outputs),
        "rows": _ROWS,
        "config": {name: value for name, value in settings.items() if not name.startswith(_WITHOUT_EFFECT)},
        "chest_check": ChestCheck.shipped().checksum,
    }
    if is_main_process():
        hash_key(run.output_dir)  # one rank makes the key, the others wait for it and read it
    all_gather_int(0)
    key = hash_key(run.output_dir)
    with closing(Journal(run.output_dir, identity, rank())) as journal:
        writer = PredictionWriter(config, network, journal, outputs, watching=watch > 0)
        template = leave_signals(_with_files(cast(DataLoader, evaluator.data_loader), [], key))
        service = DicomWeb(dataset_dir, run.output_dir, outputs, watch)
        arrivals = Arrivals(service.folder, journal.done, key, watch)
        signals = StopSignals()
        signals.catch()
        writer.attach(evaluator)
        try:
            for _ in _looks(watch, signals):
                service.fetch()
                files = arrivals.look()
                if files:
                    _predict(evaluator, _with_files(template, files, key), journal, signals)
                service.store()
                if not watch or any(all_gather_int(len(files))):  # all ranks finish, or none: they meet there
                    _finish(run, config, journal)
        except (KeyboardInterrupt, Preempted):
            if world_size() == 1:  # other ranks may not have been stopped, and their rows are in their journals
                _finish(run, config, journal)
            raise
        finally:
            writer.detach(evaluator)
            signals.release()


def _with_files(batches: DataLoader, files: Sequence[Mapping[str, str]], key: str) -> DataLoader:
    """A data loader like another one, over other files."""
    dataset: Any = copy.copy(batches.dataset)
    dataset.data, dataset.key = list(files), key
    return DataLoader(dataset, **{name: getattr(batches, name) for name in _LOADER_OPTIONS})


def _looks(watch: float, signals: StopSignals) -> Iterator[None]:
    """Once, or again and again with a pause between two looks."""
    yield
    while watch > 0:
        with signals.at_once(_KEPT):
            time.sleep(watch)
        yield


def _predict(evaluator: SupervisedEvaluator, batches: DataLoader, journal: Journal, signals: StopSignals) -> None:
    """Run over the files, show the progress (on the first rank, of its own share), and stop between two batches."""
    start, seen, refused = len(journal.rows), len(journal.rows), 0

    def show() -> None:
        nonlocal seen, refused
        refused += sum(row["probabilities"] is None for row in journal.rows[seen:])
        seen = len(journal.rows)
        if progress is not None:
            progress(seen - start, len(cast(Sized, batches.dataset)), refused)
        if signals.received:
            signals.leave(signals.received, _KEPT)

    with shown_progress(_WORDING) if is_main_process() else nullcontext() as progress:
        show()
        # the writer was attached before, so its rows of the batch are in the journal
        with evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda: show()):
            evaluator.state.max_epochs = None  # ignite: start a new run instead of resuming the last one
            Engine.run(evaluator, batches)  # MONAI's own `run` takes no data


def _finish(run: Run, config: InferenceConfig, journal: Journal) -> None:
    """Write the tables and the counts, and log where they are (on the first rank, after all ranks have come here)."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    if not is_main_process():
        return
    rows = journal.all_rows()
    refused, flagged = (sum(row["probabilities"] is None for row in rows), sum(bool(row["flags"]) for row in rows))
    counts = {"files": len(rows), "predicted": len(rows) - refused, "refused": refused, "flagged": flagged}
    paths = write_tables(rows, config, run.output_dir)
    paths.append(write_metrics(run.output_dir, counts, command="inference", split="", seed=run.seed, n=counts))
    logger.info(
        f"{len(rows) - refused} of {len(rows)} files have predictions ({flagged} of all have a flag and no decision), "
        f"{refused} a reason instead"
    )
    logger.info(closing_line(paths, "read the model card's limits: not for diagnosis"))
