"""A classifier of findings: where it starts, what training leaves, its scores on held-out patients."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
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
from monai_simclr.inference import write_inference_config
from monai_simclr.networks import FindingClassifier, load_classifier, load_encoder, read_weights, save_classifier
from monai_simclr.runtime.artefacts import write_arrays
from monai_simclr.runtime.distributed import is_main_process
from monai_simclr.runtime.metrics import closing_line, print_table, write_metrics
from monai_simclr.runtime.tables import write_table
from monai_simclr.workflows.card import make_inference_config
from monai_simclr.workflows.run import Run
from monai_simclr.workflows.seen import check_classifier, check_encoder, record_patients

logger = logging.getLogger("monai_simclr")


@dataclass(frozen=True)
class Scoring:
    """How a classifier is scored.

    Attributes:
        split: whose patients.
        n_bootstrap: resamples of patients.
        allow_seen_patients: state that patients whom training saw may be scored.
    """

    split: str = "test"
    n_bootstrap: int = 1000
    allow_seen_patients: bool = False


class LoadEncoder:
    """Put a pretrained encoder into a classifier when its trainer starts for the first time.

    A handler, as MONAI's `CheckpointLoader` is, so that whoever runs the trainer gets the encoder, and building the
    bundle's parts opens no file.

    Args:
        network: the classifier, without DistributedDataParallel around it.
        encoder_path: the encoder that `configs/pretrain.json` left, or a bare state dict (.pt) of the same
            architecture; None for random weights.
        store: the archive, for the check below.
        scoring: whose patients will be scored.

    Raises:
        FileNotFoundError: on the start, if there is no encoder.
        ValueError: on the start, if the encoder is of another architecture, or pretraining saw one of the patients
            that will be scored, unless `scoring` allows it.
    """

    def __init__(
        self, network: FindingClassifier, encoder_path: str | Path | None, store: Store, scoring: Scoring
    ) -> None:
        self.network, self.encoder_path, self.store, self.scoring = network, encoder_path, store, scoring

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if self.encoder_path is None or engine.state.iteration > 0:
            return
        index = self.store.index
        patients = index.loc[index["split"] == self.scoring.split, "patient_id"].to_numpy()
        check_encoder(self.encoder_path, patients, self.scoring.allow_seen_patients)
        try:
            self.network.encoder.load_state_dict(_weights(Path(self.encoder_path)))
        except RuntimeError as error:
            raise ValueError(
                f"{self.encoder_path} is another encoder than the classifier's; set encoder in metadata.json to what "
                f"it holds, or pass --norm ({str(error).splitlines()[1].strip()[:80]})"
            ) from error


def finish_training(
    run: Run,
    path: str | Path,
    network: FindingClassifier,
    store: Store,
    rows: np.ndarray,
    scoring: Scoring,
    settings: Mapping[str, Any],
) -> None:
    """Leave the classifier, its scores on held-out patients beside the floor, and a closing line (on the first rank).

    Args:
        run: settings of the run.
        path: where the classifier goes.
        network: the trained classifier, without DistributedDataParallel around it.
        store: the archive's images.
        rows: which rows had labels in training.
        scoring: how it is scored.
        settings: what was asked for (label fraction, draw, arm, encoder_path), for ``metrics.json``.
    """
    if not is_main_process():
        return
    save_classifier(path, network)
    labelled = store.index["patient_id"].iloc[rows]
    used = np.r_[labelled.to_numpy(), store.index.loc[store.index["split"] == "val", "patient_id"].to_numpy()]
    write_inference_config(make_inference_config(run, network, store), path)
    record_patients(path, used, settings.get("encoder_path"))
    n = {"labelled_images": len(rows), "labelled_patients": int(labelled.nunique())}
    made = _score(run, network, store, scoring, command="train", n=n, settings=settings)
    logger.info(closing_line([Path(path), made], "run configs/inference.json on new images"))


def evaluate(run: Run, path: str | Path, network: FindingClassifier, store: Store, scoring: Scoring) -> None:
    """Score a trained classifier on a split, beside the confounder floor.

    Raises:
        ValueError: if the classifier or its encoder saw one of these patients, unless `scoring` allows it.
    """
    network = load_classifier(network, path, run.device)
    patients = store.index.loc[store.index["split"] == scoring.split, "patient_id"].to_numpy()
    seen = check_classifier(path, patients, scoring.allow_seen_patients)
    made = _score(run, network, store, scoring, command="evaluate", n={"seen_patients": seen}, settings={})
    logger.info(closing_line([made], "run configs/inference.json on new images"))


def _weights(path: Path) -> Mapping[str, torch.Tensor]:
    if path.suffix not in (".pt", ".pth"):
        return load_encoder(path).state_dict()
    if not path.is_file():
        raise FileNotFoundError(f"no state dict at {path}; pass --encoder_path with the file of the encoder's weights")
    weights = read_weights(
        path, "an encoder's weights", "save encoder.state_dict() with torch.save, and pass that file"
    )
    return {key.removeprefix("encoder."): value for key, value in weights.items()}


def _score(
    run: Run,
    network: FindingClassifier,
    store: Store,
    scoring: Scoring,
    *,
    command: str,
    n: Mapping[str, int],
    settings: Mapping[str, Any],
) -> Path:
    """Score a classifier on the images of a split; write scores.npz (for paired comparisons), tables, metrics.json."""
    test, index = _predict(run, network, store, scoring.split)
    val = _predict(run, network, store, "val")[0] if scoring.split != "val" else None
    _save_scores(run.path("scores.npz"), store, test, val)
    table = score_findings(test.labels, test.scores, test.patients, test.findings, scoring.n_bootstrap, run.seed)
    card = score_table(test, val if val is not None and len(val) else None, scoring.n_bootstrap, run.seed)
    first = card[card["score"] == "sensitivity at 90% specificity"].set_index("finding")["threshold"]
    groups = score_subgroups(test, index, first.reindex(list(test.findings)).to_numpy(), scoring.n_bootstrap, run.seed)
    for name, made in {"scores.csv": card, "subgroups.csv": groups}.items():
        write_table(made, run.path(name))
    floor = _floor(store, test, scoring, run.seed)
    shown = table[["finding", "n", "positives", "auroc", "low", "high", "auprc", "prevalence"]].to_dict("records")
    print_table(shown, title=f"AUROC on the split {scoring.split!r} (all scores in scores.csv)")  # type: ignore[arg-type]
    return write_metrics(
        run.output_dir,
        {"findings": {row["finding"]: row for row in table.to_dict("records")}, **settings},
        command=command,
        split=scoring.split,
        seed=run.seed,
        n={"images": len(test), "patients": len(set(test.patients)), **n},
        baselines={"chance": 0.5, "confounder_baseline": floor},
    )


def _predict(run: Run, network: FindingClassifier, store: Store, split: str) -> tuple[Predictions, pd.DataFrame]:
    """Logits and labels of a split's images, and their index rows; empty for val where there is none."""
    chosen = np.flatnonzero((store.index["split"] == split).to_numpy())
    if not len(chosen) and split != "val":
        raise ValueError(f"no image is in the split {split!r}; the index has {sorted(set(store.index['split']))}")
    index = store.index.iloc[chosen].reset_index(drop=True)
    finish = functools.partial(recipes.to_network_input, size=run.size)
    logits = (
        embed(network, store.images[chosen], finish, run.device)
        if len(chosen)
        else np.zeros((0, len(network.findings)))
    )
    labels = certain_labels(index[list(network.findings)].to_numpy(dtype=float))  # smoothed ones are of train rows
    return Predictions(labels, logits, index["patient_id"].to_numpy(dtype=str), network.findings), index


def _save_scores(path: Path, store: Store, test: Predictions, val: Predictions | None) -> None:
    arrays = {"scores": test.scores, "labels": test.labels, "findings": test.findings}
    arrays["patients"] = hash_patients(store, np.asarray(test.patients))
    if val is not None:
        arrays |= {"val_scores": val.scores, "val_labels": val.labels}
        arrays["val_patients"] = hash_patients(store, np.asarray(val.patients))
    write_arrays(path, {name: np.array(value) for name, value in arrays.items()})


def _floor(store: Store, test: Predictions, scoring: Scoring, seed: int) -> list[dict[str, Any]]:
    """The model beside view, age and sex alone, where the split is the one that the floor is fitted for."""
    if scoring.split != "test":
        return []
    floor = baseline_scores(store.index, test.findings)
    rows = compare_to_baseline(test, floor, scoring.n_bootstrap, seed).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]
