"""`predict` from Python, and a batch of a thousand files that is killed twice."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_command import bundle_command
from small_bundle import FINDINGS, SIZE, small_bundle

from monai_simclr import recipes
from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.inference import list_radiographs, predict
from monai_simclr.workflows.export import export_int8, export_onnx, export_torchscript, trained_classifier


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle with a classifier of random weights, and its config."""
    return small_bundle(tmp_path_factory.mktemp("predict"), 100)


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    pytest.importorskip("onnxscript", reason="ONNX needs the extra [export]")
    export_onnx(bundle, folder / "model.onnx")
    export_torchscript(bundle, folder / "model.ts")
    return folder


def test_predict_gives_one_row_a_path_in_its_order(bundle, tmp_path):
    folder = write_dicom_phantoms(tmp_path / "dicom", n_patients=2, size=64)
    (folder / "notes.txt").write_text("no image")
    paths = [record["image"] for record in list_radiographs(folder)][::-1]
    table = predict(paths, bundle)
    assert list(table["path"]) == paths
    assert list(table["reason"] != "") == [path.endswith("notes.txt") for path in paths]
    assert table["Effusion"].notna().sum() == len(paths) - 1


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    folder = write_dicom_phantoms(tmp_path_factory.mktemp("radiographs"), n_patients=3, size=64)
    return [Path(record["image"]) for record in list_radiographs(folder)]


def test_predict_gives_a_row_for_every_time_that_a_path_is_given(bundle, radiographs, tmp_path, monkeypatch):
    first, second, third, *_ = radiographs
    monkeypatch.chdir(first.parent)
    given = [third, first, str(third), first.name, f"./{first.name}", second, first]
    table = predict(iter(given), bundle)
    assert list(table["path"]) == [str(one) for one in given]
    alone = {one: predict(one, bundle).iloc[0] for one in (first, second, third)}
    for path, (_, row) in zip(given, table.iterrows(), strict=True):
        expected = alone[first.parent / path if Path(path).parent == Path() else Path(path)]
        np.testing.assert_allclose(row["Effusion logit"], expected["Effusion logit"], atol=1e-4)
        assert row["novelty"] == pytest.approx(expected["novelty"], abs=2e-3)


def test_predict_gives_the_rows_of_its_paths_whatever_is_in_the_folder_already(bundle, radiographs, tmp_path):
    first, second, third, *_ = radiographs
    out = tmp_path / "out"
    whole = predict([first, second, third], bundle, out)
    again = predict([third, first], bundle, out)
    assert list(again["path"]) == [str(third), str(first)]
    assert list(again["Effusion logit"]) == [whole["Effusion logit"][2], whole["Effusion logit"][0]]
    assert len(predict([second], bundle, str(out))) == 1
    assert len(predict([], bundle, out)) == 0
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 4  # nothing was predicted twice


def test_predict_of_a_folder_gives_what_is_in_it_now(bundle, radiographs, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("b", "a", "gone"):
        shutil.copy(radiographs[0], folder / f"{name}.dcm")
    assert len(predict(folder, bundle, out)) == 3
    (folder / "gone.dcm").unlink()
    for given in (folder, str(folder), [folder]):
        assert list(predict(given, bundle, out)["path"]) == [str(folder / "a.dcm"), str(folder / "b.dcm")]


def test_predict_of_nothing_is_a_table_without_rows(bundle, radiographs):
    table = predict([], bundle)
    assert len(table) == 0
    assert list(table.columns) == list(predict(radiographs[:1], bundle).columns)


@pytest.mark.parametrize("given", ["", [""], "nowhere.dcm", Path("nowhere")])
def test_predict_of_a_path_that_is_not_there_names_it_and_predicts_nothing(bundle, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")  # what the current folder holds must not be predicted
    name = given[0] if isinstance(given, list) else str(given)
    with pytest.raises(FileNotFoundError, match=rf"there is no file '{name}' \(paths\[0\]\); nothing was predicted"):
        predict(given, bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_predict_names_the_first_of_several_missing_files(bundle, radiographs, tmp_path):
    (tmp_path / "link.dcm").symlink_to(tmp_path / "nowhere")
    given = [radiographs[0], tmp_path / "x.dcm", radiographs[1], tmp_path / "link.dcm"]
    with pytest.raises(
        FileNotFoundError, match=r"no file '.*x\.dcm' \(paths\[1\]; 2 of 4 are missing\); nothing was predicted"
    ):
        predict(given, bundle)


def test_predict_refuses_a_folder_among_files_and_what_is_neither(bundle, radiographs, tmp_path):
    with pytest.raises(ValueError, match=r"paths\[1\] is a folder, .*; pass a folder alone, or the paths of its files"):
        predict([radiographs[0], tmp_path], bundle)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"paths\[0\] is neither a file nor a folder: .*pipe"):
        predict([tmp_path / "pipe"], bundle)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"the folder .*empty has no files"):
        predict(tmp_path / "empty", bundle)


def test_predict_raises_the_error_itself_and_not_monais_wrapper(bundle, radiographs, tmp_path):
    (tmp_path / "out").write_text("no folder")
    with pytest.raises(FileExistsError):
        predict(radiographs[:1], bundle, tmp_path / "out")
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    (copy / "models" / "classifier.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no classifier\.json next to model\.pt"):
        predict(radiographs[:1], copy)


def test_a_path_that_looks_like_an_expression_is_a_path(bundle, radiographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("$print(1)", "@size", "%x"):
        (tmp_path / name).mkdir()
        shutil.copy(radiographs[0], tmp_path / name / "$1+1.dcm")
        table = predict(name, bundle)
        assert list(table["path"]) == [str(tmp_path / name / "$1+1.dcm")]
        assert list(table["reason"]) == [""]


def test_the_current_folder_is_not_meant_by_an_empty_name():
    with pytest.raises(FileNotFoundError, match="the path of the radiographs is empty; pass --dataset_dir"):
        list_radiographs("")


def test_predict_says_what_is_not_a_bundle(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a bundle: it has no configs/inference\.json"):
        predict(["a.dcm"], tmp_path)


def _start(bundle: Path, folder: Path) -> subprocess.Popen:
    command = bundle_command("configs/inference.json", "--dataset_dir", str(folder), "--num_workers", "0")
    return subprocess.Popen(command, cwd=bundle, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_files_with_fifty_damaged_ones_survive_two_kills(bundle, tmp_path):
    folder = write_dicom_phantoms(tmp_path / "dicom", n_patients=600, size=64)
    files = sorted(folder.rglob("*.dcm"))
    for surplus in files[1000:]:
        surplus.unlink()
    for damaged in np.random.default_rng(0).choice(files[:1000], 50, replace=False):
        damaged.write_bytes(damaged.read_bytes()[:-900])
    journal = bundle / "output" / "inference" / "predictions.jsonl"
    for at_least in (200, 600):
        process = _start(bundle, folder)
        while not journal.is_file() or journal.read_bytes().count(b"\n") <= at_least:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert journal.read_bytes().count(b"\n") < 1000
    process = _start(bundle, folder)
    assert process.wait(timeout=600) == 0
    rows = list(csv.DictReader((bundle / "output" / "inference" / "predictions.csv").read_text().splitlines()))
    assert len(rows) == len({row["file_hash"] for row in rows}) == 1000
    assert sum(bool(row["Effusion"]) for row in rows) == 950
    assert sum(bool(row["reason"]) for row in rows) == 50


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_onnx_gives_what_pytorch_gives_at_every_batch_size(bundle, exported, batch):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra [export]")
    network, _, size = trained_classifier(bundle)
    images = torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(batch))
    session = runtime.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"image": images.numpy()})[0], network(images), atol=1e-4)


