"""Run a study: every arm, fraction and draw once; what is whole on disk stays."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow

from monai_simclr import recipes
from monai_simclr.data import Store, get_store, label_fraction
from monai_simclr.data.pseudonyms import index_for_outputs
from monai_simclr.engines import embed
from monai_simclr.evaluation import Embeddings, probe_scores
from monai_simclr.networks import encoder, load_encoder
from monai_simclr.runtime.artefacts import DamagedFileError, write_arrays, write_sealed_json
from monai_simclr.runtime.files import file_sha256, writing
from monai_simclr.runtime.tables import table_text
from monai_simclr.study.plan import FROZEN, PlannedRun, Study
from monai_simclr.study.summary import read_run, summarize
from monai_simclr.workflows import check_settings, check_store, config_identity
from monai_simclr.workflows.bundle import read_metadata, run_bundle
from monai_simclr.workflows.seen import check_encoder

logger = logging.getLogger("monai_simclr")

_BATCH = 32


@dataclass(frozen=True)
class StudyContext:
    """What all runs of a study stand on: the bundle's facts, the archive, and what the settings hash to."""

    study: Study
    metadata: dict[str, Any]
    store: Store
    findings: list[str]
    size: int
    config: dict[str, Any]

    def encoder_of(self, arm: str) -> Path | None:
        if arm in ("scratch", "random_frozen"):
            return None
        given = self.study.encoders.get(arm)
        return Path(given) if given else self.study.bundle / self.metadata["files"]["encoder"]

    def settings(self, run: PlannedRun, rows: np.ndarray) -> dict[str, Any]:
        """What a run's numbers depend on, `rows` are its labelled ones; a run on disk with other settings is not it."""
        path = self.encoder_of(run.arm)
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
            "config": {} if run.frozen else self.config,
            "index_sha256": hashlib.sha256(table_text(self.store.index.drop(columns="image"), "").encode()).hexdigest(),
        }


