from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import ContrastiveLoss
from torch import Tensor

from monai_simclr import losses
from monai_simclr.losses import MaskedBCEWithLogits, NTXentLoss, masked_bce, nt_xent

MODES = ("exclude", "negative", "positive")


def slow_nt_xent(z: Tensor, ids: list[int], temperature: float, n_views: int, mode: str, decoupled: bool) -> Tensor:
    """The definition, pair by pair, in float64; autograd gives its gradient."""
    z = z / z.norm(dim=1, keepdim=True)
    images = len(z) // n_views
    total = z.new_zeros(())
    for i in range(len(z)):
        below, positives = [], []
        for j in range(len(z)):
            same_image, same_group = i % images == j % images, ids[i] == ids[j]
            positive = same_image or (mode == "positive" and same_group)
            dropped = (mode == "exclude" and same_group and not same_image) or (decoupled and positive)
            similarity = torch.dot(z[i], z[j]) / temperature
            if i != j and positive:
                positives.append(similarity)
            if i != j and not dropped:
                below.append(similarity)
        total = total + torch.logsumexp(torch.stack(below), 0) - torch.stack(positives).mean()
    return total / len(z)


def batch(images: int, width: int, n_views: int = 2, groups: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n_views * images, width, dtype=torch.float64, generator=generator)
    ids = torch.arange(images) if groups is None else torch.arange(images) % groups
    return z, ids.repeat(n_views)


def value_and_gradient(function, z: Tensor) -> tuple[float, Tensor]:
    z = z.clone().requires_grad_()
    loss = function(z)
    loss.backward()
    return loss.item(), z.grad


def assert_same(
    z: Tensor, ids: Tensor, temperature: float, n_views: int, mode: str, decoupled: bool, block: int
) -> None:
    want = value_and_gradient(lambda x: slow_nt_xent(x, ids.tolist(), temperature, n_views, mode, decoupled), z)
    got = value_and_gradient(
        lambda x: nt_xent(x, ids, temperature, n_views=n_views, same_group=mode, decoupled=decoupled, block=block),
        z,
    )
    assert got[0] == pytest.approx(want[0], rel=1e-9, abs=1e-9)
    torch.testing.assert_close(got[1], want[1], rtol=1e-7, atol=1e-9 * float(want[1].abs().max()) + 1e-12)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("n_views", "block"), [(2, 1024), (2, 5), (3, 7), (4, 1)])
def test_value_and_gradient_are_those_of_the_definition(mode: str, decoupled: bool, n_views: int, block: int) -> None:
    for temperature in (0.005, 0.1, 10.0):
        z, ids = batch(7, 6, n_views, groups=4)
        assert_same(z, ids, temperature, n_views, mode, decoupled, block)


