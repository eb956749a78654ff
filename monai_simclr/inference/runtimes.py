"""What computes the encoder's features at inference: PyTorch, or ONNX Runtime from a file that `export` has written.

The files lie beside the weights: ``model.onnx`` (float32) and ``model_int8.onnx``. Each states the checksum of the
weights that it was made of, and is refused beside others. The last layer, the novelty and everything after it are the
same for all runtimes; so is Grad-CAM, which needs gradients and runs the network itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from monai_simclr.inference.config import InferenceConfig
from monai_simclr.networks import FindingClassifier
from monai_simclr.runtime.artefacts import DamagedFileError
from monai_simclr.runtime.extras import import_extra
from monai_simclr.runtime.files import file_sha256

Runtime = Literal["torch", "onnx", "int8"]
"""PyTorch; ONNX Runtime in float32; ONNX Runtime with 8-bit weights and activations, whose logits differ a little."""

_FILES = {"onnx": "model.onnx", "int8": "model_int8.onnx"}


class OnnxFeatures:
    """Features ``(B, D)`` of images ``(B, 1, S, S)`` by ONNX Runtime, on as many threads as torch has.

    Args:
        path: a file that `monai-simclr export` wrote.

    Raises:
        ModuleNotFoundError: if onnxruntime is not installed.
        DamagedFileError: if the file cannot be loaded, or does not give features (an earlier version wrote it).
    """

    def __init__(self, path: str | Path) -> None:
        onnxruntime = import_extra("onnxruntime", "export", "a runtime other than torch")
        self.path, options = Path(path), onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3  # it warns of what it optimizes
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors are of many kinds
            raise DamagedFileError(self.path, "cannot be loaded by ONNX Runtime", "export it again") from error
        if "features" not in [output.name for output in self._session.get_outputs()]:
            raise DamagedFileError(self.path, "has no output `features`", "export it again with this version")
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, images: Tensor) -> Tensor:
        (features,) = self._session.run(["features"], {"image": images.float().cpu().numpy()})
        return torch.from_numpy(features)


def runtime_path(model_path: str | Path, runtime: Runtime) -> Path | None:
    """The file of a runtime beside a classifier's weights; None for PyTorch.

    Raises:
        ValueError: if there is no such runtime.
    """
    if runtime not in get_args(Runtime):
        raise ValueError(f"runtime must be one of {', '.join(get_args(Runtime))}, got {runtime!r}")
    return None if runtime == "torch" else Path(model_path).with_name(_FILES[runtime])


def use_runtime(network: FindingClassifier, model_path: str | Path, runtime: Runtime) -> Mapping[str, Any]:
    """Let the encoder of a loaded classifier compute its features by a runtime, wherever no gradients are needed.

    Hooks on the encoder, its weights and its state dict stay. Used again, it returns at once.

    Args:
        network: on the CPU, unless the runtime is "torch".
        model_path: its weights, with the files of `monai-simclr export` beside them.
        runtime: see `Runtime`.

    Returns:
        The runtime for provenance: its name, the checksum of its file, and for int8 how far it was from float32.

    Raises:
        FileNotFoundError: if the file of the runtime is missing (names the command that makes it).
        ValueError: if it was made of other weights or of another precision, or the network is not on a CPU.
    """
    path = runtime_path(model_path, runtime)
    if path is None:
        vars(network.encoder).pop("forward", None)
        return {"name": runtime}
    make = f"monai-simclr export BUNDLE -o {path}{' --int8 FOLDER' if runtime == 'int8' else ''}"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}, which runtime={runtime} needs; make it: {make}")
    if next(network.parameters()).device.type != "cpu":
        raise ValueError(f"runtime={runtime} runs on the CPU; pass --device cpu, or --runtime torch")
    used = vars(network.encoder).get("forward")
    features = used.features if isinstance(used, _Forward) and used.features.path == path else OnnxFeatures(path)
    metadata = features.metadata
    if metadata.get("model_sha256") != file_sha256(model_path):
        raise ValueError(f"{path} was made of other weights than {model_path}; make it again: {make}")
    if (metadata.get("precision") == "int8") != (runtime == "int8"):
        raise ValueError(f"{path} is not the file for runtime={runtime}; make it again: {make}")
    vars(network.encoder)["forward"] = _Forward(network.encoder, features)
    about = {"name": runtime, "file_sha256": file_sha256(path)}
    return about | ({"difference": json.loads(metadata.get("difference", "{}"))} if runtime == "int8" else {})


def measure_difference(
    network: FindingClassifier, config: InferenceConfig, features: OnnxFeatures, images: np.ndarray
) -> dict[str, Any]:
    """How far a runtime is from PyTorch on some images ``(N, 1, S, S)``: logits, probabilities and decisions."""
    logits = []
    with torch.no_grad():
        for encode in (network.eval().encoder, features):
            parts = torch.from_numpy(images).split(16)
            logits.append(torch.cat([network.classifier(encode(part)) for part in parts]).numpy())
    gaps, (ours, theirs) = np.abs(logits[0] - logits[1]), (np.array(config.decisions(each)) for each in logits)
    probabilities = np.abs(np.subtract(*(config.probabilities(each) for each in logits)))
    return {
        "images": len(images),
        "largest_logit": float(gaps.max()),
        "mean_logit": float(gaps.mean()),
        "largest_probability": float(probabilities.max()),
        "decisions": int(ours.size),
        "other_decisions": int((ours != theirs).sum()),
    }


def describe_difference(difference: Mapping[str, Any]) -> str:
    """What `measure_difference` found, in a sentence.

    Example:
        >>> describe_difference({})
        'how far it is from float32 was not measured; export it again'
    """
    if not difference:
        return "how far it is from float32 was not measured; export it again"
    which = "" if difference["held_out"] else " that it was calibrated on"
    return (
        f"on {difference['images']} radiographs{which} logits differ by {difference['mean_logit']:.2g} in the mean and "
        f"{difference['largest_logit']:.2g} at most, probabilities by {difference['largest_probability']:.2g} at most, "
        f"and {difference['other_decisions']} of {difference['decisions']} decisions"
    )


class _Forward:
    """What a module calls instead of its class's `forward`."""

    def __init__(self, encoder: torch.nn.Module, features: OnnxFeatures) -> None:
        self.encoder, self.features = encoder, features

    def __call__(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return type(self.encoder).forward(self.encoder, images)
        return self.features(images)
