from __future__ import annotations

import logging
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from monai_simclr.optimizers import LARS, Scaling, make_optimizer, parameter_groups, scaled_learning_rate, warmup_cosine

RATE, MOMENTUM, TRUST = 0.5, 0.9, 0.01


def slow_lars(weight: np.ndarray, gradients: np.ndarray, weight_decay: float, adapt: bool) -> np.ndarray:
    """Algorithm 1 of You et al. 2017, one weight, one step after the other."""
    velocity = np.zeros_like(weight)
    for gradient in gradients:
        rate = RATE
        length, slope = np.linalg.norm(weight), np.linalg.norm(gradient)
        if adapt and length > 0 and slope > 0:
            rate = RATE * TRUST * length / (slope + weight_decay * length)
        velocity = MOMENTUM * velocity + rate * (gradient + weight_decay * weight)
        weight = weight - velocity
    return weight


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-6, 0.1])
def test_lars_is_algorithm_1(weight_decay: float, adapt: bool) -> None:
    random = np.random.default_rng(0)
    starts = [random.normal(size=shape) for shape in [(3, 4), (5,), (2, 3, 2)]]
    starts.append(np.zeros((2, 2)))
    weights = [nn.Parameter(torch.tensor(start)) for start in starts]
    gradients = [random.normal(size=(6, *start.shape)) for start in starts]
    gradients[1][2] = 0.0
    lars = LARS([{"params": weights, "adapt": adapt}], RATE, MOMENTUM, weight_decay, TRUST)
    for number in range(6):
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = torch.tensor(gradient[number])
        lars.step()
    for start, gradient, weight in zip(starts, gradients, weights, strict=True):
        np.testing.assert_allclose(
            weight.detach().numpy(), slow_lars(start, gradient, weight_decay, adapt), rtol=1e-12, atol=1e-12
        )


def test_lars_without_decay_still_adapts() -> None:
    moved = []
    for weight_decay in (0.0, 1e-9):
        weight = nn.Parameter(torch.ones(4))
        weight.grad = torch.full((4,), 1000.0)
        LARS([weight], 1.0, weight_decay=weight_decay).step()
        moved.append(float((1 - weight.detach()).norm()))
    assert moved == pytest.approx([0.002, 0.002], rel=1e-4)


def test_lars_leaves_gradients_and_frozen_weights_alone() -> None:
    weight, idle = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.full((2, 2), 3.0)
    LARS([weight, idle], 1.0, weight_decay=0.1).step()
    assert torch.equal(weight.grad, torch.full((2, 2), 3.0))
    assert torch.equal(idle.detach(), torch.ones(2, 2))


def test_lars_continues_from_its_state() -> None:
    def take(steps: int, weight: nn.Parameter, lars: LARS) -> None:
        for _ in range(steps):
            weight.grad = weight.detach().cos()
            lars.step()

    whole = nn.Parameter(torch.arange(6.0).reshape(2, 3))
    take(4, whole, LARS([whole], 1.0))
    first = nn.Parameter(torch.arange(6.0).reshape(2, 3))
    before = LARS([first], 1.0)
    take(2, first, before)
    second = nn.Parameter(first.detach().clone())
    after = LARS([second], 1.0)
    after.load_state_dict(before.state_dict())
    take(2, second, after)
    assert torch.equal(whole, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, got -1.0"),
        ({"trust_coefficient": 0.0}, "trust_coefficient must be above 0, got 0.0"),
    ],
)
def test_lars_refuses_settings_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LARS([nn.Parameter(torch.ones(1))], **{"lr": 1.0, **options})


def test_biases_and_norms_have_neither_decay_nor_adaptation() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    module[2].weight.requires_grad_(False)
    weights, others = parameter_groups(module, 0.1)
    assert [parameter.ndim for parameter in weights["params"]] == [4]
    assert [parameter.ndim for parameter in others["params"]] == [1, 1, 1, 1]
    assert (weights["weight_decay"], weights["adapt"]) == (0.1, True)
    assert (others["weight_decay"], others["adapt"]) == (0.0, False)


@pytest.mark.parametrize("name", ["adamw", "lars", "sgd"])
def test_every_optimizer_by_name_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    module, images = nn.Linear(4, 1), torch.randn(64, 4)
    optimizer = make_optimizer(name, module, 0.05, 1e-4)
    values = []
    for _ in range(30):
        loss = (module(images) - images.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0]
    assert optimizer.param_groups[0]["weight_decay"] == 1e-4


def test_lars_reads_nothing_back_from_the_device() -> None:
    with FakeTensorMode():  # tensors without values: asking for one is an error
        weights = [nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(5, 2))]
        lars = LARS(weights, 1.0, weight_decay=0.1)
        for _ in range(2):
            for weight in weights:
                weight.grad = torch.ones_like(weight)
            lars.step()
        with pytest.raises(DataDependentOutputException):
            weights[0].sum().item()


@pytest.mark.parametrize(
    ("scaling", "rate", "said"),
    [
        ("none", 0.075, "learning rate 0.075;"),
        ("sqrt", 1.2, "learning rate 1.2 = 0.075 * sqrt(256);"),
        ("linear", 0.075, "learning rate 0.075 = 0.075 * 256 / 256;"),
    ],
)
def test_the_rate_and_where_it_comes_from_are_said_at_the_start(
    scaling: Scaling, rate: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "monai_simclr"):
        optimizer = make_optimizer("lars", nn.Linear(2, 2), 0.075, 1e-6, batch_size=256, scaling=scaling)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, rate])
    assert said in caplog.text
    assert "weight decay 1e-06 on 1 of 2 tensors, none on biases and norms" in caplog.text


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_fused_step_is_the_step_of_the_loop(name: str) -> None:
    plain = {"adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True)}[name]
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    twin = deepcopy(module)
    optimizers = [(module, make_optimizer(name, module, 0.1, 0.01)), (twin, plain(parameter_groups(twin, 0.01), 0.1))]
    for _ in range(5):
        for network, optimizer in optimizers:
            for number, weight in enumerate(network.parameters()):
                weight.grad = weight.detach().cos() * (number + 1)
            optimizer.step()
    for mine, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_unknown_names_and_frozen_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="no optimizer 'adam'; choose 'adamw', 'lars' or 'sgd'"):
        make_optimizer("adam", nn.Linear(1, 1), 0.1)
    with pytest.raises(ValueError, match="no parameter of Linear requires a gradient"):
        parameter_groups(nn.Linear(1, 1).requires_grad_(False), 0.1)


def test_learning_rates_of_the_simclr_paper() -> None:
    assert scaled_learning_rate(0.075, 4096) == pytest.approx(4.8)
    assert scaled_learning_rate(0.3, 4096, "linear") == pytest.approx(4.8)
    assert scaled_learning_rate(0.3, 0, "none") == 0.3
    with pytest.raises(ValueError, match="no rule 'cubic'; choose 'none', 'sqrt' or 'linear'"):
        scaled_learning_rate(0.3, 4096, "cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        scaled_learning_rate(0.3, 0)


def test_the_rate_rises_then_falls_to_zero() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 2.0)
    schedule = warmup_cosine(optimizer, 4, 12)
    rates = []
    for _ in range(14):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[8] == pytest.approx(1.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[12:] == pytest.approx([0.0, 0.0])
