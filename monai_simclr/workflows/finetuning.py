"""How a classifier is fine-tuned: which stages of the encoder train and how fast, and how rare findings are weighed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_simclr.data import KeyedSampler, StoreDataset
from monai_simclr.data.loading import keyed_state

__all__ = ["BalancedSampler", "fewest_images", "finetuning_sampler"]


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
