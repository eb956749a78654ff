"""Run a study: every arm, fraction and draw once; complete runs on disk are kept."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow

from monai_simclr import recipes
from monai_simclr.data import Store, get_store, label_fraction
from monai_simclr.data.pseudonyms import index_for_outputs
from monai_simclr.data.split import NoPositiveError
from monai_simclr.engines import embed
from monai_simclr.evaluation import Embeddings, probe_scores
from monai_simclr.networks import encoder, load_encoder
from monai_simclr.runtime.artefacts import DamagedFileError, write_arrays, write_sealed_json
from monai_simclr.runtime.cluster import open_executor
from monai_simclr.runtime.files import file_sha256, writing
from monai_simclr.runtime.locks import LOCK_FILE, lock_folder, locked, unlock_folder
from monai_simclr.runtime.metrics import check_versions, package_versions
from monai_simclr.runtime.spread import map_chunks, pack, unpack_answer
from monai_simclr.runtime.tables import table_text
from monai_simclr.study.plan import FROZEN, RANDOM, PlannedRun, Study
from monai_simclr.study.summary import read_run, summarize
from monai_simclr.workflows import check_settings, check_store, config_identity
from monai_simclr.workflows.bundle import read_metadata, run_bundle
from monai_simclr.workflows.seen import check_encoder

logger = logging.getLogger("monai_simclr")


_OF_A_RUN = frozenset(
    {"max_epochs", "val_interval", "label_fraction", "draw", "seed", "n_bootstrap", "allow_seen_patients"}
)
"""Settings of train.json that a study gives to each run, by the fraction and draw that its settings have already."""


@dataclass(frozen=True)
class StudyContext:
    """What all runs of a study share: the bundle's metadata, the archive, and each arm's values of train.json."""

    study: Study
    metadata: dict[str, Any]
    store: Store
    index_sha256: str
    findings: list[str]
    size: int
    configs: dict[str, dict[str, Any]]
    batch_sizes: dict[str, int]

    @classmethod
    def open(cls, study: Study) -> StudyContext:
        """Read and check everything before the first run, the settings of every trained arm included."""
        logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # it logs that it leaves logging alone
        train = functools.partial(ConfigWorkflow, str(study.bundle / "configs" / "train.json"), logging_file=False)
        metadata, batch_sizes, configs = read_metadata(study.bundle), {}, {}
        for arm in study.arms:
            if arm not in FROZEN:
                given = {"pretrained": arm not in RANDOM, **study.training_settings(arm)}
                workflow = train(**given)
                check_settings(workflow)
                batch_sizes[arm] = int(workflow.parser.get_parsed_content("batch_size"))
                values = config_identity(workflow.parser)
                configs[arm] = {key: value for key, value in values.items() if key in given or key not in _OF_A_RUN}
        network = metadata["network_data_format"]
        size = int(network["inputs"]["image"]["spatial_shape"][0])
        store = get_store(study.dataset_dir, study.bundle / metadata["files"]["store"], recipes.stored_size(size))
        findings = list(network["outputs"]["pred"]["channel_def"].values())
        check_store(store, findings)
        index_sha256 = hashlib.sha256(table_text(store.index.drop(columns="image"), "").encode()).hexdigest()
        return cls(study, metadata, store, index_sha256, findings, size, configs, batch_sizes)

    def encoder_path(self, arm: str) -> Path | None:
        """File of an arm's pretrained encoder; None for random weights."""
        if arm in RANDOM:
            return None
        return Path(self.study.encoders.get(arm) or self.study.bundle / self.metadata["files"]["encoder"])

    def embedding_name(self, run: PlannedRun) -> str:
        """Of a frozen arm's embeddings: one a pretrained encoder; random weights differ from draw to draw."""
        path = self.encoder_path(run.arm)
        return f"random{run.draw}" if path is None else f"frozen_{file_sha256(path)[:12]}"

    @property
    def pixels_sha256(self) -> str:
        """Checksum of the images in the store."""
        return str(self.store.provenance["sha256"]["images.npy"])

    def embedding_source(self, run: PlannedRun) -> dict[str, str]:
        """What the embeddings of a frozen arm depend on; those on disk of another source are computed again."""
        made_of = [self.index_sha256, self.pixels_sha256, self.metadata["encoder"], self.size]
        sha256 = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        return {"encoder": self.embedding_name(run), "archive_and_network_sha256": sha256}

    def settings(self, run: PlannedRun, rows: np.ndarray) -> dict[str, Any]:
        """What the numbers of a run depend on, given its labelled rows; a run on disk with others is another run."""
        path = self.encoder_path(run.arm)
        return {
            "arm": run.arm,
            "fraction": run.fraction,
            "draw": run.draw,
            "size": self.size,
            "findings": self.findings,
            "iterations": None if run.frozen else self.study.iterations,
            "training": {} if run.frozen else self.study.training_settings(run.arm),
            "encoder_sha256": path and file_sha256(path),
            "network": self.metadata["encoder"],
            "labelled_sha256": hashlib.sha256(np.asarray(rows, dtype="<i8").tobytes()).hexdigest(),
            "config": {} if run.frozen else self.configs[run.arm],
            "index_sha256": self.index_sha256,
            "pixels_sha256": self.pixels_sha256,
        }


