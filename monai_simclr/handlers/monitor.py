"""Is it learning, is it collapsing? Read from projections, without labels."""

from __future__ import annotations

import math
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys
from torch import Tensor
from torch.nn.functional import normalize

from monai_simclr.handlers.progress import logger

__all__ = ["ContrastiveMonitor", "effective_rank"]


class ContrastiveMonitor:
    """At the end of every epoch, what the last batch's projections say.

    Attributes:
        history: one dict an epoch: `top1` (share of views whose nearest other view is their partner), `chance` of it,
            `alignment` (mean squared distance of partners, 0 best) and `uniformity` (log mean Gaussian potential, lower
            is more uniform; both Wang and Isola, ICML 2020), `effective_rank` (RankMe, Garrido et al., ICML 2023).
    """

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        output: Any = engine.state.output
        projections = normalize(output[CommonKeys.PRED].detach().float(), dim=1)
        half = len(projections) // 2
        partner = torch.arange(2 * half, device=projections.device).roll(half)
        similarity = projections @ projections.T
        squared = 2 - 2 * similarity
        off = ~torch.eye(2 * half, dtype=torch.bool, device=projections.device)
        record = {
            "epoch": float(engine.state.epoch),
            "top1": float((similarity.masked_fill(~off, -2).argmax(1) == partner).float().mean()),
            "chance": 1 / (2 * half - 1),
            "alignment": float(squared[torch.arange(2 * half), partner].mean()),
            "uniformity": float((-2 * squared[off]).exp().mean().log()),
            "effective_rank": effective_rank(projections),
        }
        self.history.append(record)
        if record["effective_rank"] < 2:
            logger.warning(
                f"epoch {engine.state.epoch}: the projections have an effective rank of "
                f"{record['effective_rank']:.1f}: "
                "they have collapsed to one direction; lower the learning rate or raise the temperature"
            )


def effective_rank(features: Tensor) -> float:
    """Exponential of the entropy of the singular values of features ``(N, D)``: 1 is one direction, D all alike.

    Example:
        >>> round(effective_rank(torch.eye(4)), 3)
        4.0
    """
    values = torch.linalg.svdvals(features)
    share = values / values.sum()
    return math.exp(-float((share * (share + 1e-12).log()).sum()))
