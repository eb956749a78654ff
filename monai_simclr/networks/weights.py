"""Encoders and classifiers as files: written whole or not at all, read without running code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from monai_simclr.files import write_atomically
from monai_simclr.networks.encoders import Norm, encoder
from monai_simclr.networks.heads import FindingClassifier

__all__ = ["encoder_header", "load_classifier", "load_encoder", "patients_seen", "save_classifier", "save_encoder"]


def save_encoder(path: str | Path, network: nn.Module, header: Mapping[str, str]) -> Path:
    """Write an encoder's weights as safetensors, whole or not at all; equal weights and headers make equal bytes.

    Args:
        path: the file.
        network: what `encoder` made.
        header: text about it that travels with the weights (name, width, size, ...); "name" and "width" are needed
            for `load_encoder` to rebuild the network, and "norm" where it is not "batch".

    Returns:
        `path`.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    content = _in_order(save(weights, metadata={key: str(value) for key, value in header.items()}))
    with write_atomically(path) as part:
        part.write_bytes(content)
    return Path(path)


def _in_order(content: bytes) -> bytes:
    """What safetensors made, its metadata sorted: it puts them in an order that differs from one time to the next."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def encoder_header(path: str | Path) -> dict[str, str]:
    """What `save_encoder` wrote about the weights in a file.

    Raises:
        FileNotFoundError: if there is no file (says what makes one).
        ValueError: if the file is not one of ours.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no encoder at {path}; run configs/pretrain.json first, it leaves one there")
    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata() or {})
    if not {"name", "width"} <= set(header):
        raise ValueError(
            f"{path} is not an encoder of monai-simclr: its header has {sorted(header)}, not name and width"
        )
    return header


def load_encoder(
    path: str | Path, name: str | None = None, width: float | None = None, norm: Norm | None = None
) -> nn.Module:
    """The pretrained encoder in a file that `save_encoder` wrote, in evaluation mode.

    Args:
        path: the safetensors file.
        name: what the encoder must be, when that matters; otherwise what the file says.
        width: likewise.
        norm: likewise.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if the file holds another architecture than asked for.
    """
    header = encoder_header(path)
    stored = (header["name"], float(header["width"]), cast(Norm, header.get("norm", "batch")))
    wanted = (name or stored[0], stored[1] if width is None else float(width), norm or stored[2])
    if stored != wanted:
        raise ValueError(
            f"{path} holds {_named(*stored)}, but metadata.json asks for {_named(*wanted)}; "
            "pretrain again, or set encoder in metadata.json to what the file holds"
        )
    network = encoder(*stored)
    with safe_open(path, framework="pt") as file:
        network.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    return network.eval()


def load_classifier(
    network: FindingClassifier, path: str | Path, device: str | torch.device = "cpu"
) -> FindingClassifier:
    """Put the weights of a trained classifier into a network, in evaluation mode.

    Args:
        network: a `FindingClassifier` of the same encoder and findings.
        path: state dict that configs/train.json wrote.
        device: where the network shall be.

    Raises:
        FileNotFoundError: if there is no file: predictions would come from random weights.
        ValueError: if the weights belong to another encoder or to other findings.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}, so predictions would come from random weights; run configs/train.json first"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    extra = weights.get("_extra_state")
    if not isinstance(extra, Tensor):
        raise ValueError(f"{path} is not a classifier of monai-simclr: it does not say its findings")
    network.set_extra_state(extra)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{path} was trained with another encoder than metadata.json says; use the bundle that trained it, and the "
            "--norm that it was trained with"
        ) from error
    return network.to(device).eval()


def save_classifier(path: str | Path, network: FindingClassifier) -> Path:
    """Write a classifier's bare state dict, its findings inside; it loads with ``weights_only=True``."""
    with write_atomically(path) as part, open(part, "wb") as file:  # of a path, torch keeps the name in the file
        torch.save({key: _on_cpu(value) for key, value in network.state_dict().items()}, file)
    return Path(path)


def patients_seen(header: Mapping[str, str]) -> frozenset[str]:
    """Keyed hashes (key: the header's `patients_key`) of the patients that a pretrained encoder has seen."""
    return frozenset(json.loads(header.get("patients_seen", "[]")))


def _named(name: str, width: float, norm: str) -> str:
    return f"{name} of width {width} with {norm} normalization"


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value