def run_study(study: Study, engine: str = "", workers: int = 0, allow_seen_patients: bool = False) -> Path:
    """Run what is missing of a study, and summarize all complete runs.

    Fine-tuning is ``configs/train.json`` of the bundle, with the same number of steps for every fraction; the epoch is
    chosen on the validation patients, the same ones in all runs. A frozen arm embeds the archive once and fits a linear
    probe. A fraction that would leave a finding without a positive patient is skipped, and the summary says why.

    Args:
        study: the settings.
        engine: what the runs are spread by, see `monai_simclr.runtime.cluster.open_executor`; its workers see the
            bundle, the archive and the study's folder below the same paths.
        workers: processes, each of one thread; with 0 and no engine the runs are done in this process, in turn.
        allow_seen_patients: accept that the encoders may have seen test patients in pretraining; the summary has their
            number, the largest of all arms.

    Returns:
        Path of the summary's ``metrics.json``.

    Raises:
        ValueError: if a test patient was seen in pretraining, or a run in the folder has other settings.
        FileExistsError: if another process runs this study.
        ChildProcessError: if a worker was lost twice at a run.
    """
    context = StudyContext.open(study)
    index = context.store.index
    test_patients = index.loc[index["split"] == "test", "patient_id"].to_numpy()
    paths = [path for path in map(context.encoder_path, study.arms) if path is not None]
    seen = max((check_encoder(path, test_patients, allow_seen_patients) for path in dict.fromkeys(paths)), default=0)
    with locked(study.output_dir / LOCK_FILE, str(study.output_dir)):
        todo, skipped = _missing_runs(context)
        with open_executor(engine, workers or (2 if engine else 0)) as executor:
            given = context if executor is None else pack((None, (study.absolute(), tuple(package_versions().items()))))
            work = functools.partial(_do_runs, given=given, allow_seen_patients=allow_seen_patients)
            runs = len(list(study.runs()))
            done = map_chunks(work, _together(context, todo), executor, _blame)
            for number, (run, seconds) in enumerate(done, runs - len(todo) + 1):
                write_sealed_json(run.folder(study.output_dir) / "settings.json", {**todo[run], "seconds": seconds})
                print(f"run {number} of {runs}: {run}, {seconds:.0f} s", file=sys.stderr, flush=True)
        train_patients = int(index.loc[index["split"] == "train", "patient_id"].nunique())
        return summarize(study, train_patients, skipped, seen_patients=seen)


def _missing_runs(context: StudyContext) -> tuple[dict[PlannedRun, dict[str, Any]], dict[float, str]]:
    """The runs that are not complete, with their settings and counts; and the fractions that are skipped, with why."""
    index, todo, skipped = context.store.index, dict[PlannedRun, dict[str, Any]](), dict[float, str]()
    for run in context.study.runs():
        try:
            rows = label_fraction(index, run.fraction, run.draw, context.findings)
        except NoPositiveError as error:
            skipped[run.fraction] = str(error)
            continue
        settings = context.settings(run, rows)
        if not _is_complete(run.folder(context.study.output_dir), settings):
            patients = int(index["patient_id"].iloc[rows].nunique())
            todo[run] = {"settings": settings, "labelled_images": len(rows), "labelled_patients": patients}
    return todo, skipped


def _together(context: StudyContext, runs: Iterable[PlannedRun]) -> list[list[PlannedRun]]:
    """What one worker does at a time: a training, or all probes on the same embeddings."""
    chunks: dict[Any, list[PlannedRun]] = {}
    for run in runs:
        chunks.setdefault(context.embedding_name(run) if run.frozen else run, []).append(run)
    return list(chunks.values())


def _do_runs(
    runs: Sequence[PlannedRun], given: StudyContext | bytes, allow_seen_patients: bool
) -> Iterator[tuple[PlannedRun, float]]:
    """Do runs, here or in a worker, which gets the study as bytes; their scores are in their folders then."""
    context = given if isinstance(given, StudyContext) else _opened(given)
    for run in runs:
        started = time.perf_counter()
        rows = label_fraction(context.store.index, run.fraction, run.draw, context.findings)
        if run.frozen:
            _probe(context, run, rows)
        else:
            _finetune(context, run, len(rows), allow_seen_patients)
        yield run, time.perf_counter() - started


