"""Predict the files of a folder, once or for as long as it is watched, here or by the workers of an engine."""

from __future__ import annotations

import copy
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines import SupervisedEvaluator
from torch.utils.data import DataLoader

from monai_simclr import recipes
from monai_simclr.data.loading import leave_signals
from monai_simclr.data.pseudonyms import hash_key
from monai_simclr.data.store.build import versions
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
from monai_simclr.inference.dataset import identify_file
from monai_simclr.inference.journal import Rows
from monai_simclr.inference.runtimes import describe_difference
from monai_simclr.networks import FindingClassifier, load_classifier
from monai_simclr.ops.chest_check import ChestCheck
from monai_simclr.runtime.cluster import open_executor
from monai_simclr.runtime.exit_codes import SettingError
from monai_simclr.runtime.metrics import check_versions, closing_line, package_versions, write_metrics
from monai_simclr.runtime.progress import Wording, shown_progress
from monai_simclr.runtime.signals import Preempted, StopSignals
from monai_simclr.runtime.spread import map_chunks, pack, reason_of_loss, unpack_answer
from monai_simclr.workflows.arrivals import Arrivals
from monai_simclr.workflows.calling import calling_parser
from monai_simclr.workflows.dicomweb import DicomWeb
from monai_simclr.workflows.identity import config_identity
from monai_simclr.workflows.run import Run

logger = logging.getLogger("monai_simclr")

_ROWS = 3
"""Form of a journal's rows; rows of another form are predicted again."""

_WITHOUT_EFFECT = ("run#0", "evaluator#network", "dataset#data")
"""Parts of the config that change no row: the start of the run, where the network is, which files."""

