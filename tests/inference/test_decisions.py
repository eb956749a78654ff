"""A decision is the logit against its threshold, from validation to every output, where probabilities saturate too."""

from __future__ import annotations

import csv
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from small_bundle import run_inference
from torch import nn
from torch.utils.data import DataLoader

from monai_simclr import recipes
from monai_simclr.data import get_store
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.engines import AutocastInferer, embed
from monai_simclr.evaluation import fit_novelty
from monai_simclr.inference import (
    InferenceConfig,
    Journal,
    OperatingPoint,
    PredictionWriter,
    read_inference_config,
    write_inference_config,
)
from monai_simclr.inference.calibrated import Calibratedd, postprocessing
from monai_simclr.inference.pictures import leading_finding
from monai_simclr.inference.writer import write_tables
from monai_simclr.networks import FindingClassifier, encoder, save_classifier
from monai_simclr.runtime.artefacts import unsealed, write_sealed_json
from monai_simclr.workflows import Run
from monai_simclr.workflows.export import onnx_metadata
from monai_simclr.workflows.inference_config import fit_operating_point, make_inference_config

SIZE = 48


def _config(**operating: OperatingPoint) -> InferenceConfig:
    rng = np.random.default_rng(0)
    return InferenceConfig(
        list(operating), {}, operating, fit_novelty(rng.normal(size=(60, 4)), rng.normal(size=(30, 4)))
    )


