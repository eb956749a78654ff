"""Encoders and classifiers as files: written whole or not at all, checked, and read without running code."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from monai_simclr.bundles import CHEST_XRAY_SIMCLR
from monai_simclr.networks.encoders import Norm, encoder
from monai_simclr.networks.heads import FindingClassifier
from monai_simclr.runtime.artefacts import (
    DamagedFileError,
    check_zip,
    read_tensor_file,
    reading,
    seal_zip,
    warn_no_checksum,
    write_tensor_file,
)
from monai_simclr.runtime.files import write_bytes

PRETRAINED = MappingProxyType({"chest_xray_resnet18": CHEST_XRAY_SIMCLR / "models" / "encoder.safetensors"})
"""Pretrained encoders that are installed with the package, by the name that may stand in place of a file."""

_ENCODER = "an encoder of monai-simclr"
_RESTORE_ENCODER = "restore it from a copy, or pretrain again"
_CLASSIFIER = "a classifier of monai-simclr"
_RESTORE_CLASSIFIER = "restore it and classifier.json from a copy, or train again"
_WIDEST = 16.0


def save_encoder(
    path: str | Path, network: nn.Module, header: Mapping[str, str], dtype: torch.dtype = torch.float32
) -> Path:
    """Write an encoder's weights as safetensors, whole or not at all; equal weights and headers make equal bytes.

    Args:
        path: the file.
        network: a network that `encoder` made.
        header: text about it that is stored with the weights and a checksum (name, width, size, ...); `load_encoder`
            needs "name" and "width", and "norm" where it is not "batch".
        dtype: of the weights of layers in the file; ``torch.float16`` halves it. Norms and their statistics, whose
            range is wider, stay as they are.

    Returns:
        `path`.
    """
    kept = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    weights = {name: value.to(dtype) if value.ndim > 1 else value for name, value in kept.items()}
    about = {key: str(value) for key, value in header.items()}
    write_tensor_file(path, safetensors.torch.save(weights, metadata=about))
    return Path(path)


def encoder_file(source: str | Path) -> Path:
    """The file of an encoder that is given as a file or by a name in `PRETRAINED`."""
    return PRETRAINED.get(str(source), Path(source))


def encoder_header(path: str | Path) -> dict[str, str]:
    """Read the header that `save_encoder` wrote, of a file or of a name in `PRETRAINED`.

    Raises:
        FileNotFoundError: if there is no file (says what makes one).
        ValueError: if the file is not one of ours, or was altered.
    """
    return _read_encoder(path)[0]


def _read_encoder(path: str | Path) -> tuple[dict[str, str], bytes]:
    """The header of an encoder's file, checked, and the file's bytes."""
    name, path = str(path), encoder_file(path)
    if not path.is_file():
        if name in PRETRAINED:
            raise FileNotFoundError(
                f"the weights of {name} are not installed, there is no {path}; install monai-simclr again, from a "
                "wheel or a checkout with them"
            )
        raise FileNotFoundError(
            f"no encoder at {path}; run configs/pretrain.json first, it leaves one there, or name one that is "
            f"installed: {', '.join(PRETRAINED)}"
        )
    header, content = read_tensor_file(path, _ENCODER, _RESTORE_ENCODER)
    if not {"name", "width"} <= set(header):
        raise DamagedFileError(
            path, f"is not {_ENCODER}: its header has {sorted(header)}, not name and width", _RESTORE_ENCODER
        )
    with reading(path, _ENCODER, _RESTORE_ENCODER):
        if not 0 < float(header["width"]) <= _WIDEST:
            raise ValueError(f"its width is {header['width']}, not above 0 and at most {_WIDEST:g}")
        patients_records(header)
    return header, content


def load_encoder(
    path: str | Path, name: str | None = None, width: float | None = None, norm: Norm | None = None
) -> nn.Module:
    """Load a pretrained encoder, in evaluation mode: of a file that `save_encoder` wrote, or an installed one by name.

    Args:
        path: the safetensors file, or a name in `PRETRAINED`; nothing is downloaded.
        name: what the encoder must be; None accepts what the file holds.
        width: likewise.
        norm: likewise.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if the file holds another architecture than asked for, was altered, or holds weights that are not
            finite.

    Example:
        >>> load_encoder("chest_xray_resnet18")(torch.rand(2, 1, 64, 64)).shape[0]
        2
    """
    header, content = _read_encoder(path)
    stored = (header["name"], float(header["width"]), cast(Norm, header.get("norm", "batch")))
    wanted = (name or stored[0], stored[1] if width is None else float(width), norm or stored[2])
    if stored != wanted:
        held, asked = (f"{kind} of width {width} with {norm} normalization" for kind, width, norm in (stored, wanted))
        raise ValueError(
            f"{path} holds {held}, but metadata.json asks for {asked}; pretrain again, or set encoder in metadata.json "
            "to what the file holds"
        )
    with reading(path, _ENCODER, _RESTORE_ENCODER):
        weights = safetensors.torch.load(content)
        _check_values(weights)
        network = encoder(*stored)
        network.load_state_dict(weights)
    return network.eval()


def load_classifier(
    network: FindingClassifier, path: str | Path, device: str | torch.device = "cpu"
) -> FindingClassifier:
    """Load the weights of a trained classifier into a network, in evaluation mode.

    Args:
        network: a `FindingClassifier` of the same encoder and findings.
        path: state dict that configs/train.json wrote.
        device: where the network is moved.

    Raises:
        FileNotFoundError: if there is no file: predictions would come from random weights.
        ValueError: if the weights belong to another encoder or to other findings, were altered, or are not finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}, so predictions would come from random weights; run configs/train.json first"
        )
    weights = read_weights(path, _CLASSIFIER, _RESTORE_CLASSIFIER)
    extra = weights.get("_extra_state")
    if extra is None:
        raise DamagedFileError(path, f"is not {_CLASSIFIER}: it does not name its findings", _RESTORE_CLASSIFIER)
    with reading(path, _CLASSIFIER, _RESTORE_CLASSIFIER):
        if not isinstance(json.loads(bytes(extra.tolist())), list):
            raise ValueError("its findings are not a list")
    try:
        network.load_state_dict(weights)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except RuntimeError as error:
        raise ValueError(
            f"{path} was trained with another encoder than metadata.json says; use the bundle that trained it, and the "
            "--norm that it was trained with"
        ) from error
    return network.to(device).eval()


