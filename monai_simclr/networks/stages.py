"""The stages of an encoder, from the image to the features, and training only the last of them."""

from __future__ import annotations

from torch import nn
from torch.nn import Parameter

from monai_simclr.networks.chunks import batch_norms
from monai_simclr.networks.heads import FindingClassifier
from monai_simclr.networks.timm_encoders import TimmEncoder


def stages(encoder: nn.Module) -> list[list[nn.Module]]:
    """The encoder's parts from the image to the features: the stem, then its stages.

    The stem are the modules without children in front (a ResNet's first convolution and its norm); a ResNet has five
    stages, DenseNet-121 nine, networks of timm as timm divides them.

    Example:
        >>> from monai_simclr.networks import encoder
        >>> len(stages(encoder("resnet18", width=0.125)))
        5
    """
    if isinstance(encoder, TimmEncoder):
        return encoder.stages()
    parts = [encoder]
    while len(parts) == 1 and list(parts[0].children()):
        parts = [child for child in parts[0].children() if any(True for _ in child.parameters())]
    first = next((i for i, part in enumerate(parts) if list(part.children())), len(parts))
    rest = [[part] for part in parts[first:]]
    return [parts[:first], *rest] if first else rest


def parameters_outside_stages(encoder: nn.Module) -> list[Parameter]:
    """The parameters of an encoder that are in none of its stages, such as a transformer's position embedding.

    Example:
        >>> import torch
        >>> class Tokens(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.position = nn.Parameter(torch.zeros(3))
        ...         self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        >>> [tuple(parameter.shape) for parameter in parameters_outside_stages(Tokens())]
        [(3,)]
    """
    inside = {id(value) for part in stages(encoder) for module in part for value in module.parameters()}
    return [value for value in encoder.parameters() if id(value) not in inside]


def freeze_stages(network: FindingClassifier, n_trainable_stages: int | None) -> FindingClassifier:
    """Train the last stages of the encoder only; the others keep their weights and their batch statistics.

    Parameters of the encoder that are in no stage train only if all stages do.

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
    if n_trainable_stages == 0:
        network.freeze(network.encoder)  # also what is in no stage
        return network
    frozen = parts[: len(parts) - n_trainable_stages]
    network.freeze(*(module for part in frozen for module in part))
    for parameter in parameters_outside_stages(network.encoder) if frozen else ():
        parameter.requires_grad_(False)
    return network


def fewest_images(network: nn.Module) -> int:
    """How many images a step needs: two where batch statistics are trained, since one image has none.

    Example:
        >>> from monai_simclr.networks import FindingClassifier, encoder
        >>> both = [FindingClassifier(encoder("resnet10", 0.125, norm), ["Mass"]) for norm in ("batch", "group")]
        >>> [fewest_images(network) for network in both]
        [2, 1]
    """
    return 2 if any(layer.weight.requires_grad for layer in batch_norms(network)) else 1
