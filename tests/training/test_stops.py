"""Signals, non-finite numbers and full disks: saved, said in a sentence, and an exit code for each."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents

from monai_simclr.data import KeyedSampler, StoreDataset, loader
from monai_simclr.recipes import views
from monai_simclr.runtime.checkpoints import newest_checkpoint
from monai_simclr.transforms import MultiViewd


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whole")
    assert tiny.run(tiny.Setting(folder)) == [0]
    return tiny.result(folder)


@pytest.mark.parametrize(
    ("number", "code", "sentence"),
    [
        (signal.SIGTERM, 75, "stopped by SIGTERM, saved in {} at iteration 9 of 18 (epoch 2 of 3); run the same"),
        (signal.SIGUSR1, 75, "stopped by SIGUSR1, saved in {} at iteration 9 of 18 (epoch 2 of 3); run the same"),
        (signal.SIGINT, 130, "stopped by Ctrl-C, saved in {} at iteration 9 of 18 (epoch 2 of 3); run the same"),
    ],
)
def test_a_signal_saves_at_the_end_of_its_iteration(
    whole: str, tmp_path: Path, number: int, code: int, sentence: str
) -> None:
    kill = (9, IterationEvents.FORWARD_COMPLETED, 0)
    assert tiny.run(tiny.Setting(tmp_path, kill=kill, kill_with=number)) == [code]
    assert sentence.format(tmp_path / "checkpoints") in tiny.log(tmp_path).splitlines()[-1]
    assert sorted((tmp_path / "checkpoints").glob("*.pt"))[-1].name.startswith("0000000009-")
    assert tiny.run(tiny.Setting(tmp_path)) == [0]
    assert tiny.result(tmp_path) == whole


def test_a_signal_in_an_epochs_last_iteration_keeps_the_epochs_record(whole: str, tmp_path: Path) -> None:
    kill = (12, IterationEvents.FORWARD_COMPLETED, 0)
    assert tiny.run(tiny.Setting(tmp_path, kill=kill, kill_with=signal.SIGTERM)) == [75]
    assert tiny.run(tiny.Setting(tmp_path)) == [0]
    assert tiny.result(tmp_path) == whole


def test_one_rank_that_is_asked_to_stop_stops_both_after_the_same_iteration(tmp_path: Path) -> None:
    kill = (7, IterationEvents.BACKWARD_COMPLETED, 1)
    assert tiny.run(tiny.Setting(tmp_path, ranks=2, kill=kill, kill_with=signal.SIGTERM)) == [75, 75]
    assert "at iteration 7 of 18" in tiny.log(tmp_path, rank=0)
    assert "at iteration 7 of 18" in tiny.log(tmp_path, rank=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_loaders_workers_leave_signals_to_the_process_that_trains(number: int) -> None:
    """A cluster sends them to all processes of a job."""
    dataset = StoreDataset(tiny.store(), ["train"], transform=MultiViewd("image", views("default", tiny.SMALL)), seed=3)
    waiting = iter(loader(dataset, KeyedSampler(dataset, 3), 8, 1, 3))
    next(waiting)
    os.kill(waiting._workers[0].pid, number)  # type: ignore[attr-defined]
    assert len(list(waiting)) == tiny.IMAGES // 8 - 1


def test_the_signal_handlers_are_restored(tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    made, _ = tiny.trainer(tiny.Setting(tmp_path))
    inside = []
    made.add_event_handler(Events.ITERATION_STARTED, lambda engine: inside.append(signal.getsignal(signal.SIGINT)))
    made.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda engine: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.run()
    assert inside[0] != before[0]
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_nan_pixel_stops_before_the_step_after_saving_and_names_the_batch(tmp_path: Path, ranks: int) -> None:
    assert tiny.run(tiny.Setting(tmp_path, ranks=ranks, poison=9)) == [5] * ranks
    where = " on the ranks [0]" if ranks == 2 else ""
    for rank in range(ranks):
        last = tiny.log(tmp_path, rank).splitlines()[-1]
        assert f"the projections are not finite{where} at iteration 9 (epoch 2), at the learning rate " in last
        assert "no step was taken; the run until then is saved in" in last
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert report["iteration"] == 9
    assert len(report["rows"]) == tiny.BATCH // ranks
    assert report["learning_rate"] > 0
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert found[0].name.startswith("0000000008-")
    network = torch.load(found[0], weights_only=True)["objects"]["network"]
    assert all(bool(value.isfinite().all()) for value in network.values())


def test_a_run_that_resumes_with_a_repaired_batch_ends_as_a_run_without_damage(whole: str, tmp_path: Path) -> None:
    tiny.run(tiny.Setting(tmp_path, poison=9))
    assert tiny.run(tiny.Setting(tmp_path)) == [0]
    assert tiny.result(tmp_path) == whole


def test_a_full_disk_ends_with_6_and_the_last_checkpoint_resumes(
    whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    original = tiny.trainer

    def filling(setting: tiny.Setting) -> object:
        made, checkpoint = original(setting)
        limit = (1000, resource.RLIM_INFINITY)
        fill = Events.ITERATION_COMPLETED(once=7)
        made.add_event_handler(fill, lambda engine: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
        return made, checkpoint

    monkeypatch.setattr(tiny, "trainer", filling)
    assert tiny.run(tiny.Setting(tmp_path)) == [6]
    monkeypatch.setattr(tiny, "trainer", original)
    assert [path.name[:10] for path in sorted((tmp_path / "checkpoints").iterdir())] == ["0000000004", "0000000006"]
    assert tiny.run(tiny.Setting(tmp_path)) == [0]
    assert tiny.result(tmp_path) == whole


def test_checkpoints_hold_only_what_weights_only_allows(tmp_path: Path) -> None:
    tiny.run(tiny.Setting(tmp_path))
    for path in (tmp_path / "checkpoints").iterdir():
        state = torch.load(path, weights_only=True)
        assert set(state) == {"format", "iteration", "epoch_length", "identity", "objects", "scaler"}
