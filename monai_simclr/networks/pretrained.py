"""Load the weights that others have trained into an encoder, in whatever form they saved them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from monai_simclr.networks.encoders import ENCODERS, encoder
from monai_simclr.networks.timm_encoders import TimmEncoder, efficientnet_names
from monai_simclr.networks.weights import encoder_file
from monai_simclr.runtime.artefacts import DamagedFileError, is_torch_file, reading

_REMEDY = "save model.state_dict(), by torch.save or as safetensors"

# Parts of a checkpoint that are not the encoder: classification layers, projection heads, torchxrayvision's thresholds.
_NOT_ENCODER = re.compile(r"(fc|classifier|head|class_layers|op_threshs|projector|projection_head|prototypes)(\.|$)")
# Names of an averaged encoder, which was not trained by gradients: MoCo's keys, targets of BYOL, DINO's teacher.
_AVERAGED = re.compile(r"(^|[._])(encoder_k|k|key|momentum\w*|teacher\w*|target\w*|ema)(?=[._])")
# Wrappers that insert a name into the middle of others: torch.compile, FSDP, activation checkpointing.
_INSIDE = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
# torchvision's DenseNet keeps the layers of a dense layer next to each other, and its oldest files write "norm.1";
# MONAI keeps them one level down.
_DENSE_LAYER = re.compile(r"(denselayer\d+)\.(norm|conv)\.?([12])\.")
# nn.Sequential(*list(resnet.children())[:-1]), as lightly's examples and many others cut a ResNet, numbers its parts.
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_NUMBERED = re.compile(
    r"(?:^|(?<=\.))(?<!downsample\.)([014567])(?=\.(?:\d+\.(?:conv|bn|downsample)|weight|bias|running|num_batches))"
)
# transformers' ResNet (modeling_resnet.py) counts its stages and the convolutions of a block from 0.
_TRANSFORMERS = re.compile(
    r"(?:resnet\.)?(?:embedder\.embedder|encoder\.stages\.(\d)\.layers\.(\d+)\.(?:layer\.(\d)|shortcut))"
    r"\.(convolution|normalization)\."
)
# What projects store beside the weights, and no code is run for: DINO's, MAE's and timm's arguments, best scores.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64")),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def load_pretrained(network: nn.Module, weights: Mapping[str, object] | str | Path) -> nn.Module:
    """Load the weights that others have trained into an encoder, in place.

    The file may be of torchvision, torchxrayvision or timm, or a checkpoint of a self-supervised method: lightly,
    solo-learn, MoCo, SimSiam, BYOL, DINO, VISSL and others wrap the encoder in names and mappings of their own, and all
    of them are searched for it. Projection heads, classification layers and optimizers are left out; an average of the
    encoder (MoCo's keys, DINO's teacher) is used only where there is nothing else.

    A stem for three channels is summed to one: on a gray image, repeated three times, it gives the same output. Means
    and deviations of ImageNet's channels are not folded in, which no stem with padding can do exactly: a `TimmEncoder`
    standardizes its images instead; elsewhere the first batch normalization adapts to the difference while training.

    Args:
        network: a ResNet or DenseNet of `encoder`, of full width, or any module with torchvision's names.
        weights: a state dict or a checkpoint that holds one, a name in `PRETRAINED`, or the path of a file:
            safetensors, or what `torch.save` wrote (read with ``weights_only=True``; of other objects only
            `argparse.Namespace` and NumPy's numbers are accepted). torchxrayvision's files hold a whole pickled model:
            pass ``model.state_dict()``.

    Returns:
        `network`.

    Raises:
        ValueError: if weights of the encoder are missing, or are for another architecture; it names what was found and
            expected, and the encoder that they are for.

    Example:
        >>> from monai_simclr.networks import encoder
        >>> gray = encoder("resnet18", width=0.125)
        >>> rgb = {**gray.state_dict(), "conv1.weight": torch.ones(8, 3, 7, 7), "fc.bias": torch.zeros(1000)}
        >>> load_pretrained(gray, rgb).conv1.weight[0, 0, 0, 0].item()
        3.0
    """
    body = network.net if isinstance(network, TimmEncoder) else network
    own = body.state_dict()
    checkpoint = _read(encoder_file(weights)) if isinstance(weights, str | Path) else weights
    place, theirs = _encoder_weights(checkpoint, set(own))
    stem = getattr(body, "conv_stem", None)
    if any("_conv_stem." in name for name, _ in _tensors(checkpoint)) and type(stem) is nn.Conv2d:
        raise ValueError(
            "weights with the name '_conv_stem' need TensorFlow's padding and epsilon: choose timm/tf_efficientnet_..."
        )
    missing = sorted(name for name in set(own) - set(theirs) if not name.endswith("num_batches_tracked"))
    unknown = sorted(set(theirs) - set(own))
    if missing or unknown:
        parts = [f"{len(missing)} weights are missing, the first is {missing[0]!r}"] if missing else []
        parts += [f"{len(unknown)} have no place, the first is {unknown[0]!r}"] if unknown else []
        raise ValueError(
            f"{len(theirs)} weights{f' below {place!r}' if place else ''} do not fit the {len(own)} of "
            f"{type(body).__name__}: {'; '.join(parts)}; {_advice(checkpoint)}"
        )
    for name, value in theirs.items():
        if value.ndim == 4 and value.shape[1] == 3 and own[name].shape[1] == 1:
            theirs[name] = value = value.sum(1, keepdim=True)
        if value.shape != own[name].shape:
            raise ValueError(
                f"{name} has the shape {tuple(value.shape)}, the encoder's is {tuple(own[name].shape)}; "
                f"{_advice(checkpoint)}"
            )
    body.load_state_dict({**own, **theirs})
    return network


def _advice(checkpoint: Mapping[str, object]) -> str:
    """Which encoder a checkpoint is for, or nearest to."""
    best = (0.0, "", 1.0)
    for name in ENCODERS:
        with torch.device("meta"):
            shapes = {key: value.shape for key, value in encoder(name).state_dict().items()}
        found = _encoder_weights(checkpoint, set(shapes))[1]
        both = set(found) & set(shapes)
        widths = [found[key].shape[0] / shapes[key][0] for key in both if found[key].ndim]
        best = max(best, (len(both) / len(set(found) | set(shapes)), name, median(widths or [1.0])))
    share, name, width = best
    if share < 0.5:
        names = [key for key, _ in _tensors(checkpoint)]
        held = f"{len(names)} tensors, the first is {names[0]!r}" if names else "no tensors"
        return f"the file holds {held}, which no encoder here has; see networks.ENCODERS"
    fit = "they are those of" if share == 1 else f"{share:.0%} of the names are those of"
    return f"{fit} encoder({name!r}{'' if width == 1 else f', width={width:g}'}), with norm='batch'"


def _read(path: Path) -> Mapping[str, object]:
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; name the file of a state dict")
    with reading(path, "a state dict", _REMEDY):
        if not is_torch_file(path):
            return safetensors.torch.load(path.read_bytes())
        try:
            with torch.serialization.safe_globals(_HARMLESS):
                content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle's own, which nobody may import here
            if "Unsupported" not in str(error):
                raise
            problem = "holds more than weights, and reading the rest would run code from the file"
            remedy = "where you trust it, load it yourself and pass model.state_dict()"
            raise DamagedFileError(path, problem, remedy) from error
        if not isinstance(content, Mapping):
            raise DamagedFileError(path, f"holds a {type(content).__name__}, not a state dict", _REMEDY)
        return content


def _encoder_weights(checkpoint: Mapping[str, object], wanted: set[str]) -> tuple[str, dict[str, Tensor]]:
    """The weights below the name that holds most of an encoder, by the encoder's own names, and that name.

    Others wrap encoders in names (``model.backbone.``, ``encoder_q.``, ``trunk._feature_blocks.``) and in mappings
    (``state_dict``, ``model``, ``classy_state_dict``). Of all prefixes, the one with most of the wanted weights below
    it is used; of equal ones, one that is not an average, then the shortest, then the first.
    """
    tensors = {
        _DENSE_LAYER.sub(r"\1.layers.\2\3.", _INSIDE.sub("", name)): value for name, value in _tensors(checkpoint)
    }
    numbered = {_NUMBERED.sub(lambda part: _SEQUENTIAL[part[1]], name): value for name, value in tensors.items()}
    transformers = {_TRANSFORMERS.sub(_torchvision_name, name): value for name, value in tensors.items()}
    best: tuple[tuple[int, bool, int], str, dict[str, Tensor]] = ((-1, False, 0), "", tensors)
    for form in (tensors, numbered, transformers, efficientnet_names(tensors, wanted)):
        prefixes = {name[: -len(end)] for name in form for end in wanted if f".{name}".endswith(f".{end}")}
        for prefix in sorted(prefixes):
            below = {name[len(prefix) :]: value for name, value in form.items() if name.startswith(prefix)}
            rank = (len(wanted & set(below)), not _AVERAGED.search(prefix), -len(prefix))
            if rank > best[0]:
                best = rank, prefix, below
    return best[1], {name: value for name, value in best[2].items() if name in wanted or not _NOT_ENCODER.match(name)}


def _torchvision_name(part: re.Match[str]) -> str:
    stage, block, number, kind = part.groups()
    at = "" if stage is None else f"layer{int(stage) + 1}.{block}."
    if stage is not None and number is None:
        return f"{at}downsample.{'0' if kind == 'convolution' else '1'}."
    return f"{at}{'conv' if kind == 'convolution' else 'bn'}{int(number or 0) + 1}."


def _tensors(checkpoint: Mapping[str, object], path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested mappings, by their dotted path."""
    for name, value in checkpoint.items():
        if isinstance(value, Tensor):
            yield f"{path}{name}", value
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{path}{name}.")
