"""Handlers of a run: warnings where something is wrong and none otherwise, numbers where MONAI looks for them."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardStatsHandler, from_engine
from torch import nn

from monai_simclr.engines import ContrastiveTrainer
from monai_simclr.handlers import (
    ClipGradNorm,
    ContrastiveMonitor,
    Progress,
    SeedEachStep,
    SkipUnreadable,
    TerminateOnNonFinite,
)
from monai_simclr.handlers.guard import grad_norm
from monai_simclr.handlers.monitor import effective_rank, neighbors, spread
from monai_simclr.losses import NTXentLoss


def _batch(n: int = 16) -> dict[str, torch.Tensor]:
    noise = torch.rand(2, n, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return {"image_1": noise[0], "image_2": noise[0] + 0.1 * noise[1], "row": torch.arange(n)}


def _run(
    network: nn.Module, handlers: list, loss: nn.Module | None = None, epochs: int = 2, data: object = None, **settings
):
    trainer = ContrastiveTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=data or [_batch(), _batch()],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.01),
        loss_function=loss or NTXentLoss(0.5),
        train_handlers=handlers,
        **settings,
    )
    trainer.run()
    return trainer


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 16))


class _Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.ones(8))

    def forward(self, images):
        return self.point + 1e-4 * images.flatten(1)[:, :8]


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_good_run_logs_no_warning(caplog):
    _run(_network(), [ContrastiveMonitor(), Progress()])
    assert _warnings(caplog) == []


def test_a_collapse_is_warned_about(caplog):
    _run(_Constant(), [ContrastiveMonitor()], epochs=1)
    assert _warnings(caplog)[0].startswith("epoch 1: the embeddings have collapsed: effective rank 1.")
    assert "lower the learning rate or raise the temperature" in caplog.text


class _Large(NTXentLoss):
    def forward(self, projections, ids):
        return 10 * super().forward(projections, ids)


def test_a_loss_above_chance_is_warned_about(caplog):
    _run(_network(), [ContrastiveMonitor()], loss=_Large(0.5), epochs=1)
    assert "the loss diverges: " in caplog.text
    assert "where a network that cannot tell images apart has 3.43; lower the learning rate" in caplog.text


class _Slow:
    def __len__(self) -> int:
        return 2

    def __iter__(self):
        for _ in range(2):
            time.sleep(0.1)
            yield _batch()


def test_waiting_for_data_is_measured_and_warned_about_once(caplog):
    progress = Progress()
    _run(_network(), [progress], data=_Slow())
    assert all(record["data_share"] > 0.5 for record in progress.history)
    assert caplog.text.count("of the time went into waiting for data; raise --num_workers") == 1


def test_numbers_of_neighbors_are_those_of_a_slow_loop():
    z = nn.functional.normalize(torch.randn(12, 5, generator=torch.Generator().manual_seed(1)), dim=1).double()
    found, right, pulls, pushes = neighbors(z), 0, [], []
    for i in range(12):
        partner = (i + 6) % 12
        distances = [float((z[i] - z[j]).square().sum()) if j != i else 99.0 for j in range(12)]
        right += int(np.argmin(distances)) == partner
        pulls.append(distances[partner])
        pushes += [np.exp(-2 * distance) for j, distance in enumerate(distances) if j != i]
    assert found["top1"] == pytest.approx(right / 12)
    assert found["chance"] == 1 / 11
    assert found["alignment"] == pytest.approx(np.mean(pulls))
    assert found["uniformity"] == pytest.approx(np.log(np.mean(pushes)))


def test_the_effective_rank_of_equal_directions_is_their_number():
    assert effective_rank(torch.eye(6)[:4].repeat(3, 1)) == pytest.approx(4, abs=1e-4)


def test_spread_goes_from_a_point_to_all_directions():
    assert spread(torch.ones(9, 4) / 2) == pytest.approx(0, abs=1e-3)
    assert spread(torch.cat([torch.eye(4), -torch.eye(4)])) == 1


def test_the_monitor_reads_the_encoder_where_it_is_given():
    network = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(16, 12)), nn.Linear(12, 2))
    with_encoder, without = ContrastiveMonitor(network[0]), ContrastiveMonitor()
    _run(network, [with_encoder, without], epochs=1)
    assert with_encoder.history[0]["effective_rank"] > 2 >= without.history[0]["effective_rank"]
    assert not network[0]._forward_hooks, "the hook stayed"


def test_the_monitor_reads_the_encoder_of_a_compiled_network_too():
    """A hook that came after the first step was not compiled in, and the monitor watched projections instead."""
    seen = []
    for settings in ({}, {"compile": True, "compile_kwargs": {"backend": "eager"}}):
        torch._dynamo.reset()
        torch.manual_seed(0)
        network = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(16, 12)), nn.Linear(12, 2))
        monitor = ContrastiveMonitor(network[0])
        _run(network, [monitor], **settings)
        seen.append([(row["effective_rank"], row["spread"]) for row in monitor.history])
        assert not network[0]._forward_hooks
    assert seen[0][0][0] > 2, "two numbers, as projections have here, have no more than rank 2"
    np.testing.assert_allclose(seen[1], seen[0], rtol=1e-5)


def test_the_monitor_neither_swallows_an_error_nor_leaves_its_hook_after_one():
    class Fails(NTXentLoss):
        def forward(self, projections, ids):
            raise KeyError("on purpose")

    network = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(16, 12)), nn.Linear(12, 2))
    with pytest.raises(KeyError, match="on purpose"):
        _run(network, [ContrastiveMonitor(network[0])], loss=Fails(0.5))
    assert not network[0]._forward_hooks


def test_an_encoder_whose_output_is_not_seen_is_not_mistaken_for_projections(caplog):
    monitor = ContrastiveMonitor(nn.Linear(16, 12))  # it is not in the network
    with caplog.at_level(logging.WARNING, "monai_simclr.training"):
        _run(_network(), [monitor], epochs=1)
    assert np.isnan([monitor.history[0]["effective_rank"], monitor.history[0]["spread"]]).all()
    assert "the encoder's output was not seen, so its effective rank and spread are unknown" in caplog.text


def test_the_monitor_reads_training_steps_and_not_a_probes_embeddings():
    network = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(16, 12)), nn.Linear(12, 2))
    monitor = ContrastiveMonitor(network[0])
    trainer = ContrastiveTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[_batch(), _batch()],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.01),
        loss_function=NTXentLoss(0.5),
    )

    def probe() -> None:
        network.eval()
        network(torch.zeros(5, 1, 4, 4))
        network.train()

    trainer.add_event_handler(Events.EPOCH_COMPLETED, probe)
    monitor.attach(trainer)
    trainer.run()
    assert monitor.history[0]["spread"] > 0.01


def test_tensorboard_gets_loss_and_monitors_through_monais_handler(tmp_path):
    board = TensorBoardStatsHandler(
        log_dir=str(tmp_path), tag_name="train_loss", output_transform=from_engine(["loss"], first=True)
    )
    _run(_network(), [ContrastiveMonitor(), Progress(), board])
    board.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train_loss", "loss", "top1", "chance", "alignment", "uniformity", "effective_rank", "spread"} <= tags
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("top1")] == [1, 2]


@pytest.mark.slow
def test_mlflow_gets_loss_and_monitors_through_monais_handler(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy", reason="mlflow keeps its runs in SQLite, through sqlalchemy; see setup.cfg")
    pytest.importorskip("alembic")
    from monai.handlers import MLFlowHandler
    from monai.utils import path_to_sqlite_uri

    monkeypatch.chdir(tmp_path)
    flow = MLFlowHandler(
        path_to_sqlite_uri(str(tmp_path / "runs.db")),
        tag_name="train_loss",
        output_transform=from_engine(["loss"], first=True),
        close_on_complete=True,
    )
    client = flow.client
    _run(_network(), [ContrastiveMonitor(), Progress(), flow])
    experiment = client.get_experiment_by_name("monai_experiment")
    metrics = client.search_runs([experiment.experiment_id])[0].data.metrics
    assert {"train_loss", "loss", "top1", "uniformity", "images_per_second"} <= set(metrics)


def _damaged(engine: Engine) -> None:
    engine.state.batch["damaged_row"] = torch.tensor([-1, engine.state.iteration] + [-1] * 14)
    engine.state.batch["damage"] = ["", "is not whole"] + [""] * 14


def test_damaged_images_are_counted_listed_and_warned_about(tmp_path: Path, caplog):
    handler = SkipUnreadable(tmp_path / "damaged.csv", images=100, max_share=0.05)
    trainer = ContrastiveTrainer(
        torch.device("cpu"), 1, [_batch()] * 3, _network(), torch.optim.SGD(_network().parameters(), 0.1), NTXentLoss()
    )
    trainer.add_event_handler(Events.ITERATION_STARTED, _damaged)
    handler.attach(trainer)
    trainer.run()
    rows = list(csv.DictReader((tmp_path / "damaged.csv").read_text().splitlines()))
    assert rows == [{"row": str(row), "reason": "is not whole"} for row in (1, 2, 3)]
    assert "3 of 100 images could not be used, the first is row 1: is not whole; others are drawn" in caplog.text


def test_too_many_damaged_images_end_the_run(tmp_path: Path):
    handler = SkipUnreadable(tmp_path / "damaged.csv", images=100, max_share=0.015)
    trainer = ContrastiveTrainer(
        torch.device("cpu"), 1, [_batch()] * 3, _network(), torch.optim.SGD(_network().parameters(), 0.1), NTXentLoss()
    )
    trainer.add_event_handler(Events.ITERATION_STARTED, _damaged)
    handler.attach(trainer)
    with pytest.raises(ValueError, match=r"2 of 100 images could not be used, .*; more than 2% are damaged; see "):
        trainer.run()


def test_gradients_are_clipped_to_the_norm_and_no_further():
    lengths = []
    network = _network()

    class _Read:
        def attach(self, engine: Engine) -> None:
            from monai.engines.utils import IterationEvents

            read = IterationEvents.BACKWARD_COMPLETED
            engine.add_event_handler(read, lambda engine: lengths.append(float(grad_norm(network))))

    _run(network, [_Read(), ClipGradNorm(0.01), _Read(), ClipGradNorm(100.0), _Read()], epochs=1)
    before, clipped, untouched = lengths[:3]
    assert before > 0.01
    assert clipped == pytest.approx(0.01, rel=1e-3)
    assert untouched == clipped


def test_clipping_to_nothing_is_refused():
    with pytest.raises(ValueError, match="max_norm must be above 0, got 0"):
        ClipGradNorm(0)


class _InfiniteSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sum() * 0

    @staticmethod
    def backward(ctx, grad):
        return torch.full((32, 16), float("inf"))


class _Sly(nn.Module):
    """A finite loss with gradients that are not."""

    def forward(self, projections, ids):
        return _InfiniteSlope.apply(projections)


def test_gradients_that_are_not_finite_stop_the_run_before_they_spoil_a_weight():
    network = _network()
    before = [parameter.clone() for parameter in network.parameters()]
    with pytest.raises(FloatingPointError, match="the gradients are not finite at iteration 1"):
        _run(network, [TerminateOnNonFinite()], loss=_Sly())
    assert all(torch.equal(now, then) for now, then in zip(network.parameters(), before, strict=True))


def test_the_noise_of_a_step_is_a_function_of_seed_and_iteration():
    seen: dict[int, list[float]] = {}

    def draw(engine: Engine) -> None:
        seen.setdefault(engine.state.iteration, []).append(float(torch.rand(())))

    for before in (1, 2):
        torch.manual_seed(before)
        trainer = ContrastiveTrainer(
            torch.device("cpu"),
            1,
            [_batch()] * 3,
            _network(),
            torch.optim.SGD(_network().parameters(), 0.1),
            NTXentLoss(),
            train_handlers=[SeedEachStep(7)],
        )
        trainer.add_event_handler(Events.ITERATION_STARTED, draw)
        trainer.run()
    assert all(first == second for first, second in seen.values())
    assert len({values[0] for values in seen.values()}) == 3


def test_an_error_is_raised_whatever_handlers_it_has():
    def fail(engine: Engine) -> None:
        raise KeyError("on purpose")

    class _Fails:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.ITERATION_STARTED, fail)

    with pytest.raises(KeyError, match="on purpose"):
        _run(_network(), [Progress(), _Fails()])
