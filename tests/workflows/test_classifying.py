"""A classifier after training: what is written, and what its scores say about how it was trained."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine

from monai_simclr.data import Store
from monai_simclr.networks import FindingClassifier, encoder, save_classifier, save_encoder
from monai_simclr.runtime.metrics import read_metrics
from monai_simclr.workflows import LoadEncoder, Run, Scoring, evaluate, finish_training
from monai_simclr.workflows.seen import check_classifier, patients_header

SPLITS = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
SCORING = Scoring(n_bootstrap=10)


def _store() -> Store:
    """Noise of 40 patients, whose brightness is the finding."""
    mass = np.arange(40) % 2
    images = np.random.default_rng(0).integers(0, 160, (40, 40, 40)) + 60 * mass[:, None, None]
    patients = [f"p{row}" for row in range(40)]
    index = {"image": patients, "patient_id": patients, "study_id": "", "view_position": "", "sex": "", "age": np.nan}
    table = pd.DataFrame({**index, "split": SPLITS, "Mass": mass.astype(float)})
    return Store(images.astype(np.uint8), table, pd.DataFrame({"image": [], "reason": []}), {})


def _network() -> FindingClassifier:
    torch.manual_seed(0)
    return FindingClassifier(encoder("resnet10", 0.125), ["Mass"])


def _run(folder: Path, size: int = 32) -> Run:
    return Run(str(folder), size, 0, torch.device("cpu"))


def _trained(folder: Path) -> Path:
    path = folder / "model.pt"
    finish_training(_run(folder / "train"), path, _network(), _store(), np.arange(20), SCORING, {})
    return path


def _score(path: Path, size: int = 32) -> None:
    evaluate(_run(path.parent / "evaluate", size), path, _network(), _store(), SCORING)


def test_a_classifier_is_not_scored_on_images_of_another_size_than_it_was_trained_with(tmp_path):
    path = _trained(tmp_path)
    _score(path)
    assert read_metrics(tmp_path / "evaluate")["n"]["images"] == 10
    with pytest.raises(ValueError, match=r"trained with another preprocessing: size is 48 now and was 32"):
        _score(path, size=48)


@pytest.mark.parametrize("lost", ["without a file", "a file of another classifier"])
def test_that_it_is_unknown_how_a_classifier_was_trained_is_logged(tmp_path, lost, caplog):
    path = _trained(tmp_path)
    with caplog.at_level(logging.WARNING, "monai_simclr"):
        _score(path)
    assert "classifier.json" not in caplog.text
    if lost == "without a file":
        path.with_name("classifier.json").unlink()
    else:
        torch.manual_seed(1)
        save_classifier(path, FindingClassifier(encoder("resnet10", 0.125), ["Mass"]))
    _score(path)
    assert "there is no classifier.json of model.pt next to it, so it is unknown whether it was trained" in caplog.text


def _encoder(path: Path, seen: list[str]) -> Path:
    network = encoder("resnet10", 0.125)
    images = pd.DataFrame({"image": seen, "patient_id": seen})
    return save_encoder(path, network, {"name": "resnet10", "width": "0.125", **patients_header(network, images)})


def _started(encoder_path: Path, allowed: bool) -> LoadEncoder:
    start = LoadEncoder(_network(), encoder_path, _store(), dataclasses.replace(SCORING, allow_seen_patients=allowed))
    trainer = Engine(lambda engine, batch: None)
    start.attach(trainer)
    trainer.run([0], max_epochs=1)
    return start


def test_training_says_how_many_of_the_scored_patients_pretraining_saw_where_that_is_allowed(tmp_path):
    path = _encoder(tmp_path / "encoder.safetensors", ["p0", "p31", "p32", "p39"])
    with pytest.raises(ValueError, match="pretraining saw 3 of the 10 patients to be scored"):
        _started(path, allowed=False)
    allowed = dataclasses.replace(SCORING, allow_seen_patients=True)
    start, store, rows = _started(path, allowed=True), _store(), np.arange(20)
    finish_training(_run(tmp_path / "train"), tmp_path / "model.pt", start.network, store, rows, allowed, {}, start)
    assert read_metrics(tmp_path / "train")["n"]["seen_patients"] == 3
    evaluate(_run(tmp_path / "evaluate"), tmp_path / "model.pt", _network(), store, allowed)
    assert read_metrics(tmp_path / "evaluate")["n"]["seen_patients"] == 3


def test_a_classifier_records_whom_its_encoder_had_seen_when_training_began_not_when_it_ended(tmp_path):
    path = _encoder(tmp_path / "encoder.safetensors", ["p31"])
    allowed = dataclasses.replace(SCORING, allow_seen_patients=True)
    start = _started(path, allowed=True)
    _encoder(path, ["somebody else"])
    settings = {"encoder_path": str(path)}
    finish_training(
        _run(tmp_path / "train"),
        tmp_path / "model.pt",
        start.network,
        _store(),
        np.arange(20),
        allowed,
        settings,
        start,
    )
    assert check_classifier(tmp_path / "model.pt", np.array(["p31", "somebody else"]), allowed=True) == 1
    with pytest.raises(ValueError, match="the first is 'p31'"):
        check_classifier(tmp_path / "model.pt", np.array(["p31", "somebody else"]))


def test_without_the_handler_of_the_start_the_record_is_that_of_the_file(tmp_path):
    """As from a bundle that was copied before there was one."""
    path = _encoder(tmp_path / "encoder.safetensors", ["p31"])
    settings = {"encoder_path": str(path)}
    finish_training(
        _run(tmp_path / "train"), tmp_path / "model.pt", _network(), _store(), np.arange(20), SCORING, settings
    )
    assert "seen_patients" not in read_metrics(tmp_path / "train")["n"]
    assert check_classifier(tmp_path / "model.pt", np.array(["p31"]), allowed=True) == 1