def save_classifier(path: str | Path, network: FindingClassifier) -> Path:
    """Write a classifier's bare state dict, its findings included; it loads with ``weights_only=True``.

    The file, a zip archive, has one member more than torch reads: a checksum.
    """
    file = io.BytesIO()  # torch's message about a full disk is hard to understand; that of write_bytes is not
    torch.save({name: value.detach().cpu() for name, value in network.state_dict().items()}, file)
    write_bytes(path, seal_zip(file.getvalue()))
    return Path(path)


class SeenPatients(NamedTuple):
    """Whom a training has seen: hashes of their names under `key`; `unnamed` of them are images without a patient."""

    key: str
    hashes: frozenset[str]
    unnamed: int = 0

    @classmethod
    def from_json(cls, record: Any) -> SeenPatients:
        """What `as_json` gave; `ValueError` if it is something else."""
        seen = record.get("seen") if isinstance(record, dict) else None
        if not isinstance(seen, list) or not all(isinstance(text, str) for text in [*seen, record.get("key")]):
            raise ValueError("patients_seen is not a list of hashes")
        unnamed = record.get("unnamed", 0)
        if not isinstance(unnamed, int) or not 0 <= unnamed <= len(seen):
            raise ValueError(f"unnamed_images is {unnamed!r}, not a number of the {len(seen)} hashes")
        return cls(record["key"], frozenset(seen), unnamed)

    def as_json(self) -> dict[str, Any]:
        """Plain types, equal for equal records."""
        unnamed = {"unnamed": self.unnamed} if self.unnamed else {}
        return {"key": self.key, "seen": sorted(self.hashes), **unnamed}


def patients_records(header: Mapping[str, str]) -> list[SeenPatients]:
    """Whom this pretraining has seen, and each that it continues.

    Raises:
        ValueError: if the header holds something else.

    Example:
        >>> patients_records({"patients_key": "k", "patients_seen": '["a9"]'})
        [SeenPatients(key='k', hashes=frozenset({'a9'}), unnamed=0)]
    """
    seen, unnamed = (json.loads(header.get(*part)) for part in (("patients_seen", "[]"), ("unnamed_images", "0")))
    own = {"key": header.get("patients_key", ""), "seen": seen, "unnamed": unnamed}
    return [SeenPatients.from_json(record) for record in (own, *json.loads(header.get("patients_before", "[]")))]


def read_weights(path: str | Path, what: str, remedy: str) -> Mapping[str, Tensor]:
    """Read a state dict that `torch.save` wrote: names and finite tensors; no code in it is run.

    Args:
        path: the file.
        what: what it should be, for the message, as in "an encoder".
        remedy: what to do when it is not.

    Raises:
        DamagedFileError: if it is another kind of file, or holds something else or values that no network has.
    """
    with reading(path, what, remedy):
        content = Path(path).read_bytes()
        if not zipfile.is_zipfile(io.BytesIO(content)) or not check_zip(content):
            warn_no_checksum(path)
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise ValueError(f"it holds a {type(weights).__name__} of other things than tensors")
        if not weights or not all(isinstance(name, str) for name in weights):
            raise ValueError("its tensors have no names")
        _check_values(weights)
        return weights


def _check_values(weights: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` if a weight is not finite, or a variance is negative."""
    for name, value in weights.items():
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} has values that are not finite")
        if name.endswith("running_var") and bool((value < 0).any()):
            raise ValueError(f"{name} has negative values, and it is a variance")
