"""The options of NT-Xent, the module around it, and what both refuse."""

from __future__ import annotations

import math

import pytest
import torch
from nt_xent_oracles import MODES, batch, pair_by_pair, value_and_gradient
from torch import Tensor

from monai_simclr.losses import CosineTemperature, NTXentLoss, nt_xent


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("temperature", [0.01, 0.3])
def test_images_of_a_patient_are_excluded_unless_they_are_positives(
    mode: str, decoupled: bool, temperature: float
) -> None:
    studies, patients = torch.tensor([0, 0, 1, 2, 3, 4, 4]), torch.tensor([0, 0, 0, 1, 1, 2, 3])
    z, _ = batch(7, 5)
    ids, owners = studies.repeat(2), patients.repeat(2)
    want = value_and_gradient(
        lambda x: pair_by_pair(x, ids.tolist(), temperature, 2, mode, decoupled, owners.tolist()), z
    )
    got = value_and_gradient(
        lambda x: nt_xent(x, ids, temperature, patient_ids=owners, same_group=mode, decoupled=decoupled, block=5), z
    )
    assert got[0] == pytest.approx(want[0], rel=1e-9)
    torch.testing.assert_close(got[1], want[1], rtol=1e-7, atol=1e-9)


def test_group_and_patient_ids_may_be_stacked_in_one_tensor() -> None:
    z, ids = batch(6, 4, groups=5)
    owners = torch.tensor([0, 1, 1, 2, 3, 4]).repeat(2)
    want = nt_xent(z, ids, 0.1, patient_ids=owners)
    assert torch.equal(NTXentLoss(0.1)(z, torch.stack([ids, owners])), want)
    assert torch.equal(NTXentLoss(0.1)(z, ids, owners), want)
    assert not torch.equal(nt_xent(z, ids, 0.1), want)


def test_the_temperature_follows_the_training_step() -> None:
    z, ids = batch(6, 4)
    schedule = CosineTemperature(0.1, 1.0, period=4)
    module = NTXentLoss(schedule)
    for step in (1, 2, 3):
        assert torch.equal(module(z, ids), nt_xent(z, ids, schedule(step)))
    assert torch.equal(module.eval()(z, ids), nt_xent(z, ids, schedule(3)))
    module.train().step = 7
    assert torch.equal(module(z, ids), nt_xent(z, ids, schedule(8)))


def test_the_step_is_saved_in_the_state_dict() -> None:
    z, ids = batch(3, 4)
    module, other = NTXentLoss(), NTXentLoss()
    module(z, ids)
    other.load_state_dict(module.state_dict())
    assert other.step == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0, 10), "temperatures must be above 0, .* got 0.0 and 1.0"),
        ((1.0, 0.1, 10), "the low one not above the high one, got 1.0 and 0.1"),
        ((0.1, 1.0, 0), "period must be above 0 steps, got 0"),
    ],
)
def test_a_schedule_out_of_range_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CosineTemperature(*arguments)


@pytest.mark.parametrize("patients", [None, torch.tensor([5, 5, 6, 5, 5, 6])])
def test_decoupling_without_a_negative_is_refused(patients: Tensor | None) -> None:
    ids = torch.tensor([0, 1, 0, 0, 1, 0])
    if patients is None:
        assert nt_xent(torch.eye(6), ids, decoupled=True).isfinite()
        return
    with pytest.raises(ValueError, match="2 of 6 projections have no negative: all other images are of their group"):
        nt_xent(torch.eye(6), ids, patient_ids=patients, decoupled=True)


def test_a_projection_that_is_not_finite_is_reported_with_the_step() -> None:
    module = NTXentLoss()
    module(torch.eye(4), IDS)
    with pytest.raises(FloatingPointError, match="step 2: 2 of 4 projections are not finite; lower the learning rate"):
        module(torch.tensor([[1.0], [math.nan], [1.0], [math.inf]]), IDS)


IDS = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("z", "ids", "options", "message"),
    [
        (torch.ones(4, 2), IDS, {"temperature": 0.0}, "temperature must be above 0 and finite, got 0.0"),
        (torch.ones(4, 2), IDS, {"temperature": math.nan}, "temperature must be above 0 and finite, got nan"),
        (torch.ones(4, 2), IDS, {"n_views": 1}, "n_views must be at least 2, got 1"),
        (torch.ones(4, 2), IDS, {"same_group": "ignore"}, "one of exclude, negative, positive, got 'ignore'"),
        (torch.ones(4, 2), IDS, {"block": -1}, "block must be at least 1, .* got -1"),
        (torch.ones(4, 2), IDS, {"n_views": 3}, "4 projections cannot be 3 views of every image"),
        (torch.ones(4, 2), IDS[:3], {}, r"group_ids must be 4 integers, .* got torch.int64 \(3,\)"),
        (torch.ones(4, 2), IDS.float(), {}, "group_ids must be 4 integers, .* got torch.float32"),
        (torch.ones(4, 2, 2), IDS, {}, r"projections must be float, of shape .* \(4, 2, 2\)"),
        (torch.ones(2, 2), IDS[:2] * 0, {}, "at least two images, got 1"),
        (torch.ones(0, 2), IDS[:0], {}, "at least two images, got 0"),
        (torch.ones(4, 2), IDS, {"patient_ids": IDS[:2]}, r"patient_ids must be 4 integers, .* \(2,\)"),
        (torch.ones(4, 2), IDS, {"patient_ids": torch.arange(4)}, "views of one image have different patient_ids"),
        (torch.ones(4, 2), IDS, {"patient_ids": IDS * 0 + 3}, "all images of the batch belong to patient 3"),
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
def test_invalid_arguments_are_refused(z: Tensor, ids: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nt_xent(z, ids, **options)


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


def test_the_module_checks_its_settings_on_construction() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        NTXentLoss(temperature=-1)
