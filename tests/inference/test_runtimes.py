"""ONNX Runtime at inference: equal decisions, a stated difference of int8, and no file of other weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_bundle import FINDINGS, small_bundle, small_network

from monai_simclr.inference import OperatingPoint, predict, read_inference_config, use_runtime, write_inference_config
from monai_simclr.inference.runtimes import OnnxFeatures
from monai_simclr.networks import load_classifier, save_classifier
from monai_simclr.runtime.artefacts import DamagedFileError

pytest.importorskip("onnxruntime", reason="the extra [export]")
export = pytest.importorskip("monai_simclr.workflows.export")
pytest.importorskip("onnxscript", reason="the extra [export]")

LOGITS = [f"{name} logit" for name in FINDINGS]
DECISIONS = [f"{name} decision" for name in FINDINGS]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle with the files of both runtimes, and the folder of its radiographs beside it."""
    folder = tmp_path_factory.mktemp("runtimes")
    made = small_bundle(folder, 40, scale=20)
    model, logits = made / "models" / "model.pt", predict(folder / "nih", made)[LOGITS].median()
    card = read_inference_config(model)
    points = {name: OperatingPoint(1.0, float(logit) + 1e-3, 0.9) for name, logit in zip(FINDINGS, logits, strict=True)}
    write_inference_config(replace(card, operating=points), model)
    export.export_onnx(made, made / "models" / "model.onnx")
    export.export_int8(made, made / "models" / "model_int8.onnx", folder / "nih")
    return made


@pytest.fixture(scope="module")
def tables(bundle, tmp_path_factory):
    """Predictions and their documents by runtime."""
    found = {}
    for runtime in ("torch", "onnx", "int8"):
        out = tmp_path_factory.mktemp(runtime)
        table = predict(bundle.parent / "nih", bundle, out, runtime=runtime, outputs={"overlays": runtime == "onnx"})
        found[runtime] = table, json.loads((out / "predictions.json").read_text(encoding="utf-8")), out
    return found


def test_onnx_gives_the_logits_and_decisions_of_torch(tables):
    (by_torch, _, _), (by_onnx, _, _) = tables["torch"], tables["onnx"]
    assert set(by_torch[DECISIONS[0]].dropna()) == {0, 1}
    np.testing.assert_allclose(by_onnx[LOGITS], by_torch[LOGITS], atol=1e-4)
    np.testing.assert_allclose(by_onnx["novelty"], by_torch["novelty"], atol=2e-4)
    for column in (*DECISIONS, "flags", "reason"):
        assert by_onnx[column].equals(by_torch[column])


def test_int8_differs_by_what_it_says(tables):
    (by_torch, _, _), (by_int8, document, _) = tables["torch"], tables["int8"]
    gaps = np.abs(by_int8[LOGITS].to_numpy() - by_torch[LOGITS].to_numpy())
    assert 0 < np.nanmax(gaps) < np.nanstd(by_torch[LOGITS].to_numpy())
    about = document["runtime"]
    assert about["name"] == "int8"
    difference = about["difference"]
    assert difference["calibration_images"] + difference["images"] >= 30
    assert np.nanmean(gaps) < 4 * difference["mean_logit"]
    assert 0 <= difference["other_decisions"] <= difference["decisions"]


def test_the_runtime_is_recorded_and_overlays_are_the_networks_own(tables):
    assert tables["torch"][1]["runtime"] == {"name": "torch"}
    assert set(tables["onnx"][1]["runtime"]) == {"name", "file_sha256"}
    positive = (tables["onnx"][0][DECISIONS] == 1).any(axis=1).sum()
    assert len(list((tables["onnx"][2] / "overlays").glob("*.png"))) == positive > 0


def test_rows_of_two_runtimes_are_never_mixed(bundle, tmp_path):
    files = sorted((bundle.parent / "nih").rglob("*.png"))[:3]
    first = predict(files, bundle, tmp_path)
    again = predict(files, bundle, tmp_path, runtime="int8")
    assert not np.array_equal(first[LOGITS], again[LOGITS])


def test_files_of_other_weights_of_another_precision_or_none_are_refused(bundle, tmp_path):
    models = shutil.copytree(bundle / "models", tmp_path / "models")
    network = load_classifier(small_network(), models / "model.pt")
    shutil.copy(models / "model_int8.onnx", models / "model.onnx")
    with pytest.raises(ValueError, match="is not the file for runtime=onnx; make it again: monai-simclr export"):
        use_runtime(network, models / "model.pt", "onnx")
    with torch.no_grad():
        network.classifier.bias.add_(1.0)
    save_classifier(models / "model.pt", network)
    with pytest.raises(ValueError, match="was made of other weights than"):
        use_runtime(network, models / "model.pt", "int8")
    (models / "model_int8.onnx").unlink()
    with pytest.raises(FileNotFoundError, match="--int8 FOLDER"):
        use_runtime(network, models / "model.pt", "int8")
    (models / "model_int8.onnx").write_bytes(b"no model")
    with pytest.raises(DamagedFileError, match="cannot be loaded by ONNX Runtime"):
        use_runtime(network, models / "model.pt", "int8")
    with pytest.raises(ValueError, match="runtime must be one of torch, onnx, int8"):
        use_runtime(network, models / "model.pt", "tensorrt")


def test_a_network_keeps_its_weights_hooks_and_gradients(bundle):
    path = bundle / "models" / "model.pt"
    network, images = load_classifier(small_network(), path).eval(), torch.rand(3, 1, 48, 48)
    names, seen = list(network.state_dict()), []
    plain = network(images)
    network.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    about = use_runtime(network, path, "onnx")
    assert use_runtime(network, path, "onnx") == about
    assert list(network.state_dict()) == names
    with torch.no_grad():
        torch.testing.assert_close(network(images), plain, atol=1e-4, rtol=0)
    assert not seen[0].requires_grad
    assert network(images).requires_grad  # by the network itself
    use_runtime(network, path, "torch")
    with torch.no_grad():
        assert torch.equal(network(images), plain)


def test_the_file_gives_logits_too(bundle):
    onnx = pytest.importorskip("onnx")
    outputs = [output.name for output in onnx.load(bundle / "models" / "model.onnx").graph.output]
    assert outputs == ["pred", "features"]
    assert OnnxFeatures(bundle / "models" / "model.onnx")(torch.zeros(5, 1, 48, 48)).shape == (5, 64)
