"""The networks: encoders by name, the projection head, SimCLR, and the classifier of findings.

The architecture is written here and nowhere else; which one a bundle uses stands in its metadata.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import DenseNet, ResNet
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from monai_simclr.files import write_atomically

__all__ = [
    "ENCODERS",
    "FindingClassifier",
    "ProjectionHead",
    "SimCLR",
    "encoder",
    "encoder_header",
    "load_classifier",
    "load_encoder",
    "patients_seen",
    "save_classifier",
    "save_encoder",
]

_RESNETS: dict[str, tuple[str, tuple[int, ...]]] = {
    "resnet10": ("basic", (1, 1, 1, 1)),
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}
ENCODERS = (*_RESNETS, "densenet121")
"""Names that `encoder` knows."""


class _DenseNetFeatures(nn.Module):
    """DenseNet-121 (Huang et al., CVPR 2017) without its classification layer: images to pooled features."""

    def __init__(self, width: float) -> None:
        super().__init__()
        net = DenseNet(2, 1, 1, init_features=_scaled(64, width), growth_rate=_scaled(32, width))
        self.features = net.features
        self.out_features = int(net.class_layers.out.in_features)  # type: ignore[union-attr,arg-type]

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.features(images)).mean(dim=(2, 3))


def encoder(name: str = "resnet18", width: float = 1.0) -> nn.Module:
    """A network that maps images ``(B, 1, H, W)`` in [0, 1] to features ``(B, D)``; D is its `out_features`.

    Args:
        name: one of `ENCODERS`; ResNets are He et al. (CVPR 2016) with a stride-2 stem (MONAI's default stem has
            stride 1, which costs four times the work), DenseNet-121 is Huang et al. (CVPR 2017).
        width: factor on the number of channels; 0.25 makes a network for trying things on a CPU.

    Raises:
        ValueError: if there is no encoder of that name, or `width` is not greater than 0.

    Example:
        >>> net = encoder("resnet18", width=0.25)
        >>> net(torch.rand(2, 1, 64, 64)).shape, net.out_features
        (torch.Size([2, 128]), 128)
    """
    if name not in ENCODERS:
        raise ValueError(
            f"there is no encoder {name!r}; choose one of {list(ENCODERS)}, or pass a torch module yourself"
        )
    if width <= 0:
        raise ValueError(f"width must be greater than 0, got {width}")
    if name == "densenet121":
        return _DenseNetFeatures(width)
    block, layers = _RESNETS[name]
    planes = [_scaled(channels, width) for channels in (64, 128, 256, 512)]
    net = ResNet(
        block, list(layers), planes, spatial_dims=2, n_input_channels=1, conv1_t_stride=2, feed_forward=False,
        bias_downsample=False,
    )  # fmt: skip
    net.out_features = planes[-1] * (4 if block == "bottleneck" else 1)  # type: ignore[assignment]
    return net


class ProjectionHead(nn.Sequential):
    """Features ``(B, D)`` to projections ``(B, P)``: linear, batch norm, ReLU, linear (Chen et al., SimCLR, ICML 2020).

    Args:
        in_features: D.
        hidden: width of the hidden layer; 0 means D.
        out_features: P.
    """

    def __init__(self, in_features: int, hidden: int = 0, out_features: int = 128) -> None:
        hidden = hidden or in_features
        super().__init__(
            nn.Linear(in_features, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out_features, bias=False),
        )


class SimCLR(nn.Module):
    """An encoder with a projection head: images ``(B, 1, H, W)`` to projections ``(B, P)``.

    Args:
        encoder: any module that maps images to vectors and says their length as `out_features`.
        hidden: width of the head's hidden layer; 0 means the encoder's.
        out_features: P, 128 in the paper.

    Example:
        >>> model = SimCLR(encoder("resnet10", width=0.125), out_features=32)
        >>> model(torch.rand(4, 1, 64, 64)).shape
        torch.Size([4, 32])
    """

    def __init__(self, encoder: nn.Module, hidden: int = 0, out_features: int = 128) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = ProjectionHead(_out_features(encoder), hidden, out_features)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))


class FindingClassifier(nn.Module):
    """Images ``(B, 1, H, W)`` to one logit a finding ``(B, K)``; the findings' names travel inside the state dict.

    Args:
        encoder: module that maps images to vectors, with `out_features`.
        findings: K names, in the order of the output.
        frozen: keep the encoder as it is, batch statistics included, and train the last layer only.

    Raises:
        ValueError: on loading a state dict that was trained for other findings (names both).

    Example:
        >>> net = FindingClassifier(encoder("resnet10", width=0.125), ["Effusion", "Edema"])
        >>> net(torch.rand(4, 1, 64, 64)).shape
        torch.Size([4, 2])
    """

    def __init__(self, encoder: nn.Module, findings: Sequence[str], frozen: bool = False) -> None:
        super().__init__()
        if not findings:
            raise ValueError("a classifier needs at least one finding, got none; see `findings` in metadata.json")
        self.encoder = encoder
        self.findings = tuple(findings)
        self.frozen = frozen
        self.classifier = nn.Linear(_out_features(encoder), len(self.findings))
        encoder.requires_grad_(not frozen)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.encoder(images))

    def train(self, mode: bool = True) -> FindingClassifier:
        """Training mode; a frozen encoder stays in evaluation mode, or its batch statistics would move."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def get_extra_state(self) -> dict[str, Any]:
        return {"findings": list(self.findings)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        if tuple(state["findings"]) != self.findings:
            raise ValueError(
                f"the checkpoint was trained for the findings {list(state['findings'])}, the network is for "
                f"{list(self.findings)}; use the metadata.json of the bundle that trained it, or pass --findings"
            )


def save_encoder(path: str | Path, network: nn.Module, header: Mapping[str, str]) -> Path:
    """Write an encoder's weights as safetensors, whole or not at all.

    Args:
        path: the file.
        network: what `encoder` made.
        header: text about it that travels with the weights (name, width, size, ...); "name" and "width" are needed
            for `load_encoder` to rebuild the network.

    Returns:
        `path`.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with write_atomically(path) as part:
        save_file(weights, part, metadata={key: str(value) for key, value in header.items()})
    return Path(path)


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


def load_encoder(path: str | Path, name: str | None = None, width: float | None = None) -> nn.Module:
    """The pretrained encoder in a file that `save_encoder` wrote, in evaluation mode.

    Args:
        path: the safetensors file.
        name: what the encoder must be, when that matters; otherwise what the file says.
        width: likewise.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if the file holds another architecture than asked for.
    """
    header = encoder_header(path)
    stored = (header["name"], float(header["width"]))
    wanted = (name or stored[0], stored[1] if width is None else float(width))
    if stored != wanted:
        raise ValueError(
            f"{path} holds {stored[0]} of width {stored[1]}, but metadata.json asks for {wanted[0]} of "
            f"width {wanted[1]}; "
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
    if extra is None:
        raise ValueError(f"{path} is not a classifier of monai-simclr: it does not say its findings")
    network.set_extra_state(extra)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{path} was trained with another encoder than metadata.json says; use the bundle that trained it"
        ) from error
    return network.to(device).eval()


def save_classifier(path: str | Path, network: FindingClassifier) -> Path:
    """Write a classifier's bare state dict, its findings inside; it loads with ``weights_only=True``."""
    with write_atomically(path) as part:
        torch.save({key: _on_cpu(value) for key, value in network.state_dict().items()}, part)
    return Path(path)


def patients_seen(header: Mapping[str, str]) -> frozenset[str]:
    """Keyed hashes (key: the header's `patients_key`) of the patients that a pretrained encoder has seen."""
    return frozenset(json.loads(header.get("patients_seen", "[]")))


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)


def _out_features(network: nn.Module) -> int:
    if not isinstance(getattr(network, "out_features", None), int):
        raise ValueError(f"the encoder {type(network).__name__} must say the length of its vectors as `out_features`")
    return int(network.out_features)  # type: ignore[arg-type]
