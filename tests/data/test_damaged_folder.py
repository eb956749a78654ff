"""A folder of damaged files through whole commands: index, audit, store, inference. No file ends a run."""

from __future__ import annotations

import csv

import pytest
import torch
from fuzz_reader import HEADER_DAMAGES, damaged
from monai.engines import SupervisedEvaluator
from radiograph_corpus import SYNTAXES, write_described, write_pictures, write_syntax
from torch.utils.data import DataLoader

from monai_simclr import recipes
from monai_simclr.audit.run import run_audit
from monai_simclr.data import build_store, get_store, open_index
from monai_simclr.data.phantoms import write_dicom_phantoms, write_nih_phantoms
from monai_simclr.engines import PrepareLabelled
from monai_simclr.inference import InferenceDataset, OutputOptions, write_inference_config
from monai_simclr.networks import FindingClassifier, encoder, save_classifier
from monai_simclr.workflows import Run, infer
from monai_simclr.workflows.inference_config import make_inference_config

SIZE = 48


def _folder(folder, n_files):
    """Sound phantoms, and `n_files` damaged files of every kind, most of them headers that were edited."""
    corpus = folder / "corpus"
    corpus.mkdir()
    write_pictures(corpus)
    for syntax in SYNTAXES:
        write_syntax(corpus / f"{syntax.keyword}.dcm", syntax)
    for k in range(30):
        write_described(corpus / f"described{k}.dcm")
    paths = sorted(corpus.iterdir())
    archive = write_dicom_phantoms(folder / "archive", n_patients=4, size=64, seed=3)
    sound = len(list(archive.rglob("*.dcm")))
    for number in range(n_files):
        content, _ = damaged(paths, 100_000 + number)
        (archive / f"damaged{number:05d}.dcm").write_bytes(content)
    return archive, sound


def _network():
    torch.manual_seed(0)
    return FindingClassifier(encoder("resnet10", width=0.125), ["Effusion"])


def _infer(folder, archive):
    store = get_store(
        write_nih_phantoms(folder / "nih", n_patients=100, size=64),
        folder / "nih_store",
        recipes.stored_size(SIZE),
        workers=0,
    )
    network = _network().eval()
    model = save_classifier(folder / "model.pt", network)
    write_inference_config(make_inference_config(Run(str(folder), SIZE, 0, torch.device("cpu")), network, store), model)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        network=_network(),
        prepare_batch=PrepareLabelled(),
        decollate=False,
        val_data_loader=DataLoader(InferenceDataset([], recipes.preprocessing(SIZE), SIZE), batch_size=16),
    )
    infer(Run(str(folder / "out"), SIZE, 0, torch.device("cpu")), model, evaluator, archive, OutputOptions())
    return list(csv.DictReader((folder / "out" / "predictions.csv").read_text(encoding="utf-8").splitlines()))


def _go_through_everything(folder, n_files):
    archive, sound = _folder(folder, n_files)
    index = open_index(archive, check=False)
    n_excluded = sum(index.attrs["excluded"].values())
    assert len(index) + n_excluded >= sound + n_files
    assert set(index.attrs["excluded"]) >= {"DICOM with a damaged header"}
    audit = run_audit(archive, folder / "audit", pixels=True, workers=0).content
    assert audit["images"] == len(index)
    store = build_store(index, folder / "store", 32, workers=0, max_rejected=1.0)
    assert len(store.images) + len(store.rejected) == len(index)
    assert len(store.images) >= sound
    assert audit["flags"]["damaged"]["count"] + audit["flags"]["unreadable"]["count"] == len(store.rejected)
    rows = _infer(folder, archive)
    assert len(rows) >= sound + n_files
    assert sum(row["reason"] == "" for row in rows) >= sound
    reasons = {row["reason"] for row in rows}
    assert not [reason for reason in reasons if "could not be read" in reason], (
        reasons
    )  # of an error without a sentence


def test_a_folder_of_60_damaged_files_ends_no_command(tmp_path):
    assert len(HEADER_DAMAGES) == 4
    _go_through_everything(tmp_path, 60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_folder_of_2000_damaged_files_ends_no_command(tmp_path):
    _go_through_everything(tmp_path, 2000)
