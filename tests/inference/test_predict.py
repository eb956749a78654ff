"""`predict` from Python, and a batch of a thousand files that is killed twice."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import monai_simclr
from monai_simclr import recipes
from monai_simclr.bundling import copy_bundle
from monai_simclr.data import store_of
from monai_simclr.data.phantom_files import write_dicom_phantoms, write_nih_phantoms
from monai_simclr.inference import list_radiographs, write_card
from monai_simclr.networks import FindingClassifier, encoder, save_classifier
from monai_simclr.workflows import Run
from monai_simclr.workflows.card import classifier_card

FINDINGS = ["Cardiomegaly", "Effusion"]
SIZE = 48


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle with a classifier of random weights, and its card."""
    folder = tmp_path_factory.mktemp("predict")
    bundle = copy_bundle(folder / "bundle", FINDINGS, size=SIZE, encoder="resnet10", width=0.125)
    store = store_of(write_nih_phantoms(folder / "nih", 100, size=64), folder / "store", recipes.stored_size(SIZE), 0)
    torch.manual_seed(0)
    network = FindingClassifier(encoder("resnet10", width=0.125), FINDINGS).eval()
    path = save_classifier(bundle / "models" / "model.pt", network)
    write_card(classifier_card(Run(str(folder), SIZE, 0, torch.device("cpu")), network, store), path)
    return bundle


def test_predict_gives_one_row_a_path_in_its_order(bundle, tmp_path):
    folder = write_dicom_phantoms(tmp_path / "dicom", n_patients=2, size=64)
    (folder / "notes.txt").write_text("no image")
    paths = [record["image"] for record in list_radiographs(folder)][::-1]
    table = monai_simclr.predict(paths, bundle)
    assert list(table["path"]) == paths
    assert list(table["reason"] != "") == [path.endswith("notes.txt") for path in paths]
    assert table["Effusion"].notna().sum() == len(paths) - 1


def test_predict_says_what_is_no_bundle(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no bundle: it has no configs/inference\.json"):
        monai_simclr.predict(["a.dcm"], tmp_path)


def _start(bundle: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--dataset_dir", str(folder), "--num_workers", "0"]
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
