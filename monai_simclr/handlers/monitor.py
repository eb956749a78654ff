"""Is it learning, collapsing, diverging? Computed from the network's output of a batch, without labels."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys
from torch import Tensor, nn
from torch.nn.functional import normalize

from monai_simclr.handlers.base import History, batch_output, raise_after_all
from monai_simclr.runtime.distributed import world_size

logger = logging.getLogger("monai_simclr.training")

_COLLAPSED_RANK, _COLLAPSED_SPREAD, _DIVERGED = 2.0, 0.1, 1.1


class ContrastiveMonitor(History):
    """At the end of every epoch, metrics of its last batch on this rank, of two views per image.

    Args:
        encoder: the encoder inside the network, for the metrics of embeddings; without it they are of projections.
            Where its output was not seen they are NaN, with a warning.

    Attributes:
        history: one dict per epoch, which also goes to ``engine.state.metrics``:

            - `top1`: share of views whose nearest other view is their partner; `chance` of it, 1 / (2N - 1);
            - `chance_loss`: log(2N - 1) over the images of all ranks, the loss of a network that learned nothing;
            - `alignment`: mean squared distance of partners on the unit sphere, 0 is best, and `uniformity`: log of the
              mean Gaussian potential, lower is more uniform (Wang and Isola, ICML 2020);
            - `effective_rank`: RankMe of the embeddings (Garrido et al., ICML 2023), at most their dimension;
            - `spread`: of the normalized embeddings, 0 is one point, 1 is even in all directions.
    """

    def __init__(self, encoder: nn.Module | None = None) -> None:
        self.encoder = encoder
        self.history: list[dict[str, float]] = []
        self._features: Tensor | None = None
        self._hook: Any = None

    def attach(self, engine: Engine) -> None:
        """Register on a trainer, before what shows its numbers.

        The encoder is hooked from the first step to the last: `torch.compile` compiles the hooks that exist when it
        first runs a network, and ignores later ones.
        """
        engine.add_event_handler(Events.STARTED, self._add_hook)
        engine.add_event_handler(Events.COMPLETED, self._remove_hook)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._remove_hook)
        raise_after_all(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _add_hook(self, engine: Engine) -> None:
        if self.encoder is not None:
            self._hook = self.encoder.register_forward_hook(self._keep)

    def _remove_hook(self, engine: Engine, *error: BaseException) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Keep the features ``(2N, D)`` of a training step, not those of a probe."""
        if module.training:
            self._features = output.detach()

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        output = batch_output(engine)
        features = projections = normalize(output[CommonKeys.PRED].detach().float(), dim=1)
        loss, chance_loss = float(output[CommonKeys.LOSS].float().mean()), math.log(len(projections) * world_size() - 1)
        of_embeddings = {"effective_rank": math.nan, "spread": math.nan}
        if self.encoder is not None and self._features is None:
            logger.warning("the encoder's output was not seen, so its effective rank and spread are unknown")
        else:
            if self._features is not None:
                features = normalize(self._features.float().flatten(1), dim=1)
            of_embeddings = {"effective_rank": effective_rank(features), "spread": spread(features)}
        self._features = None
        record = {**neighbors(projections), "chance_loss": chance_loss, **of_embeddings}
        self.history.append({"epoch": float(engine.state.epoch), **record})
        engine.state.metrics.update(record)
        epoch = f"epoch {engine.state.epoch}"
        if record["effective_rank"] < _COLLAPSED_RANK or record["spread"] < _COLLAPSED_SPREAD:
            logger.warning(
                f"{epoch}: the embeddings have collapsed: effective rank {record['effective_rank']:.1f}, spread "
                f"{record['spread']:.3f}; lower the learning rate or raise the temperature"
            )
        if loss > _DIVERGED * chance_loss:
            logger.warning(
                f"{epoch}: the loss diverges: {loss:.2f}, where a network that cannot tell images apart has "
                f"{chance_loss:.2f}; lower the learning rate, or warm it up for longer"
            )


def neighbors(projections: Tensor) -> dict[str, float]:
    """`top1`, `chance`, `alignment` and `uniformity` of normalized projections ``(2N, D)``, views stacked."""
    half = len(projections) // 2
    partner = torch.arange(2 * half, device=projections.device).roll(half)
    similarity = projections @ projections.T
    squared = (2 - 2 * similarity).clamp_min_(0)
    off = ~torch.eye(2 * half, dtype=torch.bool, device=projections.device)
    return {
        "top1": float((similarity.masked_fill(~off, -2).argmax(1) == partner).float().mean()),
        "chance": 1 / (2 * half - 1),
        "alignment": float(squared.gather(1, partner[:, None]).mean()),
        "uniformity": float((-2 * squared[off]).exp().mean().log()),
    }


def effective_rank(features: Tensor) -> float:
    """Exponential of the entropy of the singular values of features ``(N, D)``, from 1 (one direction) to D.

    Example:
        >>> round(effective_rank(torch.eye(4)), 3)
        4.0
    """
    values = torch.linalg.svdvals(features.float())
    share = values / values.sum()
    return math.exp(-float((share * (share + 1e-12).log()).sum()))


def spread(features: Tensor) -> float:
    """Root mean square distance of normalized features ``(N, D)`` from their mean: 0 is one point, 1 is even.

    Example:
        >>> round(spread(torch.ones(4, 3) / 3**0.5), 2), spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        (0.0, 1.0)
    """
    return math.sqrt(max(0.0, 1 - float(features.mean(0).square().sum()))) if len(features) else 0.0
