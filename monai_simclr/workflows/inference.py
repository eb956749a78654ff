"""Predict the files of a folder, once or for as long as it is watched, in one process or several."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from torch.utils.data import DataLoader

from monai_simclr import recipes
from monai_simclr.data.loading import leave_signals
from monai_simclr.data.pseudonyms import hash_key
from monai_simclr.inference import (
    InferenceConfig,
    InferenceDataset,
    Journal,
    OutputOptions,
    PredictionWriter,
    read_inference_config,
    write_tables,
)
from monai_simclr.inference.card import hash_settings
from monai_simclr.networks import FindingClassifier, load_classifier
from monai_simclr.ops.chest_check import ChestCheck
from monai_simclr.runtime.distributed import all_gather_int, is_main_process, rank, world_size
from monai_simclr.runtime.metrics import closing_line, write_metrics
from monai_simclr.runtime.progress import Wording, shown_progress
from monai_simclr.runtime.signals import Preempted, StopSignals
from monai_simclr.workflows.arrivals import Arrivals
from monai_simclr.workflows.calling import calling_parser
from monai_simclr.workflows.identity import config_identity
from monai_simclr.workflows.run import Run

logger = logging.getLogger("monai_simclr")

_ROWS = 2
"""Form of a journal's rows; those of another form are made anew."""

_HOW = ("network#", "run#0", "evaluator#network")
"""Parts of the config that `multi_gpu_train.json` changes, or that make no row."""

_WORDING = Wording("predicting", "predicted", "could not be read")

_KEPT = "every row that was predicted is kept; run the same command to go on"


def infer(
    run: Run,
    path: str | Path,
    evaluator: SupervisedEvaluator,
    dataset_dir: str | Path | Sequence[str | Path],
    outputs: OutputOptions,
    watch: float = 0.0,
) -> None:
    """Predict every file that has no row yet, and write the tables.

    A watched folder may be empty, and may go away and come back; see `Arrivals` for what is predicted at a look.

    Args:
        run: settings of the run.
        path: the trained classifier; its card lies beside it.
        evaluator: runs the network over an `InferenceDataset`, which is filled here.
        dataset_dir: folder, or paths of files.
        outputs: what goes into a row beside the predictions.
        watch: seconds between two looks at the folder; 0 looks once.

    Raises:
        FileNotFoundError: without a classifier, or without files (while watching: without a folder at the start).
        ValueError: if images would be prepared otherwise than in training.
        FileExistsError: if another process writes to the same output folder.
        Preempted: on SIGTERM and SIGUSR1, after the batch that is going on; `KeyboardInterrupt` likewise on Ctrl-C.
    """
    card = read_inference_config(path)
    card.check_preprocessing(recipes.settings(run.size))
    # ranks have files of their own and must never wait for each other's batches, as DistributedDataParallel would
    evaluator.network = getattr(evaluator.network, "module", evaluator.network)
    network = load_classifier(cast(FindingClassifier, evaluator.network), path, run.device)
    operating = hash_settings({name: vars(one) for name, one in card.operating.items()})
    identity = {
        "model": card.model_sha256,
        "operating": operating,
        "outputs": vars(outputs),
        "rows": _ROWS,
        "config": _config(),
        "chest_check": ChestCheck.shipped().checksum,
    }
    batches = leave_signals(cast(DataLoader, evaluator.data_loader))
    dataset = cast(InferenceDataset, batches.dataset)
    dataset.key = _key(run.output_dir)
    journal = Journal(run.output_dir, identity, rank())
    PredictionWriter(card, network, journal, dataset.data, outputs, watching=watch > 0).attach(evaluator)
    arrivals = Arrivals(dataset_dir, journal.done, dataset.key, watch)
    signals = StopSignals()
    signals.catch()
    try:
        for _ in _looks(watch, signals):
            dataset.data[:] = arrivals.look()
            if dataset.data:
                evaluator.state.epoch_length = len(batches)
                _run(evaluator, journal, len(dataset.data), signals)
            if not watch or any(all_gather_int(len(dataset.data))):  # all ranks finish, or none: they meet there
                _finish(run, card, journal)
    except (KeyboardInterrupt, Preempted):
        if world_size() == 1:  # other ranks may not have been asked, and their rows are in their journals
            _finish(run, card, journal)
        raise
    finally:
        signals.release()
        journal.close()


def _config() -> dict[str, Any]:
    """What the executed config computes rows with; how many processes share the work is not part of it."""
    parser = calling_parser()
    settings = {} if parser is None else config_identity(parser, ("run", "network_def"))
    return {name: value for name, value in settings.items() if not name.startswith(_HOW)}


def _key(folder: str | Path) -> str:
    """The key of the folder's hashes; the first rank makes it before the others look, or each would make its own."""
    key = hash_key(folder) if is_main_process() else ""
    all_gather_int(0)  # they wait for each other
    return key or hash_key(folder)


def _looks(watch: float, signals: StopSignals) -> Iterator[None]:
    """Once, or again and again with a pause between two looks."""
    yield
    while watch > 0:
        with signals.at_once(_KEPT):
            time.sleep(watch)
        yield


def _leave_if_asked(signals: StopSignals) -> None:
    if signals.received:
        signals.leave(signals.received, _KEPT)


def _run(evaluator: SupervisedEvaluator, journal: Journal, total: int, signals: StopSignals) -> None:
    """Run over the files, and show how far it is; of several ranks the first one shows its own share."""
    first, seen, refused = len(journal.rows), len(journal.rows), 0

    def show() -> None:
        nonlocal seen, refused
        refused += sum(row["probabilities"] is None for row in journal.rows[seen:])
        seen = len(journal.rows)
        progress(seen - first, total, refused)
        _leave_if_asked(signals)

    with shown_progress(_WORDING) if is_main_process() else nullcontext(_nothing) as progress:
        show()
        # the writer was attached before, so its rows of the batch are there
        with evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda: show()):
            evaluator.run()


def _nothing(done: int, total: int, refused: int) -> None:
    pass


def _finish(run: Run, card: InferenceConfig, journal: Journal) -> None:
    """Write the tables and the counts, and say where they are (on the first rank, when all are there)."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    if not is_main_process():
        return
    rows = journal.all_rows()
    refused, flagged = (sum(row["probabilities"] is None for row in rows), sum(bool(row["flags"]) for row in rows))
    counts = {"files": len(rows), "predicted": len(rows) - refused, "refused": refused, "flagged": flagged}
    made = write_tables(rows, card, run.output_dir)
    made.append(write_metrics(run.output_dir, counts, command="inference", split="", seed=run.seed, n=counts))
    logger.info(
        f"{len(rows) - refused} of {len(rows)} files have predictions ({flagged} of all have a flag and no decision), "
        f"{refused} a reason instead"
    )
    logger.info(closing_line(made, "read the model card's limits: not for diagnosis"))
