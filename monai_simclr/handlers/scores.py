"""Validation scores inside a run, and early stopping by them; what is reported comes from `monai_simclr.evaluation`."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import EpochMetric
from monai.engines.utils import CommonKeys
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

logger = logging.getLogger("monai_simclr.training")


class MeanAUROC(EpochMetric):
    """Mean AUROC over the findings that have a positive and a negative, of known labels; NaN if none has."""

    def __init__(self) -> None:
        super().__init__(mean_auroc, output_transform=_scores_and_labels, check_compute_fn=False)


class EarlyStopping:
    """Early stopping: keep the weights that did best on validation patients, and stop when nothing gets better.

    Attach it to the trainer after its `ValidationHandler`. Weights of equal score: the earlier ones. Where validation
    cannot be scored (no finding has both labels), the last weights stay, with a warning.

    Args:
        validator: the evaluator that the trainer's `ValidationHandler` runs.
        network: whose weights.
        patience: validations without a better score after which training stops; 0 never stops it.
        metric: of the validator, higher is better.

    Attributes:
        best: the best score, and `best_epoch`, when it was.
    """

    def __init__(
        self, validator: Engine, network: nn.Module, patience: int = 0, metric: str = "val_mean_auroc"
    ) -> None:
        self.validator, self.network, self.patience, self.metric = validator, network, patience, metric
        self.best, self.best_epoch, self._bad = float("-inf"), 0, 0
        self._weights: dict[str, Any] | None = None
        self._new = False

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        self.validator.add_event_handler(Events.COMPLETED, self._validated)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._look)
        engine.add_event_handler(Events.COMPLETED, self._restore)

    def _validated(self, engine: Engine) -> None:
        self._new = True

    def _look(self, trainer: Engine) -> None:
        if not self._new:
            return
        self._new = False
        score = float(self.validator.state.metrics.get(self.metric, float("nan")))
        if score > self.best:
            self.best, self.best_epoch, self._bad = score, trainer.state.epoch, 0
            self._weights = copy.deepcopy(self.network.state_dict())
            return
        self._bad += 1
        if self.patience and self._bad >= self.patience and self._weights is not None:
            logger.info(f"no better {self.metric} than {self.best:.3f} (epoch {self.best_epoch}); training stops")
            trainer.terminate()

    def _restore(self, trainer: Engine) -> None:
        if self._weights is None:
            logger.warning(f"{self.metric} was never known, so the last weights stay: label validation patients")
            return
        self.network.load_state_dict(self._weights)


def _scores_and_labels(output: Any) -> tuple[Tensor, Tensor]:
    return output[CommonKeys.PRED].detach().float(), output[CommonKeys.LABEL]


def mean_auroc(scores: Tensor, labels: Tensor) -> float:
    """Mean AUROC of scores ``(N, K)`` against labels ``(N, K)``, as in `MeanAUROC`.

    Both may be ``(N,)`` too: ignite's `EpochMetric` drops the second dimension of a single finding.

    Raises:
        FloatingPointError: if a score is not finite: the weights, or what they make of these images, have blown up.
    """
    strange = int((~torch.isfinite(scores)).sum())
    if strange:
        raise FloatingPointError(
            f"{strange} of {scores.numel()} scores of validation images are not finite, so the network has diverged "
            "since its last step; lower the learning rate, or look at these images"
        )
    values = []
    columns = (values_of.cpu().reshape(len(values_of), -1).unbind(1) for values_of in (scores, labels))
    for score, label in zip(*columns, strict=True):
        known = (label == 0) | (label == 1)  # neither unknown nor smoothed
        if len(torch.unique(label[known])) == 2:
            values.append(roc_auc_score(label[known].numpy(), score[known].numpy()))
    return float(np.mean(values)) if values else float("nan")
