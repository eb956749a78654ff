"""A classifier after training: what is written, and what its scores say about how it was trained."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from monai_simclr.data import Store
from monai_simclr.networks import FindingClassifier, encoder, save_classifier
from monai_simclr.runtime.metrics import read_metrics
from monai_simclr.workflows import Run, Scoring, evaluate, finish_training

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


def _trained(folder: Path, name: str = "model.pt") -> Path:
    finish_training(_run(folder / "train"), folder / name, _network(), _store(), np.arange(20), SCORING, {})
    return folder / name


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
