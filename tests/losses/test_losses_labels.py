"""Binary cross-entropy that leaves unknown labels out."""

from __future__ import annotations

import math

import pytest
import torch

from monai_simclr.losses import MaskedBCEWithLogits, masked_bce


def test_unknown_labels_add_neither_loss_nor_gradient() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = (torch.arange(15).reshape(5, 3) % 2).float()
    labels[0, 1] = labels[3, 2] = math.nan
    known = ~labels.isnan()
    loss = masked_bce(logits, labels)
    want = torch.nn.functional.binary_cross_entropy_with_logits(logits[known], labels[known])
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    loss.backward()
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).all()


def test_a_batch_without_known_labels_has_loss_zero_and_a_backward_pass() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = masked_bce(logits, torch.full((2, 3), math.nan))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def test_pos_weight_counts_present_findings_more() -> None:
    logits, labels = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    loss = MaskedBCEWithLogits([3.0, 5.0])(logits, labels)
    assert loss.item() == pytest.approx((3 * math.log(2) + math.log(2)) / 2)


def test_a_smoothed_label_pulls_towards_its_probability() -> None:
    """Read with uncertain='smoothed', an uncertain finding is 0.7: the loss is least at a probability of 0.7."""
    logits = torch.tensor([[math.log(0.7 / 0.3)]], requires_grad=True)
    loss = masked_bce(logits, torch.tensor([[0.7]]))
    loss.backward()
    assert loss.item() == pytest.approx(-(0.7 * math.log(0.7) + 0.3 * math.log(0.3)), rel=1e-6)
    assert logits.grad.abs().item() < 1e-6


def test_invalid_labels_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 labels are neither within \[0, 1\] nor NaN, the first is -1"):
        masked_bce(torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]))
    with pytest.raises(ValueError, match=r"1 labels are neither within \[0, 1\] nor NaN, the first is inf"):
        masked_bce(torch.zeros(1, 2), torch.tensor([[0.7, math.inf]]))
    with pytest.raises(ValueError, match=r"logits of shape \(1, 2\) do not fit labels of shape \(1, 3\)"):
        masked_bce(torch.zeros(1, 2), torch.zeros(1, 3))