@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(2, 16),
    width=st.integers(1, 128),
    temperature=st.floats(0.005, 10),
    block=st.integers(1, 40),
    mode=st.sampled_from(MODES),
    decoupled=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_shape_any_temperature_any_tile(images, width, temperature, block, mode, decoupled, seed) -> None:
    z, ids = batch(images, width, groups=max(2, images // 2), seed=seed)
    assert_same(z, ids, temperature, 2, mode, decoupled, block)


@pytest.mark.parametrize("images", [2, 3, 35])
def test_sizes_up_to_seventy_rows(images: int) -> None:
    z, ids = batch(images, 128)
    assert_same(z, ids, 0.1, 2, "exclude", False, 16)


@pytest.mark.slow
@pytest.mark.parametrize("images", [64, 150])
def test_hundreds_of_rows(images: int) -> None:
    z, ids = batch(images, 128, groups=images // 3)
    assert_same(z, ids, 0.05, 2, "exclude", False, 64)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_gradcheck(mode: str, temperature: float) -> None:
    z, ids = batch(5, 4, groups=3)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: nt_xent(x, ids, temperature, same_group=mode, block=4), (z,))


@pytest.mark.parametrize("temperature", [0.02, 0.1])
def test_tiles_computed_again_give_what_kept_tiles_give(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    z, ids = batch(12, 8, groups=5)
    kept = value_and_gradient(lambda x: nt_xent(x, ids, temperature, block=7), z)
    monkeypatch.setattr(losses, "_KEPT_BYTES", 0)
    again = value_and_gradient(lambda x: nt_xent(x, ids, temperature, block=7), z)
    assert kept[0] == again[0]
    torch.testing.assert_close(kept[1], again[1], rtol=1e-12, atol=1e-14)


def test_a_second_backward_pass_gives_the_same_gradient() -> None:
    z, ids = batch(6, 4)
    z.requires_grad_()
    loss = nt_xent(z, ids)
    first = torch.autograd.grad(loss, z, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], first, rtol=0, atol=0)


def test_the_value_of_monai_where_monai_is_valid() -> None:
    z, ids = batch(16, 32)
    for temperature in (0.1, 0.5, 2.0):
        want = ContrastiveLoss(temperature=temperature)(z[:16].float(), z[16:].float()).item()
        assert nt_xent(z.float(), ids, temperature).item() == pytest.approx(want, rel=1e-5)


def test_low_temperature_is_finite_where_monai_is_not() -> None:
    z, ids = batch(16, 32)
    z[16:] = z[:16]
    assert not math.isfinite(ContrastiveLoss(temperature=0.005)(z[:16].float(), z[16:].float()).item())
    value, gradient = value_and_gradient(lambda x: nt_xent(x, ids, 0.005), z.float())
    assert value == pytest.approx(slow_nt_xent(z, ids.tolist(), 0.005, 2, "exclude", False).item(), abs=1e-4)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_float32(dtype: torch.dtype) -> None:
    z, ids = batch(16, 32)
    rounded = z.to(dtype)
    value, gradient = value_and_gradient(lambda x: nt_xent(x, ids, 0.05), rounded)
    want = slow_nt_xent(rounded.double(), ids.tolist(), 0.05, 2, "exclude", False).item()
    assert value == pytest.approx(want, rel=1e-5)
    assert gradient.dtype == dtype


def test_autocast_changes_nothing() -> None:
    z, ids = batch(16, 32)
    plain = value_and_gradient(lambda x: nt_xent(x, ids, 0.05), z.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = value_and_gradient(lambda x: nt_xent(x, ids, 0.05), z.float())
    assert cast[0] == plain[0]
    torch.testing.assert_close(cast[1], plain[1], rtol=0, atol=0)


def test_order_of_images_and_of_views_and_scale_do_not_matter() -> None:
    z, ids = batch(9, 8, groups=6)
    want = nt_xent(z, ids).item()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([order, order + 9])
    assert nt_xent(z[rows], ids[rows]).item() == pytest.approx(want, rel=1e-12)
    assert nt_xent(z.roll(9, 0), ids).item() == pytest.approx(want, rel=1e-12)
    assert nt_xent(z * 37.0, ids).item() == pytest.approx(want, rel=1e-12)


def test_zero_projections_are_not_nan() -> None:
    value, gradient = value_and_gradient(lambda x: nt_xent(x, torch.tensor([0, 1, 0, 1])), torch.zeros(4, 3))
    assert value == pytest.approx(math.log(3))
    assert gradient.isfinite().all()


def test_labels_as_groups_pull_all_rows_of_a_label_together() -> None:
    z, ids = batch(8, 4, groups=2)
    apart, together = z, torch.eye(4, dtype=torch.float64)[ids]
    assert nt_xent(together, ids, same_group="positive").item() < nt_xent(apart, ids, same_group="positive").item()


def test_the_module_is_the_function_with_settings_inside() -> None:
    z, ids = batch(6, 4, n_views=3, groups=4)
    module = NTXentLoss(0.2, n_views=3, same_group="positive", decoupled=True)
    want = nt_xent(z, ids, 0.2, n_views=3, same_group="positive", decoupled=True)
    assert torch.equal(module(z, ids), want)
    assert repr(module) == (
        "NTXentLoss(temperature=0.2, n_views=3, same_group='positive', decoupled=True, gather=True)"
    )


IDS = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("z", "ids", "options", "message"),
    [
        (torch.ones(4, 2), IDS, {"temperature": 0.0}, "temperature must be above 0 and finite, got 0.0"),
        (torch.ones(4, 2), IDS, {"temperature": math.nan}, "temperature must be above 0 and finite, got nan"),
        (torch.ones(4, 2), IDS, {"n_views": 1}, "n_views must be at least 2, got 1"),
        (torch.ones(4, 2), IDS, {"same_group": "ignore"}, "one of exclude, negative, positive, got 'ignore'"),
        (torch.ones(4, 2), IDS, {"block": 0}, "block must be at least 1, got 0"),
        (torch.ones(4, 2), IDS, {"n_views": 3}, "4 projections cannot be 3 views of every image"),
        (torch.ones(4, 2), IDS[:3], {}, r"group_ids must be 4 integers, .* got torch.int64 \(3,\)"),
        (torch.ones(4, 2), IDS.float(), {}, "group_ids must be 4 integers, .* got torch.float32"),
        (torch.ones(4, 2, 2), IDS, {}, r"projections must be float, of shape .* \(4, 2, 2\)"),
        (torch.ones(2, 2), IDS[:2] * 0, {}, "at least two images, got 1"),
        (torch.ones(0, 2), IDS[:0], {}, "at least two images, got 0"),
        (torch.tensor([[1.0], [math.nan], [1.0], [math.inf]]), IDS, {}, "2 of 4 projections are not finite"),
        (torch.ones(4, 2), torch.tensor([0, 1, 2, 3]), {}, "views of one image have different group_ids"),
        (torch.ones(4, 2), torch.full((4,), 7), {}, "all images of the batch belong to group 7"),
        (
            torch.ones(4, 2),
            torch.full((4,), 7),
            {"same_group": "positive", "decoupled": True},
            "all images of the batch belong to group 7",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(z: Tensor, ids: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nt_xent(z, ids, **options)


def test_the_module_refuses_its_settings_when_built() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        NTXentLoss(temperature=-1)


def test_unknown_labels_neither_count_nor_pull() -> None:
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


def test_a_batch_without_known_labels_costs_nothing_and_can_go_backward() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = masked_bce(logits, torch.full((2, 3), math.nan))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def test_pos_weight_counts_present_findings_more() -> None:
    logits, labels = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    loss = MaskedBCEWithLogits([3.0, 5.0])(logits, labels)
    assert loss.item() == pytest.approx((3 * math.log(2) + math.log(2)) / 2)


def test_labels_that_are_no_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 labels are none of 0, 1 and NaN, the first is -1"):
        masked_bce(torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]))
    with pytest.raises(ValueError, match=r"logits of shape \(1, 2\) do not go with labels of shape \(1, 3\)"):
        masked_bce(torch.zeros(1, 2), torch.zeros(1, 3))
