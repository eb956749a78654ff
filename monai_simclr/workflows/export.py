"""A trained classifier for other runtimes: ONNX, TorchScript, and a folder for MONAI Deploy; all it needs is inside."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.torchscript_utils import save_net_with_metadata
from torch import nn

from monai_simclr import recipes
from monai_simclr.data.findings import check_finding_names
from monai_simclr.inference import InferenceConfig, InferenceDataset, list_radiographs, read_inference_config
from monai_simclr.networks import FindingClassifier, encoder, load_classifier
from monai_simclr.runtime.files import write_atomically, write_bytes, write_json, writing
from monai_simclr.workflows.bundle import read_metadata
from monai_simclr.workflows.verify import verify_bundle

logger = logging.getLogger("monai_simclr")

_CALIBRATION = 128
"""Radiographs that the ranges of int8 are measured on, at the most."""


def trained_classifier(bundle: str | Path) -> tuple[FindingClassifier, InferenceConfig, int]:
    """The classifier of a bundle, its card, and the side of its images in pixels.

    The network is built by our own factory from the plain values of metadata.json: a config of somebody else's bundle
    is neither evaluated nor imported from.

    Raises:
        FileNotFoundError: if the bundle has no trained classifier.
        ValueError: if metadata.json does not say what a classifier is built of, or has code where names belong.
    """
    folder = Path(bundle)
    metadata = read_metadata(folder)
    size = int(metadata["network_data_format"]["inputs"]["image"]["spatial_shape"][0])
    findings = list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())
    name, width = metadata["encoder"]["name"], float(metadata["encoder"]["width"])
    norm, model = metadata["encoder"].get("norm", "batch"), Path(metadata["files"]["model"])
    check_finding_names(findings)
    path = folder / model
    card = read_inference_config(path)
    return load_classifier(FindingClassifier(encoder(name, width, norm), findings), path), card, size


def export_onnx(bundle: str | Path, path: str | Path) -> Path:
    """Write the classifier as ONNX: ``image`` float32 (N, 1, S, S) in [0, 1] to ``pred``, logits (N, K); N is free.

    The file's metadata hold, as JSON, what `onnx_metadata` gives: findings, preprocessing, temperatures and thresholds.
    Decide with ``logit >= threshold_logit``.

    Args:
        bundle: folder of a bundle with a trained classifier.
        path: the new file.
    """
    network, card, size = trained_classifier(bundle)
    image = torch.zeros(2, 1, size, size)
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        network,
        (image,),
        input_names=["image"],
        output_names=["pred"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return _write_onnx(program.model_proto, onnx_metadata(card), path)


def export_int8(bundle: str | Path, path: str | Path, radiographs: str | Path) -> Path:
    """Write the classifier as ONNX with 8-bit weights and activations: smaller and faster, and not quite the same.

    Static quantization (QDQ) with a scale a channel for weights, unsigned activations (signed ones are slower than
    float32 on x86), and ranges from up to 128 radiographs. Temperatures and thresholds stay those of the float32
    network, and probabilities move by up to 0.1 (docs/results.md): check the decisions on your own validation images.

    Args:
        bundle: folder of a bundle with a trained classifier.
        path: the new file.
        radiographs: folder of images that the classifier was trained on, or of the same kind.

    Raises:
        ValueError: if fewer than 16 files of the folder can be read.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    _, card, size = trained_classifier(bundle)
    images = _some_images(radiographs, size)
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (str(Path(folder) / f"{name}.onnx") for name in ("plain", "ready", "small"))
        export_onnx(bundle, plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            small,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return _write_onnx(onnx.load(small), {**onnx_metadata(card), "precision": "int8"}, path)


def export_torchscript(bundle: str | Path, path: str | Path) -> Path:
    """Write the classifier as TorchScript, with the bundle's configs inside as `monai.bundle ckpt_export` puts them,
    and what `onnx_metadata` gives in the metadata.

    MONAI Deploy looks for the configs in a folder of the archive that has the file's name without its ending, and goes
    on without them where there is none: do not rename the file, export it again.

    Args:
        bundle: folder of a bundle with a trained classifier.
        path: the new file.
    """
    path = Path(path)
    network, card, size = trained_classifier(bundle)
    with torch.no_grad():
        traced = torch.jit.trace(_Plain(network), torch.zeros(2, 1, size, size))
    inference = _inference_config(bundle).encode()
    with tempfile.TemporaryDirectory() as folder:  # the file's name becomes that of the archive's folder
        made = Path(folder) / path.name
        with writing(made):
            save_net_with_metadata(
                traced,
                str(made),
                include_config_vals=False,
                append_timestamp=False,
                meta_values=_metadata(bundle, card),
                more_extra_files={"inference.json": inference},
            )
        with write_atomically(path) as part:
            shutil.copyfile(made, part)
    return path


def export_folder(bundle: str | Path, folder: str | Path) -> Path:
    """Write the folder that MONAI Deploy runs as a bundle: ``models/model.ts``, configs with `onnx_metadata` inside.

    Args:
        bundle: folder of a bundle with a trained classifier.
        folder: the new folder; must not exist, or be empty.

    Raises:
        FileExistsError: if the folder has something in it.
    """
    folder, bundle = Path(folder), Path(bundle)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder for the export")
    _, card, _ = trained_classifier(bundle)
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("LICENSE", "docs/README.md", "configs/inference.json"):
        if (bundle / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(bundle / name, folder / name)
    export_torchscript(bundle, folder / "models" / "model.ts")
    write_json(folder / "configs" / "metadata.json", _metadata(bundle, card))  # last: without it, it is no bundle
    return folder


def onnx_metadata(card: InferenceConfig) -> dict[str, str]:
    """What travels inside an exported file, as text: findings, preprocessing, operating points, the checksum."""
    operating: dict[str, Any] = {
        name: {
            "temperature": card.operating[name].temperature,
            "threshold_logit": logit,  # decide with logit >= threshold_logit; probabilities are for people to read
            "threshold_probability": probability,
        }
        for name, logit, probability in zip(
            card.findings, card.thresholds(), card.threshold_probabilities(), strict=True
        )
    }
    return {
        "findings": json.dumps(list(card.findings)),
        "preprocessing": json.dumps(dict(card.preprocessing), sort_keys=True, default=list),
        "operating": json.dumps(operating),
        "model_sha256": card.model_sha256,
        "notice": "research only, not for diagnosis",
    }


def _inference_config(bundle: str | Path) -> str:
    """The text of the bundle's inference config, which goes into an export as it is; what is not ours in it is said."""
    name = "configs/inference.json"
    others = [found.text for found in verify_bundle(bundle) if not found.known and found.file == name]
    if others:
        logger.warning(
            f"the export carries {name} of {bundle}, which runs {len(others)} things that ours does not, the first is "
            f"{others[0]!r}; nothing of it was run here; see monai-simclr verify"
        )
    return (Path(bundle) / name).read_text(encoding="utf-8")


def _metadata(bundle: str | Path, card: InferenceConfig) -> dict[str, Any]:
    return {**read_metadata(bundle), **onnx_metadata(card)}


def _write_onnx(model: Any, metadata: Mapping[str, str], path: str | Path) -> Path:
    import onnx

    del model.metadata_props[:]
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())
    return Path(path)


def _some_images(folder: str | Path, size: int) -> np.ndarray:
    """Up to `_CALIBRATION` images of a folder, the same every time, as the network sees them, ``(N, 1, S, S)``."""
    records = list_radiographs(folder)
    order = np.random.default_rng(0).permutation(len(records))
    dataset = InferenceDataset([records[n] for n in order], recipes.preprocessing(size), size)
    items = (dataset[n] for n in range(len(dataset)))
    images = list(islice((item["image"].numpy() for item in items if not item["reason"]), _CALIBRATION))
    if len(images) < _CALIBRATION // 8:
        raise ValueError(
            f"{len(images)} of {len(records)} files in {folder} can be read; int8 needs {_CALIBRATION // 8} "
            f"radiographs or more, better {_CALIBRATION}, to measure what values the network has inside"
        )
    return np.stack(images)


class _Calibration:
    """Images for ONNX Runtime's calibration, 16 at a time; it asks for `get_next` only."""

    def __init__(self, images: np.ndarray) -> None:
        self.batches = iter(np.array_split(images, max(1, len(images) // 16)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


class _Plain(nn.Module):
    """The classifier without its extra state, which TorchScript cannot hold."""

    def __init__(self, network: FindingClassifier) -> None:
        super().__init__()
        self.encoder, self.classifier = network.encoder, network.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.encoder(images))
