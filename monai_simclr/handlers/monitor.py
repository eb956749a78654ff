"""Is it learning, is it collapsing, does it diverge? Read from what the network makes of a batch, without labels."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys
from torch import Tensor, nn
from torch.nn.functional import normalize

from monai_simclr.handlers.progress import batch_output, raise_after_all
from monai_simclr.runtime.distributed import world_size

logger = logging.getLogger("monai_simclr.training")

_COLLAPSED_RANK, _COLLAPSED_SPREAD, _DIVERGED = 2.0, 0.1, 1.1


class ContrastiveMonitor:
    """At the end of every epoch, what the last batch says; two views an image, of this rank.

    Args:
        encoder: the encoder inside the network, for the numbers about embeddings; without it they are of projections.
            Where its output cannot be seen they are NaN, and a warning says so.

    Attributes:
        history: one dict an epoch, which also goes to ``engine.state.metrics``:

            - `top1`: share of views whose nearest other view is their partner; `chance` of it, 1 / (2N - 1);
            - `chance_loss`: log(2N - 1) over the images of all ranks, the loss of a network that tells nothing apart;
            - `alignment`: mean squared distance of partners on the unit sphere, 0 is best, and `uniformity`: log of the
              mean Gaussian potential, lower is more uniform (Wang and Isola, ICML 2020);
            - `effective_rank`: RankMe of the embeddings (Garrido et al., ICML 2023), at most their length;
            - `spread`: of the normalized embeddings, 0 is one point, 1 is even in all directions.
    """

    def __init__(self, encoder: nn.Module | None = None) -> None:
        self.encoder = encoder
        self.history: list[dict[str, float]] = []
        self._seen: Tensor | None = None
        self._hook: Any = None

    def attach(self, engine: Engine) -> None:
        """Register on a trainer, before what shows its numbers.

        The encoder is watched from the first step to the last: `torch.compile` builds in the hooks that are there when
        it first runs a network, and does not see later ones.
        """
        engine.add_event_handler(Events.STARTED, self._watch)
        engine.add_event_handler(Events.COMPLETED, self._leave)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._leave)
        raise_after_all(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def state_dict(self) -> dict[str, Any]:
        """The history: plain numbers."""
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a history."""
        self.history = list(state["history"])

    def _watch(self, engine: Engine) -> None:
        if self.encoder is not None:
            self._hook = self.encoder.register_forward_hook(self._keep)

    def _leave(self, engine: Engine, *error: BaseException) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Keep what a training step made, `(2N, D)` numbers; what a probe or an evaluation made is not looked at."""
        if module.training:
            self._seen = output.detach()

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        output = batch_output(engine)
        projections = normalize(output[CommonKeys.PRED].detach().float(), dim=1)
        record = {
            "epoch": float(engine.state.epoch),
            **neighbors(projections),
            "chance_loss": math.log(len(projections) * world_size() - 1),
            **self._about_embeddings(projections),
        }
        self._seen = None
        self.history.append(record)
        engine.state.metrics.update({name: value for name, value in record.items() if name != "epoch"})
        for sentence in _sentences(record, float(output[CommonKeys.LOSS].float().mean())):
            logger.warning(f"epoch {engine.state.epoch}: {sentence}")

    def _about_embeddings(self, projections: Tensor) -> dict[str, float]:
        if self.encoder is None:
            features = projections
        elif self._seen is None:
            logger.warning("the encoder's output was not seen, so nothing is known of its effective rank and spread")
            return {"effective_rank": math.nan, "spread": math.nan}
        else:
            features = normalize(self._seen.float().flatten(1), dim=1)
        return {"effective_rank": effective_rank(features), "spread": spread(features)}


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
    """Exponential of the entropy of the singular values of features ``(N, D)``: 1 is one direction, D all alike.

    Example:
        >>> round(effective_rank(torch.eye(4)), 3)
        4.0
    """
    values = torch.linalg.svdvals(features.float())
    share = values / values.sum()
    return math.exp(-float((share * (share + 1e-12).log()).sum()))


def spread(features: Tensor) -> float:
    """Root mean square distance of normalized features ``(N, D)`` from their mean: 0 is one point, 1 no direction.

    Example:
        >>> round(spread(torch.ones(4, 3) / 3**0.5), 2), spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        (0.0, 1.0)
    """
    return math.sqrt(max(0.0, 1 - float(features.mean(0).square().sum()))) if len(features) else 0.0


def _sentences(record: dict[str, float], loss: float) -> list[str]:
    """What a person should be told about a record; nothing when all is well."""
    said = []
    if record["effective_rank"] < _COLLAPSED_RANK or record["spread"] < _COLLAPSED_SPREAD:
        said.append(
            f"the embeddings have collapsed: effective rank {record['effective_rank']:.1f}, spread "
            f"{record['spread']:.3f}; lower the learning rate or raise the temperature"
        )
    if loss > _DIVERGED * record["chance_loss"]:
        said.append(
            f"the loss diverges: {loss:.2f}, where a network that tells nothing apart has {record['chance_loss']:.2f}; "
            "lower the learning rate, or warm it up for longer"
        )
    return said
