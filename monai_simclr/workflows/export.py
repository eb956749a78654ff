"""A trained classifier for other runtimes: ONNX, TorchScript, and a folder for MONAI Deploy, with all that it needs."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections import OrderedDict
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
from monai_simclr.inference.runtimes import OnnxFeatures, describe_difference, measure_difference
from monai_simclr.networks import FindingClassifier, encoder, load_classifier
from monai_simclr.runtime.extras import import_extra
from monai_simclr.runtime.files import write_atomically, write_bytes, write_json, writing
from monai_simclr.workflows.bundle import read_metadata
from monai_simclr.workflows.verify import verify_bundle

logger = logging.getLogger("monai_simclr")

_N_CALIBRATION = 128
"""Maximum number of radiographs that the ranges of int8 are measured on."""


def trained_classifier(bundle: str | Path) -> tuple[FindingClassifier, InferenceConfig, int]:
    """Load the classifier of a bundle, its inference config, and the side of its images in pixels.

    The network is built by our own factory from the plain values of metadata.json: no config of the bundle, which may
    be somebody else's, is evaluated or imported from.

    Raises:
        FileNotFoundError: if the bundle has no trained classifier.
        ValueError: if metadata.json does not say how to build a classifier, or has code where names belong.
    """
    metadata = read_metadata(bundle)
    size = int(metadata["network_data_format"]["inputs"]["image"]["spatial_shape"][0])
    findings = list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())
    architecture, path = metadata["encoder"], Path(bundle) / metadata["files"]["model"]
    check_finding_names(findings)
    config = read_inference_config(path)
    net = encoder(architecture["name"], float(architecture["width"]), architecture.get("norm", "batch"))
    return load_classifier(FindingClassifier(net, findings), path), config, size


def export_onnx(bundle: str | Path, path: str | Path) -> Path:
    """Write the classifier as ONNX: ``image`` float32 (N, 1, S, S) in [0, 1] to ``pred``, logits (N, K); N is free.

    A second output, ``features`` (N, D), is the encoder's. The file's metadata are those of `onnx_metadata`, as JSON.
    Decide with ``logit >= threshold_logit``. As ``models/model.onnx`` of the bundle it is what ``--runtime onnx`` runs.

    Args:
        bundle: folder of a bundle with a trained classifier.
        path: the new file.
    """
    import_extra("onnxscript", "export", "an ONNX file")
    network, config, size = trained_classifier(bundle)
    program = torch.onnx.export(
        _WithFeatures(network).eval(),
        (torch.zeros(2, 1, size, size),),
        input_names=["image"],
        output_names=["pred", "features"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return _write_onnx(program.model_proto, onnx_metadata(config), path)


def export_int8(bundle: str | Path, path: str | Path, radiographs: str | Path) -> Path:
    """Write the classifier as ONNX with 8-bit weights and activations: smaller and faster, but not quite the same.

    Static quantization (QDQ) with a scale per channel for weights, unsigned activations (signed ones are slower than
    float32 on x86), and ranges from up to 128 radiographs. Temperatures and thresholds stay those of the float32
    network, and probabilities move by up to 0.1 (docs/results.md): how far, is measured on up to 128 other radiographs
    of the folder and stated in the file. As ``models/model_int8.onnx`` of the bundle, ``--runtime int8`` runs it.

    Args:
        bundle: folder of a bundle with a trained classifier.
        path: the new file.
        radiographs: folder of images that the classifier was trained on, or of the same kind.

    Raises:
        ValueError: if fewer than 16 files of the folder can be read, or this version prepares images otherwise than
            the one that trained the classifier.
    """
    import_extra("onnxruntime", "export", "an int8 file")
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    network, config, size = trained_classifier(bundle)
    config.check_preprocessing(recipes.settings(size))
    records = list_radiographs(radiographs)
    order = np.random.default_rng(0).permutation(len(records))
    dataset = InferenceDataset([records[n] for n in order], recipes.preprocessing(size), size)
    items = (dataset[n] for n in range(len(dataset)))
    readable = (item["image"].numpy() for item in items if not item["reason"])
    images = list(islice(readable, _N_CALIBRATION))
    if len(images) < _N_CALIBRATION // 8:
        raise ValueError(
            f"{len(images)} of {len(records)} files in {radiographs} can be read; int8 needs {_N_CALIBRATION // 8} "
            f"radiographs or more, better {_N_CALIBRATION}, to measure what values the network has inside"
        )
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (str(Path(folder) / f"{name}.onnx") for name in ("plain", "ready", "small"))
        export_onnx(bundle, plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            small,
            _Batches(np.stack(images)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        held_out = list(islice(readable, _N_CALIBRATION))
        difference = measure_difference(network, config, OnnxFeatures(small), np.stack(held_out or images))
        about = {"calibration_images": len(images), "held_out": bool(held_out), **difference}
        metadata = {**onnx_metadata(config), "precision": "int8", "difference": json.dumps(about)}
        logger.info(f"int8 against float32: {describe_difference(about)}")
        return _write_onnx(onnx.load(small), metadata, path)


def export_torchscript(bundle: str | Path, path: str | Path) -> Path:
    """Write the classifier as TorchScript, with the bundle's configs inside as `monai.bundle ckpt_export` puts them,
    and `onnx_metadata` in the metadata.

    MONAI Deploy looks for the configs in a folder of the archive that has the file's name without its ending, and goes
    on without them where there is none: do not rename the file, export it again.

    Args:
        bundle: folder of a bundle with a trained classifier.
        path: the new file.
    """
    path, name = Path(path), "configs/inference.json"
    network, config, size = trained_classifier(bundle)
    others = [entry.text for entry in verify_bundle(bundle) if not entry.known and entry.file == name]
    if others:
        logger.warning(
            f"the export contains {name} of {bundle}, which runs {len(others)} things that ours does not, the first is "
            f"{others[0]!r}; nothing of it was run here; see monai-simclr verify"
        )
    # without the extra state, which TorchScript cannot hold
    plain = nn.Sequential(OrderedDict(encoder=network.encoder, classifier=network.classifier))
    with torch.no_grad():
        traced = torch.jit.trace(plain, torch.zeros(2, 1, size, size))
    with tempfile.TemporaryDirectory() as folder:  # the file's name becomes that of the archive's folder
        file = Path(folder) / path.name
        with writing(file):
            save_net_with_metadata(
                traced,
                str(file),
                include_config_vals=False,
                append_timestamp=False,
                meta_values={**read_metadata(bundle), **onnx_metadata(config)},
                more_extra_files={"inference.json": (Path(bundle) / name).read_text(encoding="utf-8").encode()},
            )
        with write_atomically(path) as part:
            shutil.copyfile(file, part)
    return path


def export_folder(bundle: str | Path, folder: str | Path) -> Path:
    """Write the folder that MONAI Deploy runs as a bundle: ``models/model.ts``, configs with `onnx_metadata` inside.

    Args:
        bundle: folder of a bundle with a trained classifier.
        folder: the new folder; must not exist, or be empty.

    Raises:
        FileExistsError: if the folder is not empty.
    """
    folder, bundle = Path(folder), Path(bundle)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder for the export")
    metadata = {**read_metadata(bundle), **onnx_metadata(trained_classifier(bundle)[1])}
    # here the bundle's postprocessing comes after the network, and Deploy asks by this word for numbers by name
    metadata["network_data_format"]["outputs"]["pred"] |= {"type": "probabilities", "value_range": [0, 1]}
    for name in ("LICENSE", "docs/README.md", "configs/inference.json"):
        if (bundle / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, folder / name)
    export_torchscript(bundle, folder / "models" / "model.ts")
    write_json(folder / "configs" / "metadata.json", metadata)  # last: without it, the folder is not a bundle
    return folder


def onnx_metadata(config: InferenceConfig) -> dict[str, str]:
    """The metadata of an exported file, as text: findings, preprocessing, operating points, and the checksum."""
    operating = {
        name: {
            "temperature": config.operating[name].temperature,
            "threshold_logit": logit,  # decide with logit >= threshold_logit; probabilities are for people to read
            "threshold_probability": probability,
        }
        for name, logit, probability in zip(
            config.findings, config.thresholds(), config.threshold_probabilities(), strict=True
        )
    }
    return {
        "findings": json.dumps(list(config.findings)),
        "preprocessing": json.dumps(dict(config.preprocessing), sort_keys=True, default=list),
        "operating": json.dumps(operating),
        "model_sha256": config.model_sha256,
        "notice": "research only, not for diagnosis",
    }


class _WithFeatures(nn.Module):
    """A classifier that gives its features, too."""

    def __init__(self, network: FindingClassifier) -> None:
        super().__init__()
        self.encoder, self.classifier = network.encoder, network.classifier

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.encoder(images)
        return self.classifier(features), features


def _write_onnx(model: Any, metadata: Mapping[str, str], path: str | Path) -> Path:
    import onnx

    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())
    return Path(path)


class _Batches:
    """Images for ONNX Runtime's calibration, 16 at a time; it calls `get_next` only."""

    def __init__(self, images: np.ndarray) -> None:
        self.batches = iter(np.array_split(images, max(1, len(images) // 16)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}