_LOADER_OPTIONS = (
    *("batch_size", "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "prefetch_factor"),
)

_WORDING = Wording("predicting", "predicted", "could not be read")

_TIME_LIMIT = 300.0
"""Seconds that a batch may take in a worker; one that takes longer is tried again file by file."""

_TIMES_REST = 10
"""While watching, listing the folder and writing the tables, which both take time by the number of all files, are each
followed by so many times as long without."""

_KEPT = "every row that was predicted is kept; run the same command to resume"


def infer(
    run: Run,
    path: str | Path,
    evaluator: SupervisedEvaluator,
    dataset_dir: str | Path | Sequence[str | Path],
    outputs: OutputOptions,
    watch: float = 0.0,
    runtime: Runtime = "torch",
    engine: str = "",
    workers: int = 2,
) -> None:
    """Predict every file that has no row yet, and write the tables.

    A watched folder may be empty, and may disappear and come back; see `Arrivals` for what each look predicts. The
    evaluator runs over data loaders like its own, with the files of a look; with an engine, workers build an evaluator
    like it from the calling config and return its rows.

    Args:
        run: settings of the run.
        path: the trained classifier, with its inference config next to it.
        evaluator: runs a `FindingClassifier` over an `InferenceDataset`.
        dataset_dir: folder, paths of files, or the address of a DICOMweb service with a query, whose radiographs are
            fetched to ``incoming`` in the output folder (see `Worklist`).
        outputs: what is written in addition to the predictions; `stow` sends the DICOM results to that service.
        watch: seconds between two looks at the folder; 0 looks once.
        runtime: what computes the features, see `use_runtime`.
        engine: what predicts, see `monai_simclr.runtime.cluster.open_executor`; its workers see the bundle, the files
            and the output folder below the same paths. "" predicts in this process.
        workers: processes of the engine "processes".

    Raises:
        SettingError: if `engine` is given, and no config calls, from whose parts workers could predict.
        FileNotFoundError: without a classifier, or without files (while watching: without a folder at the start).
        ValueError: if images would be prepared otherwise than in training.
        FileExistsError: if another process writes to the same output folder.
        Preempted: on SIGTERM and SIGUSR1, after the current batch; `KeyboardInterrupt` likewise on Ctrl-C.
        ConnectionError: if the engine cannot be reached, or ends; the same call resumes.
    """
    config = read_inference_config(path)
    config.check_preprocessing(recipes.settings(run.size))
    if not isinstance(evaluator.network, FindingClassifier):
        raise ValueError(
            f"the evaluator's network must be a FindingClassifier, got {type(evaluator.network).__name__}; the "
            "outputs of its encoder are read too: pass @network_def"
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
    for_workers, key = _pack_config(parser) if engine else b"", hash_key(run.output_dir)
    with (
        closing(Journal(run.output_dir, identity, sync_seconds=1.0 if engine else 0.0)) as journal,
        open_executor(engine, max(1, workers)) if engine else nullcontext() as executor,
    ):
        writer = PredictionWriter(config, network, journal, outputs, watching=watch > 0)
        template = leave_signals(_with_files(cast(DataLoader, evaluator.data_loader), [], key))
        service = DicomWeb(dataset_dir, run.output_dir, outputs, watch)
        arrivals = Arrivals(service.folder, journal.done, key, watch)
        signals = StopSignals()
        paths = str(Path(path).absolute()), str(Path(run.output_dir).absolute())
        work = _PredictFiles(for_workers, *paths, config.model_sha256, runtime, key, outputs, watch > 0, os.getcwd())
        stale, due = not watch, 0.0  # the tables, which are written whole each time
        signals.catch()
        writer.attach(evaluator)
        try:
            for _ in _looks(arrivals, signals):
                with signals.at_once(_KEPT):
                    service.fetch()
                files = arrivals.look()
                if files and executor is not None:
                    _predict_spread(work, files, template.batch_size or 1, executor, writer, signals)
                elif files:
                    _predict(evaluator, _with_files(template, files, key), journal, signals)
                service.store(journal.done())
                stale, began = stale or bool(files), time.monotonic()
                if stale and began >= due:
                    _finish(run, config, journal)
                    stale, due = False, time.monotonic() + _TIMES_REST * (time.monotonic() - began)
        except (KeyboardInterrupt, Preempted):
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


def _looks(arrivals: Arrivals, signals: StopSignals) -> Iterator[None]:
    """Once, or again and again with a pause between two looks."""
    yield
    while arrivals.watch > 0:
        with signals.at_once(_KEPT):
            time.sleep(max(arrivals.watch, _TIMES_REST * arrivals.seconds))
        yield


def _predict(evaluator: SupervisedEvaluator, batches: DataLoader, journal: Journal, signals: StopSignals) -> None:
    """Run over the files, and stop between two batches."""
    with (
        _progress(journal, len(batches.dataset), signals) as show,  # type: ignore[arg-type]
        # the writer was attached before, so its rows of the batch are in the journal
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda: show()),
    ):
        _run(evaluator, batches)


def _run(evaluator: SupervisedEvaluator, batches: DataLoader) -> None:
    evaluator.state.max_epochs = None  # ignite: start a new run instead of resuming the last one
    Engine.run(evaluator, batches)  # MONAI's own `run` takes no data


@contextmanager
def _progress(journal: Rows, total: int, signals: StopSignals) -> Iterator[Callable[[], None]]:
    """Show how many files of a look have a row, each time it is called; it raises when a signal has come."""
    start, seen, refused = len(journal.rows), len(journal.rows), 0

    def show() -> None:
        nonlocal seen, refused
        refused += sum(row["probabilities"] is None for row in journal.rows[seen:])
        seen = len(journal.rows)
        progress(seen - start, total, refused)
        if signals.received:
            signals.leave(signals.received, _KEPT)

    with shown_progress(_WORDING) as progress:
        show()
        yield show


@dataclass(frozen=True)
class _PredictFiles:
    """In a worker: the rows of files, by the evaluator of a bundle's config."""

    config: bytes  # by `_pack_config`
    path: str  # of the classifier
    folder: str  # of the run, for overlays and DICOM results
    model_sha256: str  # when the run began
    runtime: Runtime
    key: str  # of the hashes
    outputs: OutputOptions
    watching: bool
    cwd: str  # from which relative paths in the config are meant
    versions: tuple[tuple[str, str], ...] = tuple((package_versions() | versions()).items())

    def __call__(self, files: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        evaluator, rows = _evaluator(self)
        rows.rows = []
        _run(evaluator, _with_files(cast(DataLoader, evaluator.data_loader), files, self.key))
        return rows.rows


@functools.lru_cache(maxsize=1)
def _evaluator(work: _PredictFiles) -> tuple[SupervisedEvaluator, Rows]:
    """An evaluator, and where its rows go."""
    check_versions(work.versions)
    with suppress(OSError):  # then the config must have absolute paths
        os.chdir(work.cwd)
    content = unpack_answer(work.config)
    sys.path.append(str(Path(content.get("bundle_root", "")).absolute()))  # as MONAI does, for code beside a config
    config, rows = read_inference_config(work.path), Rows(work.folder)
    if config.model_sha256 != work.model_sha256:
        raise OSError(f"{work.path} was replaced since the run began; stop whoever writes it, and start the run again")
    evaluator = ConfigParser(content).get_parsed_content("evaluator")
    network = load_classifier(evaluator.network, work.path, next(evaluator.network.parameters()).device)
    config = replace(config, runtime=use_runtime(network, work.path, work.runtime))
    PredictionWriter(config, network, rows, work.outputs, work.watching).attach(evaluator)
    return evaluator, rows


def _pack_config(parser: ConfigParser | None) -> bytes:
    """A config for workers, which are given their files and read them in one process."""
    if parser is None or "evaluator" not in parser:
        raise SettingError("an engine predicts by the evaluator of a bundle's config; run its inference.json")
    return pack((None, {**cast(dict[str, Any], parser.config), "dataset_dir": [], "num_workers": 0}))


def _predict_spread(
    work: _PredictFiles,
    files: Sequence[Mapping[str, str]],
    batch_size: int,
    executor: Executor,
    writer: PredictionWriter,
    signals: StopSignals,
) -> None:
    """Let workers predict the files; rows go to the journal as they come."""

    def blame(file: Mapping[str, str], error: BaseException) -> dict[str, Any]:
        reason = reason_of_loss(error, file["image"], _TIME_LIMIT)
        return writer.lost(identify_file(file["image"], work.key), file["image"], reason)

    chunks = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    rows = map_chunks(work, chunks, executor, blame, time_limit=_TIME_LIMIT)
    with _progress(writer.journal, len(files), signals) as show:
        while True:
            with signals.at_once(_KEPT):  # also where no worker is left
                row = next(rows, None)
            if row is None:
                return
            writer.journal.append([row])
            show()


def _finish(run: Run, config: InferenceConfig, journal: Journal) -> None:
    """Write the tables and the counts, and log where they are."""
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
