"""A bundle with a classifier of random weights and its inference config, and inference with it."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from monai.engines import SupervisedEvaluator
from torch.utils.data import DataLoader

from monai_simclr import recipes
from monai_simclr.data import get_store
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.engines import PrepareLabelled
from monai_simclr.inference import InferenceDataset, OutputOptions, write_inference_config
from monai_simclr.networks import FindingClassifier, encoder, save_classifier
from monai_simclr.workflows import Run, infer
from monai_simclr.workflows.bundle import copy_bundle
from monai_simclr.workflows.inference_config import make_inference_config

FINDINGS, SIZE = ["Cardiomegaly", "Effusion"], 48


def small_bundle(folder: Path, patients: int, scale: float = 1.0) -> Path:
    """Make it; `scale` multiplies the classifier's weights, so that probabilities depend more on the image."""
    bundle = copy_bundle(folder / "bundle", FINDINGS, size=SIZE, encoder="resnet10", width=0.125)
    archive = write_nih_phantoms(folder / "nih", patients, size=64)
    store = get_store(archive, folder / "store", recipes.stored_size(SIZE), 0)
    network = small_network().eval()
    with torch.no_grad():
        network.classifier.weight.mul_(scale)
    path = save_classifier(bundle / "models" / "model.pt", network)
    write_inference_config(make_inference_config(Run(str(folder), SIZE, 0, torch.device("cpu")), network, store), path)
    return bundle


def small_network(findings=FINDINGS) -> FindingClassifier:
    torch.manual_seed(0)
    return FindingClassifier(encoder("resnet10", width=0.125), findings)


def run_inference(
    model: Path, folder, output: Path, watch: float = 0.0, batch_size: int = 4, network=None, **outputs: bool
) -> SupervisedEvaluator:
    """`infer` as a bundle's config calls it; returns the evaluator."""
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(InferenceDataset([], recipes.preprocessing(SIZE), SIZE), batch_size=batch_size),
        network=network or small_network(),
        prepare_batch=PrepareLabelled(),
        decollate=False,
    )
    infer(Run(str(output), SIZE, 0, torch.device("cpu")), model, evaluator, folder, OutputOptions(**outputs), watch)
    return evaluator


def csv_rows(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((output / "predictions.csv").read_text(encoding="utf-8").splitlines()))
