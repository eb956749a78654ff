"""Encoders by name: images to vectors. The architecture is defined here and nowhere else."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from monai.networks.nets import DenseNet, ResNet
from torch import Tensor, nn

from monai_simclr.networks.timm_encoders import PREFIX, TimmEncoder

Norm = Literal["batch", "group"]
"""How encoders normalize: over the batch, or within each image, with which cached gradients are exact."""

_RESNETS: dict[str, tuple[str, tuple[int, ...]]] = {
    "resnet10": ("basic", (1, 1, 1, 1)),
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}
ENCODERS = (*_RESNETS, "densenet121")
"""Names that `encoder` knows."""


class _DenseNetFeatures(nn.Module):
    """DenseNet-121 without its classification layer: images to pooled features."""

    def __init__(self, width: float) -> None:
        super().__init__()
        net = DenseNet(2, 1, 1, init_features=_scaled(64, width), growth_rate=_scaled(32, width))
        self.features = net.features
        self.out_features = int(net.class_layers.out.in_features)  # type: ignore[union-attr,arg-type]

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.features(images)).mean(dim=(2, 3))


def encoder(name: str = "resnet18", width: float = 1.0, norm: Norm = "batch") -> nn.Module:
    """Build a network that maps images ``(B, 1, H, W)`` in [0, 1] to features ``(B, D)``; D is its `out_features`.

    Args:
        name: one of `ENCODERS`; ResNets are He et al. (CVPR 2016) with a stride-2 stem (MONAI's default stem has
            stride 1, which costs four times the work), DenseNet-121 is Huang et al. (CVPR 2017). Or ``timm/`` and the
            name of a convolutional network of timm (extra ``timm``, see `TimmEncoder`), as it is: width 1, its norm.
        width: factor on the number of channels; 0.25 makes a network for experiments on a CPU.
        norm: ``"batch"``, or ``"group"`` (Wu and He, ECCV 2018, 8 groups of channels).

    Raises:
        ModuleNotFoundError: if a network of timm is asked for, and timm is not installed.
        ValueError: if there is no encoder or norm of that name, or `width` is not greater than 0.

    Example:
        >>> net = encoder("resnet18", width=0.25)
        >>> net(torch.rand(2, 1, 64, 64)).shape, net.out_features
        (torch.Size([2, 128]), 128)
    """
    if name not in ENCODERS and not name.startswith(PREFIX):
        raise ValueError(
            f"there is no encoder {name!r}; choose one of {list(ENCODERS)}, {PREFIX}NAME, or "
            "pass a torch module yourself"
        )
    if width <= 0:
        raise ValueError(f"width must be greater than 0, got {width}")
    if norm not in get_args(Norm):
        raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {norm!r}")
    net: nn.Module
    if name.startswith(PREFIX):
        if width != 1 or norm != "batch":
            raise ValueError(
                f"{name} has a width and a norm of its own; set width 1 and norm 'batch', not {width}, {norm}"
            )
        return TimmEncoder(name.removeprefix(PREFIX))
    if name == "densenet121":
        net = _DenseNetFeatures(width)
    else:
        block, layers = _RESNETS[name]
        planes = [_scaled(channels, width) for channels in (64, 128, 256, 512)]
        options = {"conv1_t_stride": 2, "feed_forward": False, "bias_downsample": False}
        net = ResNet(block, list(layers), planes, spatial_dims=2, n_input_channels=1, **options)  # type: ignore[arg-type]
        net.out_features = planes[-1] * (4 if block == "bottleneck" else 1)  # type: ignore[assignment]
    if norm == "group":  # MONAI's ResNet takes `norm` for its stem only
        for place, module in list(net.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                net.set_submodule(place, nn.GroupNorm(math.gcd(8, module.num_features), module.num_features))
    return net


def feature_dim(network: nn.Module) -> int:
    """The length D of the vectors ``(B, D)`` that a module makes of images.

    It is the module's `out_features`, or else the length of its output for images of zeros of two sizes.

    Raises:
        ValueError: if the output is not a vector, or its length depends on the size of the image.

    Example:
        >>> feature_dim(nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        6
    """
    length = getattr(network, "out_features", None)
    if isinstance(length, int):
        return length
    shapes: list[tuple[int, ...]] = []
    weight = next(network.parameters(), torch.zeros(0))
    modes = [(module, module.training) for module in network.modules()]
    for size in (64, 96):
        try:
            with torch.no_grad():
                shapes.append(tuple(network.eval()(weight.new_zeros(1, 1, size, size)).shape[1:]))
        except Exception as error:
            raise ValueError(
                f"the encoder {type(network).__name__} cannot map an image (1, {size}, {size}) to a vector "
                f"({type(error).__name__}: {error}); give it an integer `out_features`, the length of its vectors"
            ) from error
        finally:
            for module, mode in modes:
                module.training = mode
    if shapes[0] != shapes[1] or len(shapes[0]) != 1:
        raise ValueError(
            f"the encoder {type(network).__name__} must map images to vectors of one length, but makes "
            f"{shapes[0]} of 64-pixel and {shapes[1]} of 96-pixel images; pool before you flatten"
        )
    return shapes[0][0]


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)