def run_study(study: Study, shard: tuple[int, int] = (0, 1), allow_seen_patients: bool = False) -> Path:
    """Run what is missing of a study, and summarize what is there.

    Fine-tuning is ``configs/train.json`` of the bundle, with the same number of steps for every fraction; validation
    patients choose the epoch, the same ones in all runs. A frozen arm embeds the archive once and fits a linear probe.
    A fraction that would leave a finding without a positive patient is left out, and the summary says why.

    Args:
        study: the settings.
        shard: of several processes that share the runs, this one's place and their number; the last to end has the
            whole summary.
        allow_seen_patients: state that test patients may be in what the encoder was pretrained on.

    Returns:
        Path of the summary's ``metrics.json``.

    Raises:
        ValueError: if pretraining saw a test patient, or a run in the folder was made with other settings.
    """
    ground = _ground(study)
    test = (ground.store.index["split"] == "test").to_numpy()
    for arm in study.arms:
        path = ground.encoder_of(arm)
        if path is not None:
            check_encoder(path, ground.store.index["patient_id"].to_numpy()[test], allow_seen_patients)
    mine = [run for i, run in enumerate(study.runs()) if i % shard[1] == shard[0]]
    skipped: dict[float, str] = {}
    for i, run in enumerate(mine):
        rows = _labelled_rows(ground, run, skipped)
        if rows is None or _is_whole(ground, run, rows):
            continue
        started = time.perf_counter()
        _probe(ground, run, rows) if run.frozen else _finetune(ground, run, rows, allow_seen_patients)
        write_sealed_json(
            run.folder(study.output_dir) / "settings.json",
            {
                "settings": ground.settings(run, rows),
                "seconds": time.perf_counter() - started,
                "labelled_images": len(rows),
                "labelled_patients": int(ground.store.index["patient_id"].iloc[rows].nunique()),
            },
        )
        print(
            f"run {i + 1} of {len(mine)}: {run.arm}, {run.fraction:.2%} of patients, draw {run.draw + 1}, "
            f"{time.perf_counter() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    train = ground.store.index.loc[ground.store.index["split"] == "train", "patient_id"].nunique()
    return summarize(study, int(train), skipped)


def _ground(study: Study) -> StudyContext:
    metadata, config = read_metadata(study.bundle), _checked_config(study)
    shape = metadata["network_data_format"]
    size = int(shape["inputs"]["image"]["spatial_shape"][0])
    store = get_store(study.dataset_dir, study.bundle / metadata["files"]["store"], recipes.stored_size(size))
    findings = list(shape["outputs"]["pred"]["channel_def"].values())
    check_store(store, findings)
    return StudyContext(study, metadata, store, findings, size, config)


def _checked_config(study: Study) -> dict[str, Any]:
    """What the bundle's train.json computes with, when every trained arm's settings fit it."""
    path = study.bundle / "configs" / "train.json"
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # it says that it leaves logging alone
    for arm in study.arms:
        if arm not in FROZEN:
            check_settings(ConfigWorkflow(str(path), logging_file=False, **study.training_settings(arm)))
    return config_identity(ConfigWorkflow(str(path), logging_file=False).parser)


def _labelled_rows(ground: StudyContext, run: PlannedRun, skipped: dict[float, str]) -> np.ndarray | None:
    try:
        return label_fraction(ground.store.index, run.fraction, run.draw, ground.findings)
    except ValueError as error:
        if run.fraction == 1 or "without a positive" not in str(error):
            raise
        skipped[run.fraction] = str(error)
        return None


def _is_whole(ground: StudyContext, run: PlannedRun, rows: np.ndarray) -> bool:
    folder = run.folder(ground.study.output_dir)
    if not (folder / "settings.json").is_file() or not (folder / "scores.npz").is_file():
        return False
    try:
        before = read_run(folder)[0]["settings"]
    except DamagedFileError as error:
        logger.warning(f"{error.path} {error.problem}; this run is made again")
        return False
    now = json.loads(json.dumps(ground.settings(run, rows)))
    then, wanted = _flat(before), _flat(now)
    other = [key for key in {**then, **wanted} if then.get(key) != wanted.get(key)]
    if other:
        pairs = [(key, then.get(key, "not given"), wanted.get(key, "not given")) for key in other[:8]]
        said = "; ".join(f"{key} was {old}, is {new}" for key, old, new in pairs)
        raise ValueError(f"{folder} was made with other settings: {said}; give this study a folder of its own with -o")
    return True


def _flat(settings: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Plain values by their place; the bundle's own config under its own ids."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{where}#{key}" if where and where != "config" else key
        found |= _flat(value, name) if isinstance(value, dict) else {name: value}
    return found


def _finetune(ground: StudyContext, run: PlannedRun, rows: np.ndarray, allow_seen_patients: bool) -> None:
    study, folder = ground.study, run.folder(ground.study.output_dir)
    training = study.training_settings(run.arm)
    steps = max(1, len(rows) // min(len(rows), int(training.get("batch_size", _BATCH))))
    epochs = math.ceil(study.iterations / steps)
    defaults = {
        "max_epochs": epochs,
        "val_interval": max(1, epochs // 10),
        "seed": run.draw,
        "n_bootstrap": 200,
        "batch_size": _BATCH,
        "num_workers": 0,
    }
    path = ground.encoder_of(run.arm)
    given = {} if path is None else {"encoder_path": str(path.resolve())}
    model = folder / "model.pt"
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "log.txt"
    with writing(log_file), open(log_file, "w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        run_bundle(
            study.bundle,
            "train",
            dataset_dir=str(study.dataset_dir.resolve()),
            label_fraction=run.fraction,
            draw=run.draw,
            pretrained=path is not None,
            output_dir=str(folder.resolve()),
            ckpt_path=str(model.resolve()),
            allow_seen_patients=allow_seen_patients,
            **{**defaults, **training, **given},
        )
    model.unlink()  # a study leaves scores, not a hundred models


def _probe(ground: StudyContext, run: PlannedRun, rows: np.ndarray) -> None:
    embeddings = _embeddings(ground, run)
    scores, test = probe_scores(embeddings, ground.findings, rows)[:2]
    index = embeddings.index.iloc[test]
    folder = run.folder(ground.study.output_dir)
    write_arrays(
        folder / "scores.npz",
        {
            "scores": scores,
            "labels": index[ground.findings].to_numpy(dtype=float),
            "patients": index["patient_id"].to_numpy(dtype=str),
            "findings": np.array(ground.findings),
        },
    )


def _embeddings(ground: StudyContext, run: PlannedRun) -> Embeddings:
    """Of the whole archive, made once; random weights are other ones for every draw."""
    if run.arm == "frozen":
        path = ground.encoder_of(run.arm)
        assert path is not None
        name, make = f"frozen_{file_sha256(path)[:12]}", functools.partial(load_encoder, path)
    else:
        name, make = f"random{run.draw}", functools.partial(_random_encoder, ground.metadata["encoder"], run.draw)
    file = ground.study.output_dir / "embeddings" / f"{name}_{ground.size}.npz"
    try:
        found = Embeddings.load(file)
    except (DamagedFileError, FileNotFoundError) as error:
        if isinstance(error, DamagedFileError):
            logger.warning(f"{error.path} {error.problem}; it is made again")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        features = embed(
            make(), ground.store.images, functools.partial(recipes.to_network_input, size=ground.size), device
        )
        found = Embeddings(features, index_for_outputs(ground.store), {"encoder": name})
        found.save(file)
    if len(found) != len(ground.store.index):
        raise ValueError(f"{file} is of another archive; give this study a folder of its own with -o")
    return found


def _random_encoder(settings: dict[str, Any], seed: int) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return encoder(settings["name"], float(settings["width"]), settings.get("norm", "batch"))
