"""The bundle, end to end on phantoms, by MONAI's own command; and that no fact stands in two configs."""

from __future__ import annotations

import csv
import json
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from bundle_command import Forked, bundle_command
from monai.bundle import ConfigWorkflow
from monai_simclr.bundles import CHEST_XRAY_SIMCLR

from monai_simclr.data.phantoms import FINDINGS, write_dicom_phantoms, write_nih_phantoms
from monai_simclr.evaluation import Embeddings
from monai_simclr.networks import encoder_header, patients_records
from monai_simclr.runtime.metrics import read_metrics
from monai_simclr.workflows.bundle import copy_bundle

CONFIGS = CHEST_XRAY_SIMCLR / "configs"
SMALL = ["--num_workers", "0", "--max_epochs", "2"]


def _run(bundle: Path, config: str, *arguments: str, check: bool = True) -> str:
    """A command in a fork; what it wrote to stderr."""
    with tempfile.TemporaryDirectory() as printed:
        command = Forked(bundle, Path(printed), bundle_command(config, *arguments))
        said = command.communicate()
    assert (command.returncode == 0) == check, "".join(said)[-4000:]
    return said[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("main_job")
    write_nih_phantoms(folder / "phantoms", n_patients=96, size=96, bad_files=3)
    write_dicom_phantoms(folder / "dicom", n_patients=2, size=96)
    (folder / "dicom" / "notes.txt").write_text("not an image")
    copy_bundle(folder / "bundle", FINDINGS, size=56, width=0.25)
    return folder


@pytest.fixture(scope="module")
def pretrained(folder):
    archive = ["--dataset_dir", str(folder / "phantoms")]
    command = bundle_command("configs/pretrain.json", *archive, *SMALL, "--batch_size", "32")
    done = subprocess.run(command, cwd=folder / "bundle", capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_the_main_job_runs_by_its_five_commands(pretrained):
    folder, log = pretrained
    bundle, archive = folder / "bundle", ["--dataset_dir", str(folder / "phantoms"), "--num_workers", "0"]
    assert "images could not be read, the first is" in log
    assert log.count("3 of ") >= 1
    assert "next: run configs/cluster.json" in log
    _run(bundle, "configs/cluster.json", *archive, "--n_bootstrap", "50")
    few = ["--n_bootstrap", "50", "--n_seeds", "1", "--method", "kmeans", "--n_clusters", "[2]", "--remove", "[]"]
    spread = ["--engine", "processes", "--num_workers", "1", "--output_dir", "output/spread"]
    _run(bundle, "configs/cluster.json", *archive[:2], *few, *spread)
    alone, other = (Embeddings.load(bundle / "output" / name / "embeddings.npz") for name in ("cluster", "spread"))
    np.testing.assert_allclose(other.features, alone.features, rtol=0, atol=1e-5 * np.abs(alone.features).max())
    _run(bundle, "configs/train.json", *archive, "--label_fraction", "0.5", "--max_epochs", "2")
    _run(bundle, "['configs/train.json','configs/evaluate.json']", *archive)
    _run(bundle, "configs/inference.json", "--dataset_dir", str(folder / "dicom"), "--num_workers", "0")
    for name in ("pretrain", "cluster", "train", "evaluate", "inference"):
        metrics = read_metrics(bundle / "output" / name)
        assert metrics["command"] == name
        assert metrics["versions"]["monai"]
        assert (bundle / "output" / name / "config.json").is_file()
    clusters = read_metrics(bundle / "output" / "cluster")["values"]
    assert {"encoder", "raw pixels", "grey histogram", "random encoder"} == set(clusters["knn"])
    row = clusters["clusters"]["encoder"]["6"]["acc_one_to_one"]
    assert row["low"] <= row["value"] <= row["high"]
    assert 0 < row["majority"] < 1


@pytest.mark.parametrize(("kind", "name"), [("train", "pretrain"), ("train", "train"), ("infer", "inference")])
def test_monai_finds_every_property_that_a_bundle_must_have(pretrained, tmp_path, kind, name, monkeypatch):
    folder, _ = pretrained
    monkeypatch.chdir(folder / "bundle")
    overrides = {"dataset_dir": str(folder / "phantoms"), "output_dir": str(tmp_path), "num_workers": 0}
    batch = {"batch_size": 32} if kind == "train" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI warns that configs are code
        workflow = ConfigWorkflow(f"configs/{name}.json", workflow_type=kind, logging_file=False, **overrides, **batch)
        workflow.initialize()
        assert workflow.check_properties() == []


def test_predictions_name_nobody(pretrained):
    folder, _ = pretrained
    text = (folder / "bundle" / "output" / "inference" / "predictions.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == sum(path.is_file() for path in (folder / "dicom").rglob("*"))
    assert [row["reason"] for row in rows if row["reason"]] == [
        "is not DICOM, PNG, JPEG, TIFF or NIfTI; its content decides, not its name"
    ]
    assert "PHANTOM" not in text
    assert str(folder) not in text


def test_the_encoder_knows_its_patients_by_a_keyed_hash_and_saw_no_test_patient(pretrained):
    folder, _ = pretrained
    from monai_simclr.data import open_index
    from monai_simclr.data.pseudonyms import keyed_hash

    header = encoder_header(folder / "bundle" / "models" / "encoder.safetensors")
    index = open_index(folder / "phantoms")
    hashes = {patient: keyed_hash(header["patients_key"], patient) for patient in index["patient_id"]}
    seen = {patient for patient, value in hashes.items() if value in patients_records(header)[0][1]}
    assert seen
    assert not seen & set(index.loc[index["split"] == "test", "patient_id"])


def test_a_fraction_that_leaves_a_finding_empty_says_so(pretrained):
    folder, _ = pretrained
    arguments = ["--dataset_dir", str(folder / "phantoms"), "--label_fraction", "0.01", "--num_workers", "0"]
    said = _run(folder / "bundle", "configs/train.json", *arguments, check=False)
    assert "without a positive; use a larger label_fraction" in said


def test_inference_without_a_checkpoint_is_an_error(folder, tmp_path):
    bundle = copy_bundle(tmp_path / "fresh", FINDINGS, size=56, width=0.25)
    said = _run(bundle, "configs/inference.json", "--dataset_dir", str(folder / "dicom"), check=False)
    assert "so predictions would come from random weights; run configs/train.json first" in said


def test_a_copy_has_its_findings_in_one_place(tmp_path):
    copy = copy_bundle(tmp_path / "b", ["Mass", "Edema"], size=64, encoder="resnet34", width=0.5)
    changed = [
        path.name for path in (copy / "configs").iterdir() if path.read_text() != (CONFIGS / path.name).read_text()
    ]
    assert changed == ["metadata.json"]
    metadata = json.loads((copy / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "Mass", "1": "Edema"}
    assert metadata["encoder"] == {"name": "resnet34", "width": 0.5, "norm": "batch"}


def test_a_bundle_never_overwrites_a_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty; name a new folder"):
        copy_bundle(tmp_path)
