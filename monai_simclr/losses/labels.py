"""Binary cross-entropy of findings whose labels may be unknown, and the weight of their positives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def masked_bce(logits: Tensor, labels: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, averaged over the labels that are known.

    Args:
        logits: float, shape ``(B, F)``.
        labels: shape ``(B, F)``: 1 (present), 0 (absent), between them (the smoothed label of an uncertain finding) or
            NaN (unknown, ignored).
        pos_weight: shape ``(F,)``: how many times a present finding counts; None for once.

    Returns:
        A scalar in float32 (float64 for float64 logits); 0, with a gradient of zeros, when no label is known.

    Raises:
        ValueError: if the shapes differ or a label is neither within [0, 1] nor NaN.

    Example:
        >>> round(masked_bce(torch.tensor([[0.0, 9.0]]), torch.tensor([[1.0, float("nan")]])).item(), 4)
        0.6931
    """
    if logits.shape != labels.shape:
        raise ValueError(f"logits of shape {tuple(logits.shape)} do not fit labels of shape {tuple(labels.shape)}")
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    labels = labels.as_subclass(Tensor).to(logits.device, dtype)
    known = ~labels.isnan()
    invalid = known & ~((labels >= 0) & (labels <= 1))
    if invalid.any():
        raise ValueError(
            f"{int(invalid.sum())} labels are neither within [0, 1] nor NaN, the first is "
            f"{labels[invalid][0].item():g}; write unknown labels as NaN"
        )
    weight = None if pos_weight is None else pos_weight.to(logits.device, dtype)
    each = functional.binary_cross_entropy_with_logits(
        logits.as_subclass(Tensor).to(dtype), labels.nan_to_num(0.0), pos_weight=weight, reduction="none"
    )
    return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


class MaskedBCEWithLogits(nn.Module):
    """`masked_bce` as a module; `pos_weight` has shape ``(F,)``, or is a list of F numbers.

    Example:
        >>> MaskedBCEWithLogits()(torch.zeros(1, 2), torch.full((1, 2), float("nan"))).item()
        0.0
    """

    pos_weight: Tensor | None

    def __init__(self, pos_weight: Tensor | list[float] | None = None) -> None:
        super().__init__()
        weight = None if pos_weight is None else torch.as_tensor(pos_weight, dtype=torch.float32)
        self.register_buffer("pos_weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `masked_bce`."""
        return masked_bce(logits, labels, self.pos_weight)


def pos_weight(
    labels: Sequence[Sequence[float]] | np.ndarray, balance: str = "none", max_weight: float = 20.0
) -> list[float] | None:
    """Weight of a positive in the loss, per finding: negatives over positives of the labelled rows, within bounds.

    Args:
        labels: shape ``(N, K)``: 1 (present), 0 (absent) or NaN (unknown), of the training images.
        balance: "class_weights", or "none" or "balanced_sampling" for no weights.
        max_weight: bound of a weight, or a finding with one positive would drown all others.

    Raises:
        ValueError: for another name.
    """
    if balance not in ("none", "class_weights", "balanced_sampling"):
        raise ValueError(f"balance must be 'none', 'class_weights' or 'balanced_sampling', got {balance!r}")
    if balance != "class_weights":
        return None
    known = np.asarray(labels, dtype=float)
    positives, negatives = (known == 1).sum(axis=0), (known == 0).sum(axis=0)
    return list(np.clip(negatives / positives.clip(min=1), 1 / max_weight, max_weight).tolist())
