"""A bundle with a classifier of random weights, and its card: what inference and exports are tried on."""

from __future__ import annotations

from pathlib import Path

import torch

from monai_simclr import recipes
from monai_simclr.data import store_of
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.inference import write_inference_config
from monai_simclr.networks import FindingClassifier, encoder, save_classifier
from monai_simclr.workflows import Run
from monai_simclr.workflows.bundle import copy_bundle
from monai_simclr.workflows.inference_config import make_inference_config

FINDINGS, SIZE = ["Cardiomegaly", "Effusion"], 48


def small_bundle(folder: Path, patients: int, scale: float = 1.0) -> Path:
    """Make it; `scale` multiplies the classifier's weights, so that probabilities depend more on the image."""
    bundle = copy_bundle(folder / "bundle", FINDINGS, size=SIZE, encoder="resnet10", width=0.125)
    archive = write_nih_phantoms(folder / "nih", patients, size=64)
    store = store_of(archive, folder / "store", recipes.stored_size(SIZE), 0)
    torch.manual_seed(0)
    network = FindingClassifier(encoder("resnet10", width=0.125), FINDINGS).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(scale)
    path = save_classifier(bundle / "models" / "model.pt", network)
    write_inference_config(make_inference_config(Run(str(folder), SIZE, 0, torch.device("cpu")), network, store), path)
    return bundle