@functools.lru_cache(maxsize=1)
def _opened(given: bytes) -> StudyContext:
    study, versions = unpack_answer(given)
    check_versions(versions)
    return StudyContext.open(study)


def _blame(run: PlannedRun, error: BaseException) -> Any:
    raise ChildProcessError(
        f"a worker was lost twice at the run {run} ({error}); is there enough memory? Run the same command again, "
        "which keeps the runs that are complete, with fewer workers"
    ) from error


def _is_complete(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a folder has a whole run of these settings; raises if it has one of others."""
    if not (folder / "settings.json").is_file() or not (folder / "scores.npz").is_file():
        return False
    try:
        before = _flat(read_run(folder)[0]["settings"])
    except DamagedFileError as error:
        logger.warning(f"{error.path} {error.problem}; this run is repeated")
        return False
    now = _flat(json.loads(json.dumps(settings)))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        pairs = [(key, before.get(key, "not given"), now.get(key, "not given")) for key in changed[:8]]
        changes = "; ".join(f"{key} was {old}, is {new}" for key, old, new in pairs)
        raise ValueError(f"{folder} has a run with other settings: {changes}; give this study its own folder with -o")
    return True


def _flat(settings: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Plain values by their path; those of the bundle's config by their ids in it."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{where}#{key}" if where and where != "config" else key
        values |= _flat(value, name) if isinstance(value, dict) else {name: value}
    return values


def _finetune(context: StudyContext, run: PlannedRun, labelled_images: int, allow_seen_patients: bool) -> None:
    study, folder = context.study, run.folder(context.study.output_dir)
    batch_size = min(labelled_images, context.batch_sizes[run.arm])
    epochs = math.ceil(study.iterations / max(1, labelled_images // batch_size))
    encoder_path, model = context.encoder_path(run.arm), folder / "model.pt"
    settings = {
        "max_epochs": epochs,
        "val_interval": max(1, epochs // 10),
        "seed": run.draw,
        "n_bootstrap": 200,
        "num_workers": 0,
        **study.training_settings(run.arm),
    }
    if encoder_path is not None:
        settings["encoder_path"] = str(encoder_path.resolve())
    lock_folder(folder, wait=-1)  # a worker that was lost, or whose driver was, may still be at this run
    log_file = folder / "log.txt"
    try:
        with writing(log_file), open(log_file, "w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            run_bundle(
                study.bundle,
                "train",
                dataset_dir=str(study.dataset_dir.resolve()),
                label_fraction=run.fraction,
                draw=run.draw,
                pretrained=encoder_path is not None,
                output_dir=str(folder.resolve()),
                ckpt_path=str(model.resolve()),
                allow_seen_patients=allow_seen_patients,
                **settings,
            )
    finally:
        unlock_folder(folder)
    model.unlink()  # a study keeps scores, not a hundred models


def _probe(context: StudyContext, run: PlannedRun, rows: np.ndarray) -> None:
    embeddings = _embeddings(context, run)
    scores, test = probe_scores(embeddings, context.findings, rows)[:2]
    index = embeddings.index.iloc[test]
    arrays = {
        "scores": scores,
        "labels": index[context.findings].to_numpy(dtype=float),
        "patients": index["patient_id"].to_numpy(dtype=str),
        "findings": np.array(context.findings),
    }
    write_arrays(run.folder(context.study.output_dir) / "scores.npz", arrays)


def _embeddings(context: StudyContext, run: PlannedRun) -> Embeddings:
    """Embeddings of the whole archive, computed once; their labels are the archive's as it is now."""
    file = context.study.output_dir / "embeddings" / f"{context.embedding_name(run)}_{context.size}.npz"
    source, index = context.embedding_source(run), index_for_outputs(context.store)
    try:
        cached = Embeddings.load(file)
        if dict(cached.source) == source and len(cached) == len(index):
            return Embeddings(cached.features, index, source)
        logger.warning(f"{file} has embeddings of another archive or network; they are computed again")
    except FileNotFoundError:
        pass
    except DamagedFileError as error:
        logger.warning(f"{error.path} {error.problem}; it is computed again")
    path = context.encoder_path(run.arm)
    if path is None:
        settings = context.metadata["encoder"]
        with torch.random.fork_rng():
            torch.manual_seed(run.draw)
            network = encoder(settings["name"], float(settings["width"]), settings.get("norm", "batch"))
    else:
        network = load_encoder(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    to_input = functools.partial(recipes.to_network_input, size=context.size)
    embeddings = Embeddings(embed(network, context.store.images, to_input, device), index, source)
    embeddings.save(file)
    return embeddings
