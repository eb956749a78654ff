"""Encoders of timm by name, for gray images (extra ``timm``); nothing is ever downloaded."""

from __future__ import annotations

import difflib
import re
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from monai_simclr.runtime.extras import import_extra

PREFIX = "timm/"
"""What the names of these encoders begin with: ``timm/convnext_atto``."""


class TimmEncoder(nn.Module):
    """A convolutional network of timm that maps images ``(B, 1, H, W)`` in [0, 1] to features ``(B, D)``.

    Images are standardized first, as the network's ImageNet weights expect it, by one mean and one deviation (the
    channels' averages): exact where the three channels have the same, as in ``tf_efficientnet_lite0``, otherwise
    within 0.19 deviations a channel. Both numbers are buffers, and so part of an encoder's file.

    Args:
        name: of the architecture, as ``timm.list_models()`` has it, without weights.

    Raises:
        ModuleNotFoundError: if timm is not installed (says what to install).
        ValueError: if there is no such architecture, or it takes images of one size only.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        timm = _timm()
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), 3)
            hint = f"; near it are {', '.join(PREFIX + other for other in near)}" if near else ""
            raise ValueError(f"timm {timm.__version__} has no network {name!r}{hint}")
        config = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
        if config.fixed_input_size:
            raise ValueError(
                f"{PREFIX}{name} takes images of {config.input_size[1]} pixels only; choose a convolutional network"
            )
        self.name = name
        self.net = timm.create_model(
            name, pretrained=False, in_chans=1, num_classes=0, scriptable=True, exportable=True
        )
        self.out_features = int(self.net.num_features)
        self.mean, self.std = (nn.Buffer(torch.tensor(sum(v) / len(v))) for v in (config.mean, config.std))

    def __reduce__(self) -> tuple[Any, ...]:  # unpickling then begins with the import of timm, see `_timm`
        return TimmEncoder, (self.name,), self.__dict__

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images - self.mean) / self.std)

    @torch.jit.unused
    def stages(self) -> list[list[nn.Module]]:
        """The parts of the network from the image to the features, by timm's own table."""
        group = _timm().models.group_parameters(self.net, self.net.group_matcher(coarse=True), reverse=True)
        found: dict[int, list[nn.Module]] = {}

        def sort_in(module: nn.Module, path: str) -> None:
            numbers = {group[path + name] for name, _ in module.named_parameters()}
            if len(numbers) == 1:
                found.setdefault(numbers.pop(), []).append(module)
            else:
                for name, child in module.named_children():
                    sort_in(child, f"{path}{name}.")

        sort_in(self.net, "")
        parts: list[list[nn.Module]] = []
        for number in sorted(found):
            only_norms = all(value.ndim < 2 for module in found[number] for value in module.parameters())
            if only_norms and parts:  # such as the norm before the features
                parts[-1] += found[number]
            else:
                parts.append(found[number])
        return parts


# lukemelas's EfficientNet-PyTorch, and what follows it, name the parts of a block by what they do, timm by their order.
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_NOT_EXPANDED = {**_EXPANDED, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_BLOCK = re.compile(r"(?<![^.])_blocks\.(\d+)\.(_\w+)\.")
_PART = re.compile(r"(?<![^.])(_conv_stem|_bn0|_conv_head|_bn1|_fc)\.")


def efficientnet_names(tensors: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Tensors with the names of lukemelas's EfficientNet under timm's names, the others as they are.

    Args:
        tensors: by name, prefixes allowed.
        wanted: timm's names, which say how the numbered blocks are spread over stages.
    """
    places = sorted({(int(s), int(n)) for s, n in re.findall(r"(?:^|\n)blocks\.(\d+)\.(\d+)\.", "\n".join(wanted))})
    expanded = {match[1] for name in tensors if (match := _BLOCK.search(name)) and match[2] == "_expand_conv"}

    def block(match: re.Match[str]) -> str:
        number = int(match[1])
        if number >= len(places):
            return match[0]
        part = (_EXPANDED if match[1] in expanded else _NOT_EXPANDED).get(match[2], match[2])
        return f"blocks.{places[number][0]}.{places[number][1]}.{part}."

    def rename(name: str) -> str:
        return _BLOCK.sub(block, name) if "_blocks." in name else _PART.sub(lambda m: f"{_OUTSIDE[m[1]]}.", name)

    return {rename(name): value for name, value in tensors.items()}


def _timm() -> ModuleType:
    purpose = "an encoder whose name begins with timm/"
    try:
        timm: ModuleType = import_extra("timm", "timm", purpose)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        # torchvision of PyPI is built for CUDA: beside torch for CPUs its operators cannot be loaded, and its import
        # ends where it describes two of them. timm calls none.
        for operator in ("nms", "qnms"):
            arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", arguments)
        timm = import_extra("timm", "timm", purpose)
    return timm
