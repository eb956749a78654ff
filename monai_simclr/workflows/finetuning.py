"""How a classifier is fine-tuned: which stages of the encoder train and how fast, and how rare findings are weighed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_simclr.data import KeyedSampler, Store, StoreDataset
from monai_simclr.data.loading import keyed_state
from monai_simclr.networks import FindingClassifier
from monai_simclr.optimizers import make_optimizer, parameter_groups

__all__ = [
    "BalancedSampler",
    "fewest_images",
    "finetuning_sampler",
    "freeze_stages",
    "layerwise_optimizer",
    "pos_weight",
    "stages",
]


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


def freeze_stages(network: FindingClassifier, trained_stages: int | None) -> FindingClassifier:
    """Train the last stages of the encoder only; the others keep their weights and their batch statistics.

    Args:
        network: the classifier.
        trained_stages: how many of the encoder's stages train, counted from the features; None for all, 0 for none.

    Raises:
        ValueError: if the encoder has fewer stages.

    Example:
        >>> from monai_simclr.networks import encoder
        >>> network = freeze_stages(FindingClassifier(encoder("resnet10", width=0.125), ["Mass"]), 1)
        >>> sum(p.requires_grad for p in network.encoder.layer3.parameters()), network.encoder.layer4[0].training
        (0, True)
    """
    parts = stages(network.encoder)
    if trained_stages is None:
        return network
    if not 0 <= trained_stages <= len(parts):
        raise ValueError(
            f"trained_stages is {trained_stages}, but the encoder has {len(parts)} stages; None trains all"
        )
    for part in parts[: len(parts) - trained_stages]:
        for module in part:
            module.requires_grad_(False)
            # MONAI's trainer puts the whole network into training mode at every step; batch statistics would move
            module.register_forward_pre_hook(_evaluate)
    return network


def _evaluate(module: nn.Module, inputs: Any) -> None:
    module.eval()


def layerwise_optimizer(
    network: FindingClassifier, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """AdamW whose rate falls by a factor from stage to stage, from the head to the image (Clark et al., ELECTRA 2020).

    Args:
        network: the classifier; only what requires a gradient is trained.
        learning_rate: of the last layer.
        weight_decay: on weights only.
        layer_decay: factor from a stage to the one before it, in (0, 1]; 1 is one rate for all.

    Raises:
        ValueError: if `layer_decay` is out of range.

    Example:
        >>> from monai_simclr.networks import encoder
        >>> made = layerwise_optimizer(FindingClassifier(encoder("resnet10", width=0.125), ["Mass"]), 0.1, 0.0, 0.5)
        >>> sorted({round(group["lr"], 5) for group in made.param_groups})
        [0.00313, 0.00625, 0.0125, 0.025, 0.05, 0.1]
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must be greater than 0 and at most 1, got {layer_decay}")
    if layer_decay == 1:
        return make_optimizer("adamw", network, learning_rate, weight_decay)
    groups: list[dict[str, Any]] = []
    parts: list[list[nn.Module]] = [[network.classifier], *reversed(stages(network.encoder))]
    for distance, part in enumerate(parts):
        module = nn.ModuleList(part)
        if any(parameter.requires_grad for parameter in module.parameters()):
            rate = learning_rate * layer_decay**distance
            groups += [{**group, "lr": rate} for group in parameter_groups(module, weight_decay) if group["params"]]
    return torch.optim.AdamW(groups, learning_rate)


def fewest_images(network: nn.Module) -> int:
    """How many images a step needs: two where batch statistics are trained, which one image does not have.

    Example:
        >>> from monai_simclr.networks import encoder
        >>> both = [FindingClassifier(encoder("resnet10", 0.125, norm), ["Mass"]) for norm in ("batch", "group")]
        >>> [fewest_images(network) for network in both]
        [2, 1]
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return 2 if any(layer.weight.requires_grad for layer in layers) else 1


def pos_weight(
    store: Store, rows: np.ndarray, findings: Sequence[str], how: str = "none", highest: float = 20.0
) -> list[float] | None:
    """Weight of a positive in the loss, for every finding: negatives over positives of the labelled rows, at most 20.

    Args:
        store: the archive.
        rows: whose labels are used.
        findings: K names.
        how: "class_weights", or "none" or "balanced_sampling" for no weights.
        highest: bound of a weight; a finding with one positive would drown all others.

    Raises:
        ValueError: for another name.
    """
    if how not in ("none", "class_weights", "balanced_sampling"):
        raise ValueError(f"balance must be 'none', 'class_weights' or 'balanced_sampling', got {how!r}")
    if how != "class_weights":
        return None
    labels = store.index.iloc[rows][list(findings)].to_numpy(dtype=float)
    positives, negatives = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    return [float(np.clip(n / max(p, 1), 1 / highest, highest)) for p, n in zip(positives, negatives, strict=True)]


class BalancedSampler(KeyedSampler):
    """Yields ``(epoch, position)`` with replacement, so that rare findings come as often as others.

    An image's weight is that of its rarest positive finding, the inverse of how many images have it; images without
    positives share the weight of one finding. Which images come is a function of (seed, epoch).

    Args:
        dataset: whose records have labels.
        seed: the same on every rank.
    """

    def __init__(self, dataset: StoreDataset, seed: int = 0) -> None:
        super().__init__(dataset, seed)
        labels = np.array([record["label"] for record in dataset.data], dtype=float) == 1
        each = labels / np.maximum(labels.sum(axis=0), 1)
        none = ~labels.any(axis=1)
        weights = np.where(none, 1 / max(1, none.sum()), each.max(axis=1, initial=0))
        self.weights = weights / weights.sum()

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        generator = keyed_state(self.seed, self.epoch, 0, 0)
        drawn = generator.choice(len(self.weights), size=self.total_size, p=self.weights)
        return ((self.epoch, int(position)) for position in drawn[self.rank : self.total_size : self.num_replicas])


def finetuning_sampler(dataset: StoreDataset, seed: int, balance: str) -> KeyedSampler:
    """`BalancedSampler` for "balanced_sampling", otherwise every image once an epoch."""
    return BalancedSampler(dataset, seed) if balance == "balanced_sampling" else KeyedSampler(dataset, seed)
