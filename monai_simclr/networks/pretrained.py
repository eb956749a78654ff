"""Start an encoder from what others have trained, whatever they saved it as."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from monai_simclr.runtime.artefacts import DamagedFileError, reading

_REMEDY = "save model.state_dict(), by torch.save or as safetensors"

# What others hold in or beside an encoder: classification layers, projection heads, torchxrayvision's operating points.
_NOT_ENCODER = re.compile(r"(fc|classifier|head|class_layers|op_threshs|projector|projection_head|prototypes)(\.|$)")
# Names of an encoder that is not the one that was trained by gradients: MoCo's keys, targets of BYOL, DINO's teacher.
_AVERAGED = re.compile(r"(^|[._])(encoder_k|k|key|momentum\w*|teacher\w*|target\w*|ema)(?=[._])")
# Wrappers that put a name into the middle of others: torch.compile, FSDP, activation checkpointing.
_INSIDE = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
# torchvision's DenseNet keeps the layers of a dense layer beside each other, and its oldest files write "norm.1";
# MONAI keeps them one level down.
_DENSE_LAYER = re.compile(r"(denselayer\d+)\.(norm|conv)\.?([12])\.")
# nn.Sequential(*list(resnet.children())[:-1]), as lightly's examples and many others cut a ResNet, numbers its parts.
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_NUMBERED = re.compile(
    r"(?:^|(?<=\.))(?<!downsample\.)([014567])(?=\.(?:\d+\.(?:conv|bn|downsample)|weight|bias|running|num_batches))"
)


def load_pretrained(network: nn.Module, weights: Mapping[str, object] | str | Path) -> nn.Module:
    """Put the weights that others have trained into an encoder, in place.

    The file may be of torchvision, torchxrayvision or timm, or a checkpoint of a self-supervised method: lightly,
    solo-learn, MoCo, SimSiam, BYOL, DINO, VISSL and others wrap the encoder in names and mappings of their own, and the
    encoder is looked for in all of them. Projection heads, classification layers and optimizers are left out; an
    average of the encoder (MoCo's keys, DINO's teacher) is taken where there is nothing else.

    A stem for three channels is summed to one: on a gray image, repeated three times, it answers the same. Means and
    deviations of ImageNet's channels are not folded in; the first batch normalization takes up the difference while
    training.

    Args:
        network: a ResNet or DenseNet of `encoder`, of full width, or any module with torchvision's names.
        weights: a state dict or a checkpoint that holds one, or the path of it: ``.safetensors``, or what `torch.save`
            wrote (read with ``weights_only=True``). torchxrayvision's files hold a whole pickled model: pass
            ``model.state_dict()``.

    Returns:
        `network`.

    Raises:
        ValueError: if weights of the encoder are missing, or are for another architecture (names the first).

    Example:
        >>> from monai_simclr.networks import encoder
        >>> gray = encoder("resnet18", width=0.125)
        >>> rgb = {**gray.state_dict(), "conv1.weight": torch.ones(8, 3, 7, 7), "fc.bias": torch.zeros(1000)}
        >>> load_pretrained(gray, rgb).conv1.weight[0, 0, 0, 0].item()
        3.0
    """
    given = _read(weights) if isinstance(weights, str | Path) else weights
    wanted = network.state_dict()
    found = _encoder_weights(given, set(wanted))
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    _check_names(network, set(wanted), set(found), optional)
    fitting = {name: _fitted(name, found[name], wanted[name]) for name in wanted if name in found}
    network.load_state_dict({**wanted, **fitting})
    return network


def _read(path: str | Path) -> Mapping[str, object]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}; name the file of a state dict")
    with reading(path, "a state dict", _REMEDY):
        if Path(path).suffix == ".safetensors":
            return safetensors.torch.load(Path(path).read_bytes())
        try:
            held = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle's own, which nobody may import here
            if "Unsupported" not in str(error):
                raise
            problem = "holds more than weights, and reading the rest would run code from the file"
            remedy = "where you trust it, load it yourself and pass model.state_dict()"
            raise DamagedFileError(path, problem, remedy) from error
        if not isinstance(held, Mapping):
            raise DamagedFileError(path, f"holds a {type(held).__name__}, not a state dict", _REMEDY)
        return held


def _encoder_weights(held: Mapping[str, object], wanted: set[str]) -> dict[str, Tensor]:
    """The weights below the name that holds most of an encoder, by the encoder's own names.

    Others wrap encoders in names (``model.backbone.``, ``encoder_q.``, ``trunk._feature_blocks.``) and in mappings
    (``state_dict``, ``model``, ``classy_state_dict``); all of them are searched for the one below which most of the
    wanted weights lie. An average of the trained encoder is taken only where there is nothing else.
    """
    tensors = {_our_name(name): value for name, value in _tensors(held)}
    forms = [tensors, {_NUMBERED.sub(lambda part: _SEQUENTIAL[part[1]], name): v for name, v in tensors.items()}]
    anchors = sorted(wanted)
    best: tuple[tuple[int, bool, int], dict[str, Tensor]] = ((-1, False, 0), tensors)
    for form in forms:
        prefixes = {name[: -len(anchor)] for name in form for anchor in anchors if _ends_with(name, anchor)}
        for prefix in sorted(prefixes):
            below = {name[len(prefix) :]: value for name, value in form.items() if name.startswith(prefix)}
            rank = (len(wanted & set(below)), not _AVERAGED.search(prefix), -len(prefix))
            if rank > best[0]:
                best = rank, below
    return {name: value for name, value in best[1].items() if not _NOT_ENCODER.match(name)}


def _our_name(name: str) -> str:
    return _DENSE_LAYER.sub(r"\1.layers.\2\3.", _INSIDE.sub("", name))


def _ends_with(name: str, part: str) -> bool:
    """Whether a dotted name ends with the whole of another one."""
    return name == part or name.endswith("." + part)


def _tensors(held: Mapping[str, object], path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested mappings, by their dotted path."""
    for name, value in held.items():
        if isinstance(value, Tensor):
            yield f"{path}{name}", value
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{path}{name}.")


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
