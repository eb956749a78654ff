"""Scores on validation patients during training; scores to report come from `monai_simclr.evaluation`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from ignite.metrics import EpochMetric
from monai.engines import Evaluator
from monai.engines.utils import CommonKeys
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from monai_simclr.evaluation.neighbors import knn_scores
from monai_simclr.evaluation.predictions import certain_labels
from monai_simclr.evaluation.probe import fit_probe
from monai_simclr.handlers.base import History
from monai_simclr.runtime.distributed import is_main_process

logger = logging.getLogger("monai_simclr.training")


class MeanAUROC(EpochMetric):
    """Mean AUROC of the findings that have a positive and a negative, over known labels; NaN if none has.

    MONAI's `ROCAUC` knows no unknown labels.
    """

    def __init__(self) -> None:
        super().__init__(
            mean_auroc,
            output_transform=lambda output: (output[CommonKeys.PRED].detach().float(), output[CommonKeys.LABEL]),
            check_compute_fn=False,
        )


class EarlyStopping:
    """Stop when the validation score stops improving, and restore the best weights.

    Attach it to the trainer after its `ValidationHandler`. The last epoch is validated too, whatever that handler's
    interval, so that no training is thrown away unseen. Of equal scores the earlier epoch is the best; the start is
    epoch 0, where the `ValidationHandler` has ``exec_at_start``. Where validation cannot be scored (no finding has both
    labels) or never ran, the last weights are kept, with a warning.

    Args:
        validator: the evaluator that the trainer's `ValidationHandler` runs, of MONAI.
        network: whose weights.
        patience: number of validations without improvement after which training stops; 0 never stops it.
        metric: of the validator, higher is better.
        restore_best: whether the network ends with the weights of its best epoch, or the last.

    The score goes to the trainer's ``state.metrics`` too, where TensorBoard and MLflow read it.

    Attributes:
        best: the best score, in epoch `best_epoch`.
    """

    def __init__(
        self,
        validator: Evaluator,
        network: nn.Module,
        patience: int = 0,
        metric: str = "val_mean_auroc",
        restore_best: bool = True,
    ) -> None:
        self.validator, self.network, self.patience, self.metric = validator, network, patience, metric
        self.restore_best = restore_best
        self.best, self.best_epoch, self._stale = float("-inf"), 0, 0
        self._weights: dict[str, Any] = {}
        self._validated, self._validations = False, 0

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        self.validator.add_event_handler(Events.COMPLETED, lambda: setattr(self, "_validated", True))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validate_last)
        engine.add_event_handler(Events.STARTED | Events.EPOCH_COMPLETED, self._compare)
        engine.add_event_handler(Events.COMPLETED, self._restore)

    def _validate_last(self, trainer: Engine) -> None:
        if trainer.state.epoch == trainer.state.max_epochs and not self._validated:
            self.validator.run(trainer.state.epoch)

    def _compare(self, trainer: Engine) -> None:
        if not self._validated:
            return
        self._validated, self._validations = False, self._validations + 1
        score = float(self.validator.state.metrics.get(self.metric, float("nan")))
        trainer.state.metrics[self.metric] = score  # so that what tracks the trainer has it, at this epoch
        if score > self.best:
            self.best, self.best_epoch, self._stale = score, trainer.state.epoch, 0
            self._weights = copy.deepcopy(self.network.state_dict()) if self.restore_best else {}
            return
        self._stale += 1
        if self.patience and self._stale >= self.patience and self._is_known:
            logger.info(f"no better {self.metric} than {self.best:.3f} (epoch {self.best_epoch}); training stops")
            trainer.terminate()

    @property
    def _is_known(self) -> bool:
        return self.best > float("-inf")

    def _restore(self, trainer: Engine) -> None:
        if not self._validations:
            logger.warning(
                f"nothing was validated until training ended in epoch {trainer.state.epoch}, so the last weights are "
                "kept; validation needs patients of the split val, and a first epoch that ends"
            )
        elif not self._is_known:
            logger.warning(
                f"{self.metric} was never known, as no finding has both a positive and a negative validation image, so "
                "the last weights are kept; label validation patients"
            )
        elif self.restore_best:
            self.network.load_state_dict(self._weights)
            if self.best_epoch == 0:
                logger.info(f"no epoch had a better {self.metric} than the start ({self.best:.3f}), which is restored")


class LinearProbe(History):
    """Every k epochs, what frozen features tell of the findings: fitted on train and scored on val patients.

    Two readings: a logistic regression per finding, and the labels of the 20 nearest train images (`knn_scores`).

    Val patients are held out from the probe; pretraining sees their images, without labels, unless its `splits`
    exclude them. Test patients are never used. The mean AUROCs go to ``engine.state.metrics`` as "probe_auroc" and
    "knn_auroc".

    Args:
        features: maps row numbers ``(n,)`` to features ``(n, D)``.
        index: image index with `split` and the findings.
        findings: columns of the index, where a smoothed label counts as unknown; without any, or without rows of train
            and val, there is no probe.
        every: epochs between two probes; 0 for none.
        max_rows: of each split, evenly spaced, so that a probe takes seconds.

    Attributes:
        history: one dict per probe: `epoch`, `probe_auroc` and `knn_auroc`.
    """

    def __init__(
        self,
        features: Callable[[np.ndarray], np.ndarray],
        index: pd.DataFrame,
        findings: Sequence[str],
        every: int = 10,
        max_rows: int = 2000,
    ) -> None:
        self.features, self.every = features, every
        labels = certain_labels(index[list(findings)].to_numpy(dtype=float))
        known, split = np.isfinite(labels).any(axis=1), index["split"].to_numpy()
        rows = [np.flatnonzero(known & (split == name)) for name in ("train", "val")]
        self.rows = [
            part if len(part) <= max_rows else part[np.linspace(0, len(part) - 1, max_rows).astype(int)]
            for part in rows
        ]
        self.labels = [labels[part] for part in self.rows]
        self.history: list[dict[str, float]] = []

    def attach(self, engine: Engine) -> None:
        """Register on a trainer, before what shows its numbers."""
        if self.every and all(len(rows) for rows in self.rows) and is_main_process():
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)

    def __call__(self, engine: Engine) -> None:
        train, val = (self.features(rows) for rows in self.rows)
        near = knn_scores(train, self.labels[0], val)
        scaler = StandardScaler().fit(train)
        train, val = scaler.transform(train), scaler.transform(val)
        logits = np.stack([fit_probe(train, labels).logits(val) for labels in self.labels[0].T], axis=1)
        known = torch.from_numpy(self.labels[1])
        aurocs = {
            f"{name}_auroc": mean_auroc(torch.from_numpy(s), known) for name, s in (("probe", logits), ("knn", near))
        }
        self.history.append({"epoch": float(engine.state.epoch), **aurocs})
        engine.state.metrics.update(aurocs)
        logger.info(
            f"epoch {engine.state.epoch}: mean AUROC {aurocs['probe_auroc']:.3f} of a linear probe, "
            f"{aurocs['knn_auroc']:.3f} of 20 neighbors, on {len(val)} images of val patients (chance 0.5)"
        )


def mean_auroc(scores: Tensor, labels: Tensor) -> float:
    """Mean AUROC of scores ``(N, K)`` against labels ``(N, K)``, as in `MeanAUROC`.

    Both may be ``(N,)`` too: ignite's `EpochMetric` drops the second dimension of a single finding.

    Raises:
        FloatingPointError: if a score is not finite: the network has diverged.
    """
    strange = int((~torch.isfinite(scores)).sum())
    if strange:
        raise FloatingPointError(
            f"{strange} of {scores.numel()} scores of validation images are not finite, so the network has diverged "
            "since its last step; lower the learning rate, or look at these images"
        )
    aurocs = []
    columns = (values.cpu().numpy().reshape(len(values), -1).T for values in (scores, labels))
    for score, label in zip(*columns, strict=True):
        known = (label == 0) | (label == 1)  # neither unknown nor smoothed
        if len(np.unique(label[known])) == 2:
            aurocs.append(roc_auc_score(label[known], score[known]))
    return float(np.mean(aurocs)) if aurocs else float("nan")