class _Four(nn.Module):
    """An encoder of four familiar features."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), 4)


class _Batch(list):
    """A batch as the only item of a data set of records."""

    def __init__(self, batches, data):
        super().__init__(batches)
        self.data = data


def _rows(config: InferenceConfig, logits: torch.Tensor, folder) -> list[dict]:
    """What the writer makes of a batch with these logits."""
    n = len(logits)
    network = SimpleNamespace(encoder=_Four())
    journal = Journal(folder, {"model": "a"})
    writer = PredictionWriter(config, network, journal)  # type: ignore[arg-type]
    images = torch.zeros(n, 1, 8, 8)
    names = ("file_hash", "patient_hash", "study_hash", "sop_instance_hash", "stamp", "view_position", "flags")
    about = {name: [str(i) if name == "file_hash" else "" for i in range(n)] for name in names}
    batch = {"row": torch.arange(n), "reason": [""] * n, "about": about}

    def predict(engine, batch):
        network.encoder(images)
        return {"pred": logits, "image": images}

    engine = Engine(predict)
    writer.attach(engine)
    engine.run(DataLoader(_Batch([batch], [{"image": str(i)} for i in range(n)]), batch_size=None))
    journal.close()
    return journal.rows


def _validation(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(150) < 0.2).astype(float)
    return labels, (1.5 * labels - 2 + 1.2 * rng.normal(size=150)).astype(np.float32)


def test_validation_images_are_decided_as_when_the_threshold_was_fixed_in_200_of_200_sets(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)  # 400 waits for the disk
    same = 0
    for seed in range(200):
        labels, logits = _validation(seed)
        one = fit_operating_point("Mass", labels, logits, 0.9)
        rows = _rows(_config(Mass=one), torch.from_numpy(logits[:, None]), tmp_path / str(seed))
        decided = np.array([row["decisions"][0] for row in rows])
        assert decided[labels == 0].mean() == pytest.approx(1 - one.achieved["specificity"], abs=1e-12)
        lowest = int(np.argmin(np.where(logits >= one.threshold, logits, np.inf)))
        same += decided[lowest] == 1 and decided.sum() == (logits >= logits[lowest]).sum()
    assert same == 200


@pytest.mark.parametrize("temperature", [0.0102, 1.0, 50.0])
@pytest.mark.parametrize("offset", [-5000.0, -40.0, 0.0, 40.0, 5000.0])
def test_saturated_probabilities_change_no_decision_in_any_output(tmp_path, offset, temperature):
    logits = torch.tensor([[offset - 1], [offset - 1e-3], [offset], [offset + 1]])
    config = _config(Mass=OperatingPoint(temperature, offset, 0.9))
    rows = _rows(config, logits, tmp_path)
    expected = [int(logit >= offset) for logit in logits[:, 0].tolist()]
    assert [row["decisions"][0] for row in rows] == expected
    write_tables(rows, config, tmp_path)
    shown = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert [int(row["Mass decision"]) for row in shown] == expected
    assert [int(float(row["Mass logit"]) >= float(row["Mass threshold logit"])) for row in shown] == expected
    exported = onnx_metadata(config)["operating"]
    made = postprocessing(["Mass"], exported, "no.pt")({"pred": logits})
    assert made["pred_decision"][:, 0].tolist() == expected
    assert bool((made["pred"] < 1).all())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_logits_of_every_precision_are_decided_as_numbers(tmp_path, kind):
    logits = torch.tensor([[-1.5078125], [-1.5], [-1.4921875]]).to(kind)  # neighbours in bfloat16
    config = _config(Mass=OperatingPoint(1.0, -1.5, 0.9))
    assert [row["decisions"] for row in _rows(config, logits, tmp_path)] == [[0], [1], [1]]
    made = Calibratedd("pred", [1.0], [-1.5])({"pred": logits})
    assert made["pred_decision"][:, 0].tolist() == [0, 1, 1]


def test_a_logit_that_is_no_number_is_never_called_negative(tmp_path):
    config = _config(Mass=OperatingPoint(1.0, -1.0, 0.9), Edema=OperatingPoint(1.0, None, 0.9))
    logits = torch.tensor([[0.0, 0.0], [float("nan"), 0.0], [0.0, float("inf")]])
    rows = _rows(config, logits, tmp_path)
    assert [row["decisions"] for row in rows] == [[1, None], [None, None], [None, None]]
    assert [row["reason"] for row in rows] == ["", *["the network's outputs are not finite"] * 2]
    assert config.decisions(logits.numpy())[1] == [None, None]
    assert Calibratedd("pred", [1.0, 1.0], [-1.0, None])({"pred": logits})["pred_decision"].tolist() == [
        [1, -1],
        [-1, -1],
        [1, -1],
    ]
    json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[2], parse_constant=pytest.fail)


def test_the_leading_finding_is_found_where_all_probabilities_are_1():
    config = _config(Mass=OperatingPoint(1.0, 50.0, 0.9), Edema=OperatingPoint(2.0, 50.0, 0.9))
    row = {"reason": "", "logits": [60.0, 66.0], "probabilities": [1.0, 1.0], "decisions": [1, 1]}
    assert leading_finding(row, config) == 0
    assert leading_finding({**row, "logits": [60.0, 74.0]}, config) == 1


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A store of 120 pictures: 60 to train, 30 for validation, 30 to test."""
    folder = tmp_path_factory.mktemp("pictures")
    archive = write_nih_phantoms(folder / "nih", n_patients=80, size=64)
    store = get_store(archive, folder / "store", recipes.stored_size(SIZE), workers=0)
    index = store.index.iloc[:120].assign(split=np.repeat(["train", "val", "test"], [60, 30, 30]))
    return dataclasses.replace(store, images=store.images[:120], index=index)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_an_easy_finding_in_120_pictures_keeps_the_promised_specificity(pictures, tmp_path, scale):
    store = pictures
    torch.manual_seed(0)
    network = FindingClassifier(encoder("resnet10", width=0.125), ["Easy"]).eval()

    def logits_of() -> np.ndarray:
        return embed(network, store.images, lambda batch: recipes.to_network_input(batch, size=SIZE))[:, 0]

    with torch.no_grad():  # positives above 0, negatives below: separated, and most thresholds far below 0
        network.classifier.weight.mul_(scale / logits_of().std())
        network.classifier.bias.sub_(float(np.quantile(logits_of(), 0.8)))
    store.index["Easy"] = (logits_of() > 0).astype(float)
    path = save_classifier(tmp_path / "model.pt", network)
    write_inference_config(
        make_inference_config(Run(str(tmp_path), SIZE, 0, torch.device("cpu")), network, store), path
    )
    one = read_inference_config(path).operating["Easy"]
    assert not one.temperature_at_bound
    rows = _inferred(path, network, store.index["image"][90:], tmp_path / "out")
    assert [row["reason"] for row in rows] == [""] * 30
    labels = store.index["Easy"].to_numpy()[90:]
    called = np.array([row["logits"][0] >= one.threshold for row in rows])
    decided = [
        (bool(row["decisions"][0]), bool(call))
        for row, call in zip(rows, called, strict=True)
        if row["decisions"][0] is not None
    ]
    assert len(decided) > 20
    assert all(decision == call for decision, call in decided)
    assert 1 - called[labels == 0].mean() >= 0.90
    assert called[labels == 1].all()


