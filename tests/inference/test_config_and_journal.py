"""The inference config that travels with a classifier, the journal of a run, and what counts as novel."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

from monai_simclr.evaluation import fit_novelty
from monai_simclr.inference import (
    InferenceConfig,
    Journal,
    OperatingPoint,
    read_inference_config,
    write_inference_config,
)
from monai_simclr.inference.writer import pack_features, unpack_features

SETTINGS = {"size": 56, "reader": {"window": "auto", "limits": (1, 2)}}


def _config(**changes):
    rng = np.random.default_rng(0)
    novelty = fit_novelty(rng.normal(size=(60, 6)), rng.normal(size=(30, 6)))
    operating = {
        "Mass": OperatingPoint(2.0, 1.0, 0.9, {"specificity": 0.9}, 30, 5),
        "Edema": OperatingPoint(1.0, None, 0.9),
    }
    values = {"findings": ["Mass", "Edema"], "preprocessing": SETTINGS, "operating": operating, "novelty": novelty}
    return InferenceConfig(**{**values, **changes})


def _written(folder):
    (folder / "model.pt").write_bytes(b"weights")
    write_inference_config(_config(), folder / "model.pt")
    return folder / "model.pt"


def test_an_inference_config_comes_back_as_it_was_written(tmp_path):
    found, made = read_inference_config(_written(tmp_path)), _config()
    assert found.findings == made.findings
    assert found.operating == made.operating
    np.testing.assert_array_equal(found.novelty.components, made.novelty.components)
    assert found.novelty.threshold == made.novelty.threshold
    found.check_preprocessing(SETTINGS)


def test_a_probability_is_the_sigmoid_of_the_logit_over_the_temperature():
    config = _config()
    np.testing.assert_allclose(
        config.probabilities(np.array([[2.0, 2.0]])), [[1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2))]]
    )
    assert config.threshold_probabilities() == [pytest.approx(1 / (1 + np.exp(-0.5))), None]
    assert config.thresholds() == [1.0, None]


def test_another_preprocessing_is_refused_with_every_difference():
    with pytest.raises(
        ValueError, match=r"reader is .*'none'.* and was .*'auto'.*; size is 64 now and was 56; use the bundle"
    ):
        _config().check_preprocessing({"size": 64, "reader": {"window": "none", "limits": (1, 2)}})


@pytest.mark.parametrize("name", ["model.pt", "novelty.safetensors"])
def test_an_inference_config_of_other_files_is_refused(tmp_path, name):
    model = _written(tmp_path)
    (tmp_path / name).write_bytes(b"other")
    with pytest.raises(ValueError, match=rf"{name} is not the file that classifier.json was written for"):
        read_inference_config(model)


def test_a_classifier_without_a_config_says_what_makes_one(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    with pytest.raises(FileNotFoundError, match=r"no classifier.json next to model.pt.*run configs/train.json again"):
        read_inference_config(tmp_path / "model.pt")


def test_the_distance_is_that_of_probabilistic_pca():
    rng = np.random.default_rng(1)
    train = rng.normal(size=(400, 10)) * np.array([9, 5, 3, 1, 1, 1, 1, 1, 1, 1.0])
    novelty = fit_novelty(train, train[:50])
    k = len(novelty.variances)
    covariance = novelty.components.T * novelty.variances @ novelty.components
    covariance += novelty.noise * (np.eye(10) - novelty.components.T @ novelty.components)
    oracle = multivariate_normal(novelty.mean, covariance)
    points = rng.normal(size=(20, 10)) * 4
    squared = -2 * (oracle.logpdf(points) - oracle.logpdf(novelty.mean))
    np.testing.assert_allclose(novelty.distance(points), np.sqrt(squared / 10), rtol=1e-9)
    np.testing.assert_allclose(PCA(k, svd_solver="full").fit(train).noise_variance_, novelty.noise, rtol=1e-9)


def test_the_false_alarm_rate_of_new_images_is_at_most_what_was_stated():
    rng = np.random.default_rng(2)
    rates = [
        fit_novelty(rng.normal(size=(80, 5)), rng.normal(size=(59, 5)), 0.1).is_novel(rng.normal(size=(200, 5))).mean()
        for _ in range(60)
    ]
    assert 0.07 < np.mean(rates) < 0.12  # 0.1 in expectation; the mean of 60 runs has a standard error below 0.006


def test_few_held_out_images_raise_the_stated_rate():
    rng = np.random.default_rng(3)
    assert fit_novelty(rng.normal(size=(30, 4)), rng.normal(size=(4, 4)), 0.05).false_alarm == 1 / 5


def test_a_row_is_there_once_after_a_restart_and_a_torn_line_is_not(tmp_path):
    journal = Journal(tmp_path, {"model": "a"})
    journal.append([{"file_hash": "one", "stamp": "1"}, {"file_hash": "two", "stamp": "1"}])
    journal.close()
    with open(tmp_path / "predictions.jsonl", "ab") as file:
        file.write(b'{"file_hash": "three", "sta')
    again = Journal(tmp_path, {"model": "a"})
    assert again.done() == {"one": "1", "two": "1"}
    again.append([{"file_hash": "three", "stamp": "1"}, {"file_hash": "one", "stamp": "2"}])
    assert [row["stamp"] for row in again.all_rows() if row["file_hash"] == "one"] == ["2"]
    assert all(json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines())


def test_rows_of_another_model_are_replaced(tmp_path, caplog):
    journal = Journal(tmp_path, {"model": "a"})
    journal.append([{"file_hash": "one", "stamp": "1"}])
    journal.close()
    assert Journal(tmp_path, {"model": "b"}).rows == []
    assert "of another model or other settings (model was a, is b); its 1 rows are replaced" in caplog.text


def test_two_writers_into_one_folder_are_refused(tmp_path):
    held = Journal(tmp_path, {"model": "a"})
    with pytest.raises(FileExistsError, match="another process is writing predictions to"):
        Journal(tmp_path, {"model": "a"})
    held.close()


def _append_forever(folder):
    journal = Journal(folder, {"model": "a"})
    for number in range(10**6):
        journal.append([{"file_hash": str(number), "stamp": "s" * 5000}])


def test_a_kill_loses_no_row_that_was_appended(tmp_path):
    child = multiprocessing.get_context("fork").Process(target=_append_forever, args=(tmp_path,))
    child.start()
    while not (tmp_path / "predictions.jsonl").is_file() or (tmp_path / "predictions.jsonl").stat().st_size < 200_000:
        assert child.is_alive()
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    rows = Journal(tmp_path, {"model": "a"}).rows
    assert len(rows) >= 39
    assert [row["file_hash"] for row in rows] == [str(number) for number in range(len(rows))]


def test_features_survive_as_text():
    features = np.linspace(-3, 3, 64).astype(np.float32)
    np.testing.assert_allclose(unpack_features(pack_features(features)), features, atol=2e-3)
