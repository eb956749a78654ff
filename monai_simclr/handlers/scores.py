"""Validation scores inside a run; what is reported at the end comes from `monai_simclr.evaluation`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ignite.metrics import EpochMetric
from monai.engines.utils import CommonKeys
from sklearn.metrics import roc_auc_score
from torch import Tensor

__all__ = ["MeanAUROC", "mean_auroc"]


class MeanAUROC(EpochMetric):
    """Mean AUROC over the findings that have a positive and a negative, of known labels; NaN if none has."""

    def __init__(self) -> None:
        super().__init__(mean_auroc, output_transform=_scores_and_labels, check_compute_fn=False)


def _scores_and_labels(output: Any) -> tuple[Tensor, Tensor]:
    return output[CommonKeys.PRED].detach().float(), output[CommonKeys.LABEL]


def mean_auroc(scores: Tensor, labels: Tensor) -> float:
    """Mean AUROC of scores ``(N, K)`` against labels ``(N, K)``, as in `MeanAUROC`."""
    values = []
    for score, label in zip(scores.cpu().T, labels.cpu().T, strict=True):
        known = ~torch.isnan(label)
        if len(torch.unique(label[known])) == 2:
            values.append(roc_auc_score(label[known].numpy(), score[known].numpy()))
    return float(np.mean(values)) if values else float("nan")
