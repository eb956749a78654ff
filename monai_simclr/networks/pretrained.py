"""Start an encoder from what others have trained: torchvision (ImageNet) or torchxrayvision (radiographs)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from monai_simclr.artefacts import DamagedFileError, reading

__all__ = ["start_from"]

_REMEDY = "save model.state_dict(), by torch.save or as safetensors"

# Wrappers that put a name before every key: DistributedDataParallel, torchxrayvision's ResNet, lightly, and others.
_PREFIXES = ("module.", "model.", "backbone.", "encoder.")
# What others hold beside an encoder: classification layers, and torchxrayvision's operating points.
_NOT_ENCODER = re.compile(r"(fc|classifier|head|class_layers|op_threshs)(\.|$)")
# torchvision's DenseNet keeps the layers of a dense layer beside each other, and its oldest files write "norm.1";
# MONAI keeps them one level down.
_DENSE_LAYER = re.compile(r"(denselayer\d+)\.(norm|conv)\.?([12])\.")


def start_from(network: nn.Module, weights: Mapping[str, Tensor] | str | Path) -> nn.Module:
    """Put weights of torchvision's or torchxrayvision's form into an encoder, in place.

    A stem for three channels is summed to one: on a gray image, repeated three times, it answers the same. Means and
    deviations of ImageNet's channels are not folded in; the first batch normalization takes up the difference while
    training. The classification layer is left out.

    Args:
        network: a ResNet or DenseNet of `encoder`, of full width, or any module with torchvision's names.
        weights: a state dict, or the path of one: ``.safetensors``, or what `torch.save` wrote (read with
            ``weights_only=True``). torchxrayvision's files hold a whole pickled model: pass ``model.state_dict()``.

    Returns:
        `network`.

    Raises:
        ValueError: if weights of the encoder are missing, or are for another architecture (names the first).

    Example:
        >>> from monai_simclr.networks import encoder
        >>> gray = encoder("resnet18", width=0.125)
        >>> rgb = {**gray.state_dict(), "conv1.weight": torch.ones(8, 3, 7, 7), "fc.bias": torch.zeros(1000)}
        >>> start_from(gray, rgb).conv1.weight[0, 0, 0, 0].item()
        3.0
    """
    given = _read(weights) if isinstance(weights, str | Path) else weights
    found = {_our_name(name): value for name, value in given.items() if isinstance(value, Tensor)}
    found = {name: value for name, value in found.items() if not _NOT_ENCODER.match(name)}
    wanted = network.state_dict()
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    _check_names(network, set(wanted), set(found), optional)
    fitting = {name: _fitted(name, found[name], wanted[name]) for name in wanted if name in found}
    network.load_state_dict({**wanted, **fitting})
    return network


def _read(path: str | Path) -> Mapping[str, Tensor]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}; name the file of a state dict")
    with reading(path, "a state dict", _REMEDY):
        if Path(path).suffix == ".safetensors":
            return safetensors.torch.load(Path(path).read_bytes())
        held = torch.load(path, map_location="cpu", weights_only=True)
        inner = held.get("state_dict", held) if isinstance(held, Mapping) else held
        if not isinstance(inner, Mapping):
            raise DamagedFileError(path, f"holds a {type(held).__name__}, not a state dict", _REMEDY)
        return inner


def _our_name(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return _DENSE_LAYER.sub(r"\1.layers.\2\3.", name)


def _check_names(network: nn.Module, wanted: set[str], found: set[str], optional: set[str]) -> None:
    missing, strange = sorted(wanted - found - optional), sorted(found - wanted)
    if missing or strange:
        parts = [f"{len(missing)} weights are missing, the first is {missing[0]!r}"] if missing else []
        parts += [f"{len(strange)} have no place, the first is {strange[0]!r}"] if strange else []
        raise ValueError(
            f"the weights do not fit {type(network).__name__}: {'; '.join(parts)}; start the same architecture, with "
            "norm='batch', that they were trained with"
        )


def _fitted(name: str, value: Tensor, wanted: Tensor) -> Tensor:
    """The value, its input channels summed where there are three and one is wanted."""
    if value.ndim == 4 and value.shape[1] == 3 and wanted.shape[1] == 1:
        value = value.sum(1, keepdim=True)
    if value.shape != wanted.shape:
        raise ValueError(
            f"{name} has the shape {tuple(value.shape)}, the encoder's is {tuple(wanted.shape)}; start an encoder of "
            "the same name and of width 1"
        )
    return value
