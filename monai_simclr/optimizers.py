"""LARS, parameter groups, layer-wise rates and schedules."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from monai_simclr.networks import FindingClassifier
from monai_simclr.networks.stages import parameters_outside_stages, stages

Scaling = Literal["none", "sqrt", "linear"]
"""How a learning rate follows the batch size, see `scaled_learning_rate`."""

logger = logging.getLogger("monai_simclr")


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling: every weight moves by a share of its own size.

    With gradient g and weight w, the rate of a weight is
    ``lr * trust_coefficient * |w| / (|g| + weight_decay * |w|)``, and the velocity
    ``v = momentum * v + rate * (g + weight_decay * w)`` is subtracted from w. It adapts with a weight decay of 0 too. A
    weight or a gradient that is all zero moves by the plain rate. Nothing is read back from the device.

    Args:
        parameters: tensors, or groups of them; a group with ``adapt=False`` takes plain momentum steps.
        lr: the global rate, above 0 (SimCLR's LARS rates are large, see `scaled_learning_rate`).
        momentum: in [0, 1).
        weight_decay: at least 0.
        trust_coefficient: the share, above 0.

    Raises:
        ValueError: if a setting is out of range.

    Source:
        You, Gitman and Ginsburg 2017, "Large batch training of convolutional networks", algorithm 1.

    Example:
        >>> weight = nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> weight.grad = torch.tensor([0.0, 100.0])
        >>> LARS([weight], lr=1.0, trust_coefficient=0.1).step()
        >>> weight.data  # moved by a tenth of its length 5, however long the gradient
        tensor([3.0000, 3.5000])
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        for requirement, value, valid in (
            ("lr must be above 0", lr, lr > 0),
            ("momentum must lie in [0, 1)", momentum, 0 <= momentum < 1),
            ("weight_decay must be at least 0", weight_decay, weight_decay >= 0),
            ("trust_coefficient must be above 0", trust_coefficient, trust_coefficient > 0),
        ):
            if not valid:
                raise ValueError(f"{requirement}, got {value}")
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "adapt": True}
        super().__init__(parameters, {**settings, "trust_coefficient": trust_coefficient})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # states of version 0.1 have the name that it used
            group.setdefault("trust_coefficient", group.pop("trust", 0.001))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient; returns what `closure` returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            moves = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
            if group["adapt"]:
                lengths, slopes = torch._foreach_norm(weights), torch._foreach_norm(gradients)
                totals = torch._foreach_add(slopes, lengths, alpha=group["weight_decay"])
                ratios = [
                    torch.where((length > 0) & (slope > 0), group["trust_coefficient"] * length / total, 1.0)
                    for length, slope, total in zip(lengths, slopes, totals, strict=True)
                ]
                torch._foreach_mul_(moves, ratios)
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["velocity"] = torch.zeros_like(weight)
            velocities: list[Tensor] = [self.state[weight]["velocity"] for weight in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, moves, alpha=group["lr"])
            torch._foreach_sub_(weights, velocities)
        return loss


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group trained parameters: those with weight decay, and biases and norms (one-dimensional) without.

    The second group has neither decay nor adaptation; ``adapt`` is read by `LARS` only.

    Raises:
        ValueError: if no parameter of the module requires a gradient.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError(f"no parameter of {type(module).__name__} requires a gradient, so there is nothing to train")
    return [
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": weight_decay, "adapt": True},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0, "adapt": False},
    ]


def make_optimizer(
    name: str,
    module: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.0,
    batch_size: int = 0,
    scaling: Scaling = "none",
) -> torch.optim.Optimizer:
    """Make AdamW, `LARS`, or SGD with Nesterov momentum over a module's trained parameters, and log its settings.

    Args:
        name: ``"adamw"`` (Loshchilov and Hutter, ICLR 2019), ``"lars"`` or ``"sgd"``; momentum 0.9 for the last two.
        module: what to train.
        learning_rate: highest rate, see `warmup_cosine`; with `scaling`, the base of it, see `scaled_learning_rate`.
        weight_decay: on weights only, see `parameter_groups`.
        batch_size: images in a step over all processes, for `scaling`.
        scaling: how the rate follows the batch size: ``"none"``, ``"sqrt"`` or ``"linear"``.

    Raises:
        ValueError: if there is no optimizer or rule of that name, or nothing to train.

    Example:
        >>> optimizer = make_optimizer("lars", nn.Linear(2, 3), 0.075, 1e-6, batch_size=256, scaling="sqrt")
        >>> type(optimizer).__name__, optimizer.param_groups[0]["lr"]
        ('LARS', 1.2)
    """
    groups = parameter_groups(module, weight_decay)
    rate, rule = learning_rate, ""
    if scaling != "none":
        rate = scaled_learning_rate(learning_rate, batch_size, scaling)
        rule = f" = {learning_rate:g} * " + (f"sqrt({batch_size})" if scaling == "sqrt" else f"{batch_size} / 256")
    decayed, others = (len(group["params"]) for group in groups)
    logger.info(
        f"{name}: learning rate {rate:g}{rule}; weight decay {weight_decay:g} on {decayed} of {decayed + others} "
        "tensors, none on biases and norms"
    )
    # one pass over memory for the whole step: on the CPU it takes a fraction of the time of the loop
    fused = all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])
    if name == "adamw":
        return torch.optim.AdamW(groups, rate, fused=fused)
    if name == "lars":
        return LARS(groups, rate)
    if name == "sgd":
        return torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True, fused=fused)
    raise ValueError(f"there is no optimizer {name!r}; choose 'adamw', 'lars' or 'sgd'")


def scaled_learning_rate(base: float, batch_size: int, rule: Scaling = "sqrt") -> float:
    """The LARS rate for a batch size, by one of SimCLR's two rules.

    Args:
        base: SimCLR's 0.075 for ``"sqrt"`` (better for small batches and few epochs), 0.3 for ``"linear"``.
        batch_size: images (not views) in a step, over all processes.
        rule: ``"sqrt"`` is ``base * sqrt(batch_size)``; ``"linear"`` is ``base * batch_size / 256``; ``"none"`` is
            `base` itself.

    Raises:
        ValueError: if the batch size is below 1 or there is no such rule.

    Source:
        Chen et al. 2020, "A simple framework for contrastive learning", appendix B.1.

    Example:
        >>> scaled_learning_rate(0.075, 256), scaled_learning_rate(0.3, 256, "linear")
        (1.2, 0.3)
    """
    if rule == "none":
        return base
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if rule not in get_args(Scaling):
        raise ValueError(f"there is no rule {rule!r}; choose 'none', 'sqrt' or 'linear'")
    return base * math.sqrt(batch_size) if rule == "sqrt" else base * batch_size / 256


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


def layerwise_optimizer(
    network: FindingClassifier, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """AdamW whose rate falls by a factor from stage to stage, from the head to the image (Clark et al., ELECTRA 2020).

    Args:
        network: the classifier; only what requires a gradient is trained.
        learning_rate: of the last layer.
        weight_decay: on weights only.
        layer_decay: factor from a stage to the one before it, in (0, 1]; 1 is one rate for all. Parameters of the
            encoder that are in no stage have the rate of the first.

    Raises:
        ValueError: if `layer_decay` is out of range.

    Example:
        >>> from monai_simclr.networks import encoder
        >>> network = FindingClassifier(encoder("resnet10", width=0.125), ["Mass"])
        >>> optimizer = layerwise_optimizer(network, 0.1, 0.0, 0.5)
        >>> sorted({round(group["lr"], 5) for group in optimizer.param_groups})
        [0.00313, 0.00625, 0.0125, 0.025, 0.05, 0.1]
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must be greater than 0 and at most 1, got {layer_decay}")
    if layer_decay == 1:
        return make_optimizer("adamw", network, learning_rate, weight_decay)
    groups: list[dict[str, Any]] = []
    first, *rest = stages(network.encoder) or [[]]
    first = [*first, nn.ParameterList(parameters_outside_stages(network.encoder))]
    parts: list[list[nn.Module]] = [[network.classifier], *reversed(rest), first]
    for distance, part in enumerate(parts):
        module = nn.ModuleList(part)
        if any(parameter.requires_grad for parameter in module.parameters()):
            rate = learning_rate * layer_decay**distance
            groups += [{**group, "lr": rate} for group in parameter_groups(module, weight_decay) if group["params"]]
    return torch.optim.AdamW(groups, learning_rate)