def test_int8_is_near_float32_and_smaller_and_keeps_the_metadata(bundle, exported, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra [export]")
    folder = write_dicom_phantoms(tmp_path / "dicom", n_patients=12, size=64)
    (folder / "notes.txt").write_text("no image")
    path = export_int8(bundle, tmp_path / "small.onnx", folder)
    network, _, size = trained_classifier(bundle)
    files = [{"image": str(file)} for file in sorted(folder.rglob("*.dcm"))]
    images = torch.stack([recipes.preprocessing(size)(file)["image"] for file in files])
    plain, small = (
        runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for file in (exported / "model.onnx", path)
    )
    with torch.no_grad():
        expected = network(images).numpy()
    found = small.run(None, {"image": images.numpy()})[0]
    assert all(np.corrcoef(expected[:, k], found[:, k])[0, 1] > 0.95 for k in range(2))
    assert path.stat().st_size < (exported / "model.onnx").stat().st_size / 2
    said = small.get_modelmeta().custom_metadata_map
    difference = json.loads(said.pop("difference"))
    assert said == {**plain.get_modelmeta().custom_metadata_map, "precision": "int8"}
    assert (difference["images"], difference["held_out"]) == (len(files), False)
    assert 0 < difference["mean_logit"] < difference["largest_logit"] < 0.05


def test_int8_from_too_few_radiographs_is_refused(bundle, tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX needs the extra [export]")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"0 of 1 files in .* can be read; int8 needs 16 radiographs or more"):
        export_int8(bundle, tmp_path / "small.onnx", tmp_path)


def test_exported_files_say_how_they_must_be_used(bundle, exported):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra [export]")
    session = runtime.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    extra = {"metadata.json": "", "inference.json": ""}
    scripted = torch.jit.load(str(exported / "model.ts"), _extra_files=extra)
    _, config, size = trained_classifier(bundle)
    for found in (session.get_modelmeta().custom_metadata_map, json.loads(extra["metadata.json"])):
        assert json.loads(found["findings"]) == FINDINGS
        assert json.loads(found["preprocessing"]) == json.loads(json.dumps(recipes.settings(size)))
        operating = [json.loads(found["operating"])[name] for name in FINDINGS]
        assert [one["threshold_logit"] for one in operating] == config.thresholds()
        assert [one["threshold_probability"] for one in operating] == config.threshold_probabilities()
        assert found["model_sha256"] == config.model_sha256
    assert json.loads(extra["inference.json"])["evaluator"]
    assert scripted(torch.zeros(1, 1, size, size)).shape == (1, 2)


@pytest.mark.parametrize(("command", "name"), [("ckpt_export", "m.ts"), ("onnx_export", "m.onnx")])
@pytest.mark.slow
def test_monais_own_exports_work(bundle, tmp_path, command, name):
    arguments = [sys.executable, "-W", "ignore", "-m", "monai.bundle", command, "network_def"]
    arguments += ["--filepath", str(tmp_path / name), "--ckpt_file", "models/model.pt"]
    arguments += ["--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json"]
    shape = ["--input_shape", f"[1, 1, {SIZE}, {SIZE}]"] if command == "onnx_export" else []
    done = subprocess.run([*arguments, *shape], cwd=bundle, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / name).stat().st_size > 10_000
