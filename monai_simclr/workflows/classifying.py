"""A classifier of findings: its encoder at the start, its files after training, its scores on held-out patients."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events

from monai_simclr import recipes
from monai_simclr.data import Store
from monai_simclr.data.pseudonyms import hash_patients
from monai_simclr.engines import embed
from monai_simclr.evaluation import (
    Predictions,
    baseline_scores,
    certain_labels,
    compare_to_baseline,
    score_findings,
    score_subgroups,
    score_table,
)
from monai_simclr.inference import has_inference_config, read_inference_config, write_inference_config
from monai_simclr.networks import (
    PRETRAINED,
    FindingClassifier,
    SeenPatients,
    encoder_file,
    encoder_header,
    load_classifier,
    load_encoder,
    read_weights,
    save_classifier,
)
from monai_simclr.runtime.artefacts import is_torch_file, write_arrays
from monai_simclr.runtime.distributed import is_main_process
from monai_simclr.runtime.metrics import closing_line, nest_rows, print_table, write_metrics
from monai_simclr.runtime.tables import write_table
from monai_simclr.workflows.inference_config import make_inference_config
from monai_simclr.workflows.run import Run
from monai_simclr.workflows.seen import check_classifier, check_records, encoder_records, record_patients

logger = logging.getLogger("monai_simclr")


@dataclass(frozen=True)
class Scoring:
    """How a classifier is scored.

    Attributes:
        split: whose patients.
        n_bootstrap: resamples of patients.
        allow_seen_patients: score patients even if they were seen in training.
    """

    split: str = "test"
    n_bootstrap: int = 1000
    allow_seen_patients: bool = False


class LoadEncoder:
    """Put a pretrained encoder into a classifier when its trainer starts for the first time.

    A handler, as MONAI's `CheckpointLoader` is: whoever runs the trainer gets the encoder, and building the bundle's
    parts opens no file.

    Args:
        network: the classifier, without DistributedDataParallel around it.
        encoder_path: the encoder that `configs/pretrain.json` wrote, or a bare state dict (.pt) of the same
            architecture; None for random weights.
        store, scoring: the archive, and whose patients will be scored: they must not have been seen in pretraining.

    Raises:
        FileNotFoundError: on the start, if there is no encoder.
        ValueError: on the start, if the encoder has another architecture, or has seen a patient to be scored, unless
            `scoring` allows it.

    Attributes:
        records: whom the encoder had seen when the trainer started, whatever becomes of its file until the end.
        seen_patients: how many of the patients to be scored these are; 0 from random weights.
    """

    def __init__(
        self, network: FindingClassifier, encoder_path: str | Path | None, store: Store, scoring: Scoring
    ) -> None:
        self.network, self.encoder_path, self.store, self.scoring = network, encoder_path, store, scoring
        self.records: list[SeenPatients] = []
        self.seen_patients = 0

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if self.encoder_path is None:
            return
        path = encoder_file(self.encoder_path)
        self.records, scored = encoder_records(path), _patients(self.store, self.scoring.split)
        self.seen_patients = check_records(self.records, scored, path.name, self.scoring.allow_seen_patients)
        if engine.state.iteration > 0:
            return
        if not is_torch_file(path):
            weights = load_encoder(path).state_dict()
            if any(file.is_file() and encoder_header(file) == encoder_header(path) for file in PRETRAINED.values()):
                logger.info(f"{path} is the encoder that comes with monai-simclr, not one pretrained here")
        else:
            remedy = "save encoder.state_dict() with torch.save, and pass that file"
            stored = read_weights(path, "an encoder's weights", remedy)
            weights = {key.removeprefix("encoder."): value for key, value in stored.items()}
        try:
            self.network.encoder.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                f"{path} is another encoder than the classifier's; set encoder in metadata.json to what it holds, or "
                f"pass --norm ({str(error).splitlines()[1].strip()[:80]})"
            ) from error


def finish_training(
    run: Run,
    path: str | Path,
    network: FindingClassifier,
    store: Store,
    rows: np.ndarray,
    scoring: Scoring,
    settings: Mapping[str, Any],
    start: LoadEncoder | None = None,
) -> None:
    """Write the classifier and its scores on held-out patients, log a closing line (on the first rank).

    Args:
        run: settings of the run.
        path: where the classifier goes.
        network: the trained classifier, without DistributedDataParallel around it.
        store, rows: the archive's images, and which rows had labels in training.
        scoring: how it is scored.
        settings: of the run (label fraction, draw, arm, encoder_path), for ``metrics.json``.
        start: the handler that put the encoder into the network, which knows the patients seen in pretraining; without
            it they are read from the file `encoder_path` in `settings`, and not counted.
    """
    if not is_main_process():
        return
    records, encoder_path = [], settings.get("encoder_path")
    if start is not None:
        records = start.records
    elif encoder_path is not None:
        records = encoder_records(encoder_path)
    save_classifier(path, network)
    labelled = store.index["patient_id"].iloc[rows]
    write_inference_config(make_inference_config(run, network, store), path)
    record_patients(path, np.r_[labelled.to_numpy(), _patients(store, "val")], records)
    n = {"labelled_images": len(rows), "labelled_patients": int(labelled.nunique())}
    if start is not None:
        n["seen_patients"] = start.seen_patients
    metrics = _score(run, network, store, scoring, "train", n, settings)
    logger.info(closing_line([Path(path), metrics], "run configs/inference.json on new images"))


def evaluate(run: Run, path: str | Path, network: FindingClassifier, store: Store, scoring: Scoring) -> None:
    """Score a trained classifier on a split, with the confounder baseline.

    Without a ``classifier.json`` of its weights next to it, it is logged that images may be prepared otherwise than in
    training.

    Raises:
        ValueError: if a patient was seen by the classifier or its encoder, unless `scoring` allows it, or if images
            would be prepared otherwise than in training.
    """
    network = load_classifier(network, path, run.device)
    if has_inference_config(path):
        read_inference_config(path).check_preprocessing(recipes.settings(run.size))
    else:
        logger.warning(
            f"there is no classifier.json of {Path(path).name} next to it, so it is unknown whether it was trained "
            f"with images of size {run.size}, as it is scored"
        )
    seen = check_classifier(path, _patients(store, scoring.split), scoring.allow_seen_patients)
    metrics = _score(run, network, store, scoring, "evaluate", {"seen_patients": seen}, {})
    logger.info(closing_line([metrics], "run configs/inference.json on new images"))


def _patients(store: Store, split: str) -> np.ndarray:
    return store.index.loc[store.index["split"] == split, "patient_id"].to_numpy()


def _score(
    run: Run,
    network: FindingClassifier,
    store: Store,
    scoring: Scoring,
    command: str,
    n: Mapping[str, int],
    settings: Mapping[str, Any],
) -> Path:
    """Write scores.npz (for paired comparisons), tables and metrics.json of a split; returns the path of the last."""
    split, n_bootstrap = scoring.split, scoring.n_bootstrap
    test, index = _predict(run, network, store, split)
    val = None if split == "val" else _predict(run, network, store, "val")[0]
    arrays = {"findings": np.array(test.findings)}
    for prefix, part in {"": test, "val_": val}.items():
        if part is not None:
            patients = np.array(hash_patients(store, np.asarray(part.patients)))
            arrays |= {f"{prefix}scores": part.scores, f"{prefix}labels": part.labels, f"{prefix}patients": patients}
    write_arrays(run.path("scores.npz"), arrays)
    table = score_findings(test.labels, test.scores, test.patients, test.findings, n_bootstrap, run.seed)
    scores = score_table(test, val if val is not None and len(val) else None, n_bootstrap, run.seed)
    cuts = scores[scores["score"] == "sensitivity at 90% specificity"].set_index("finding")["threshold"]
    groups = score_subgroups(test, index, cuts.reindex(list(test.findings)).to_numpy(), n_bootstrap, run.seed)
    write_table(scores, run.path("scores.csv"))
    write_table(groups, run.path("subgroups.csv"))
    baseline = None  # it is fitted for the test split
    if split == "test":
        baseline = compare_to_baseline(test, baseline_scores(store.index, test.findings), n_bootstrap, run.seed)
    print_table(
        table[["finding", "n", "positives", "auroc", "low", "high", "auprc", "prevalence"]],
        title=f"AUROC on the split {split!r} (all scores in scores.csv)",
    )
    return write_metrics(
        run.output_dir,
        {"findings": nest_rows(table.assign(name=table["finding"]), "name"), **settings},
        command=command,
        split=split,
        seed=run.seed,
        n={"images": len(test), "patients": len(set(test.patients)), **n},
        baselines={"chance": 0.5, "confounder_baseline": [] if baseline is None else baseline},
    )


def _predict(run: Run, network: FindingClassifier, store: Store, split: str) -> tuple[Predictions, pd.DataFrame]:
    """Logits and labels of a split's images, and their index rows; empty for val where there is none."""
    rows = np.flatnonzero((store.index["split"] == split).to_numpy())
    if not len(rows) and split != "val":
        raise ValueError(f"no image is in the split {split!r}; the index has {sorted(set(store.index['split']))}")
    index = store.index.iloc[rows].reset_index(drop=True)
    logits = np.zeros((0, len(network.findings)))
    if len(rows):
        finish = functools.partial(recipes.to_network_input, size=run.size)
        logits = embed(network, store.images, finish, run.device, rows=rows)
    labels = certain_labels(index[list(network.findings)].to_numpy(dtype=float))  # train rows may be smoothed
    return Predictions(labels, logits, index["patient_id"].to_numpy(dtype=str), network.findings), index
