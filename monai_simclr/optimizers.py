"""Optimizers and schedules for training without labels."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["make_optimizer", "parameter_groups", "warmup_cosine"]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters with weight decay, and those without: biases and normalisation layers (all that is one-dimensional).

    Example:
        >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 3), 1e-4)]
        [1, 1]
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def make_optimizer(
    name: str, module: nn.Module, learning_rate: float, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, ICLR 2019) or SGD with Nesterov momentum 0.9 over a module's trained parameters.

    Args:
        name: ``"adamw"`` or ``"sgd"``.
        module: what to train.
        learning_rate: highest rate; see `warmup_cosine`.
        weight_decay: on weights only, see `parameter_groups`.

    Raises:
        ValueError: if there is no optimizer of that name.
    """
    groups = parameter_groups(module, weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, learning_rate)
    if name == "sgd":
        return torch.optim.SGD(groups, learning_rate, momentum=0.9, nesterov=True)
    raise ValueError(f"there is no optimizer {name!r}; choose 'adamw' or 'sgd'")


def warmup_cosine(optimizer: torch.optim.Optimizer, warmup_iterations: int, total_iterations: int) -> LambdaLR:
    """Learning rate that rises linearly, then falls as half a cosine to zero (Loshchilov and Hutter, ICLR 2017).

    Args:
        optimizer: its rate at the start is the highest.
        warmup_iterations: how many iterations it rises.
        total_iterations: when it is zero.

    Example:
        >>> rate = torch.optim.SGD(nn.Linear(1, 1).parameters(), 1.0)
        >>> schedule = warmup_cosine(rate, 2, 4)
        >>> [round(schedule.lr_lambdas[0](step), 2) for step in range(5)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    def factor(step: int) -> float:
        if step < warmup_iterations:
            return (step + 1) / warmup_iterations
        share = (step - warmup_iterations) / max(1, total_iterations - warmup_iterations)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    return LambdaLR(optimizer, factor)
