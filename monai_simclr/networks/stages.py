"""The stages of an encoder, from the image to the features, and training only the last of them."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_simclr.networks.heads import FindingClassifier


def stages(encoder: nn.Module) -> list[list[nn.Module]]:
    """The encoder's parts from the image to the features: the stem, then one stage each.

    Modules without children in front (a ResNet's first convolution and its norm) are the stem; a ResNet has five
    stages, DenseNet-121 nine.

    Example:
        >>> from monai_simclr.networks import encoder
        >>> len(stages(encoder("resnet18", width=0.125)))
        5
    """
    parts = [child for child in encoder.children() if any(True for _ in child.parameters())]
    while len(parts) == 1 and list(parts[0].children()):
        parts = [child for child in parts[0].children() if any(True for _ in child.parameters())]
    stem = [part for part in parts if not list(part.children())]
    first = next((i for i, part in enumerate(parts) if list(part.children())), len(parts))
    front = [part for part in stem if parts.index(part) < first]
    rest = [[part] for part in parts if part not in front]
    return [front, *rest] if front else rest


def freeze_stages(network: FindingClassifier, n_trainable_stages: int | None) -> FindingClassifier:
    """Train the last stages of the encoder only; the others keep their weights and their batch statistics.

    Args:
        network: the classifier.
        n_trainable_stages: how many of the encoder's stages train, counted from the features; None for all, 0 for none.

    Raises:
        ValueError: if the encoder has fewer stages.

    Example:
        >>> from monai_simclr.networks import encoder
        >>> network = freeze_stages(FindingClassifier(encoder("resnet10", width=0.125), ["Mass"]), 1)
        >>> sum(p.requires_grad for p in network.encoder.layer3.parameters()), network.encoder.layer4[0].training
        (0, True)
    """
    parts = stages(network.encoder)
    if n_trainable_stages is None:
        return network
    if not 0 <= n_trainable_stages <= len(parts):
        raise ValueError(
            f"n_trainable_stages is {n_trainable_stages}, but the encoder has {len(parts)} stages; None trains all"
        )
    for part in parts[: len(parts) - n_trainable_stages]:
        for module in part:
            module.requires_grad_(False)
            # MONAI's trainer puts the whole network into training mode at every step; batch statistics would move
            module.register_forward_pre_hook(_evaluate)
    return network


def _evaluate(module: nn.Module, inputs: Any) -> None:
    module.eval()


def fewest_images(network: nn.Module) -> int:
    """How many images a step needs: two where batch statistics are trained, which one image does not have.

    Example:
        >>> from monai_simclr.networks import FindingClassifier, encoder
        >>> both = [FindingClassifier(encoder("resnet10", 0.125, norm), ["Mass"]) for norm in ("batch", "group")]
        >>> [fewest_images(network) for network in both]
        [2, 1]
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return 2 if any(layer.weight.requires_grad for layer in layers) else 1