def _inferred(path, network, files, output) -> list[dict]:
    run_inference(path, list(files), output, batch_size=7, network=network)
    return json.loads((output / "predictions.json").read_text())["rows"]


def test_the_last_layer_is_not_rounded_to_bfloat16_under_autocast():
    torch.manual_seed(0)
    network = FindingClassifier(encoder("resnet10", width=0.125), ["Mass"]).eval()
    images = torch.rand(3, 1, 48, 48)
    with torch.no_grad():
        logits = AutocastInferer("bfloat16")(images, network)
        with torch.autocast("cpu", torch.bfloat16):
            features = network.encoder(images)
            assert network(images).dtype == torch.float32
    torch.testing.assert_close(logits, network.classifier(features.float()), rtol=0, atol=0)
    assert not torch.equal(logits, logits.bfloat16().float())


def _written(folder):
    (folder / "model.pt").write_bytes(b"weights")
    write_inference_config(
        _config(Mass=OperatingPoint(2.0, 1.0, 0.9), Edema=OperatingPoint(0.0102, -3.0, 0.9)), folder / "model.pt"
    )
    return folder / "classifier.json"


def test_a_config_of_the_earlier_format_is_upgraded_and_says_what_cannot_be_trusted(tmp_path, caplog):
    path = _written(tmp_path)
    content = unsealed(json.loads(path.read_text()))
    assert content.pop("format") == 2
    for one in content["operating"].values():
        del one["temperature_at_bound"]
    path.write_text(json.dumps(content))
    config = read_inference_config(tmp_path / "model.pt")
    assert config.thresholds() == [1.0, -3.0]
    assert [config.operating[name].temperature_at_bound for name in ("Mass", "Edema")] == [False, True]
    assert "was written by an earlier version: decisions are right" in caplog.text
    assert "those of Edema cannot be trusted; run configs/train.json again" in caplog.text


def test_a_config_of_a_later_format_is_refused_with_the_version_that_wrote_it(tmp_path):
    path = _written(tmp_path)
    content = unsealed(json.loads(path.read_text()))
    write_sealed_json(path, {**content, "format": 3, "versions": {"monai-simclr": "9.1"}})
    with pytest.raises(ValueError, match=r"classifier.json has format 3, and this version reads formats 1 and 2.*9\.1"):
        read_inference_config(tmp_path / "model.pt")


def test_a_temperature_at_its_bound_is_logged_when_it_is_fitted(caplog):
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=3000).astype(float)
    one = fit_operating_point("Mass", labels, 10 * (1 - 2 * labels) + rng.normal(size=3000), 0.9)
    assert one.temperature_at_bound
    assert "Mass: the temperature is at its bound, 100" in caplog.text
    assert "do not rely on its probabilities" in caplog.text


def test_rows_of_the_earlier_form_are_made_anew(tmp_path):
    assert "logits" in _rows(_config(Mass=OperatingPoint(1.0, 0.0, 0.9)), torch.zeros(1, 1), tmp_path)[0]
    old = Journal(tmp_path, {"model": "a", "rows": 2})
    assert old.rows == []
    old.close()
