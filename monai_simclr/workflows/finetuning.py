"""How a classifier is fine-tuned: which stages of the encoder train and how fast, and how rare findings are weighed."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["fewest_images"]


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
