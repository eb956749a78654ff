"""A run that is killed anywhere and started again ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from ignite.engine import Events

from monai_simclr.workflows import contrastive_trainer

CONFIGURATIONS = [(0, 1), (2, 1), (0, 2), (2, 2)]
"""Workers and ranks."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Checksums of runs that nothing stopped, by the number of ranks."""
    sums = {}
    for ranks in (1, 2):
        folder = tmp_path_factory.mktemp(f"whole{ranks}")
        assert tiny.run(tiny.Setting(folder, ranks=ranks)) == [0] * ranks
        sums[ranks] = tiny.result(folder)
    return sums


def _killed_and_resumed(folder: Path, workers: int, ranks: int, number: int) -> str:
    choose = random.Random(number * 100 + workers * 10 + ranks)
    kill = (choose.randint(1, tiny.STEPS), choose.choice(tiny.EVENTS), choose.randrange(ranks))
    codes = tiny.run(tiny.Setting(folder, workers, ranks, kill))
    assert codes[kill[2]] == -signal.SIGKILL, tiny.log(folder)
    assert all(codes), "a rank went on alone"
    assert tiny.run(tiny.Setting(folder, workers, ranks)) == [0] * ranks, tiny.log(folder)
    return tiny.result(folder)


@pytest.mark.parametrize(("workers", "ranks", "number"), [(0, 1, 1), (2, 1, 2), (0, 2, 3)])
def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(
    whole: dict[int, str], tmp_path: Path, workers: int, ranks: int, number: int
) -> None:
    assert _killed_and_resumed(tmp_path, workers, ranks, number) == whole[ranks]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("workers", "ranks"), CONFIGURATIONS)
def test_twenty_random_kills_lose_nothing(whole: dict[int, str], tmp_path: Path, workers: int, ranks: int) -> None:
    ends = [_killed_and_resumed(tmp_path / str(number), workers, ranks, number) for number in range(20)]
    assert ends == [whole[ranks]] * 20


def test_workers_change_nothing(whole: dict[int, str], tmp_path: Path) -> None:
    assert tiny.run(tiny.Setting(tmp_path, workers=2)) == [0]
    assert tiny.result(tmp_path) == whole[1]


def test_views_on_the_device_train_as_views_in_the_workers_do(whole: dict[int, str], tmp_path: Path) -> None:
    assert tiny.run(tiny.Setting(tmp_path, views_on="device")) == [0]
    assert tiny.result(tmp_path) == whole[1]


def test_a_run_that_is_killed_again_and_again_still_ends_the_same(whole: dict[int, str], tmp_path: Path) -> None:
    for iteration in (3, 6, 9, 14, 18):
        tiny.run(tiny.Setting(tmp_path, kill=(iteration, Events.ITERATION_COMPLETED, 0)))
    assert tiny.run(tiny.Setting(tmp_path)) == [0]
    assert tiny.result(tmp_path) == whole[1]


@pytest.mark.parametrize("views_on", ["workers", "device"])
def test_sizes_that_grow_with_the_epoch_are_those_of_a_run_that_was_killed(views_on: str, tmp_path: Path) -> None:
    sizes = ((16, 0.34), (24, 0.33), (32, 0.33))
    assert tiny.run(tiny.Setting(tmp_path / "whole", workers=1, sizes=sizes)) == [0]
    for iteration in (5, 9, 14):
        killed = (iteration, Events.ITERATION_COMPLETED, 0)
        tiny.run(tiny.Setting(tmp_path / "again", views_on=views_on, sizes=sizes, kill=killed))
    assert tiny.run(tiny.Setting(tmp_path / "again", views_on=views_on, sizes=sizes)) == [0]
    assert tiny.result(tmp_path / "again") == tiny.result(tmp_path / "whole")


def test_a_finished_run_reports_it_and_changes_nothing(tmp_path: Path) -> None:
    tiny.run(tiny.Setting(tmp_path))
    first, files = tiny.result(tmp_path), sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert tiny.run(tiny.Setting(tmp_path)) == [0]
    assert tiny.result(tmp_path) == first
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == files


def test_another_run_in_the_folder_is_refused_and_each_difference_named(tmp_path: Path) -> None:
    tiny.run(tiny.Setting(tmp_path, kill=(5, Events.ITERATION_COMPLETED, 0)))
    assert tiny.run(tiny.Setting(tmp_path, batch=10, identity={"strength": "mild"})) == [4]
    last = tiny.log(tmp_path).splitlines()[-1]
    assert "holds another run: batch_size was 8, is 10" in last
    assert "strength was not given, is mild" in last
    assert "iterations in an epoch was 6, is 5" in last
    assert "dataset" not in last


def _losses(folder: Path) -> list[float]:
    newest = max((folder / "checkpoints").glob("*.pt"))
    return [record["loss"] for record in torch.load(newest, weights_only=True)["objects"]["progress"]["history"]]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_resumes_with_another_number_of_ranks_and_its_losses_are_those_of_one_that_was_not_stopped(
    tmp_path: Path, before: int, after: int
) -> None:
    """Without batch statistics and dropout, which on CPUs are of a rank."""
    assert tiny.run(tiny.Setting(tmp_path / "whole", ranks=before, normalized=False)) == [0] * before
    kill = (9, Events.ITERATION_STARTED, before - 1)
    codes = tiny.run(tiny.Setting(tmp_path / "moved", ranks=before, normalized=False, kill=kill))
    assert codes[before - 1] == -signal.SIGKILL
    assert tiny.run(tiny.Setting(tmp_path / "moved", ranks=after, normalized=False)) == [0] * after
    assert f"iteration 8 of 18 (epoch 2 of 3); on {after} instead of {before} ranks" in tiny.log(tmp_path / "moved")
    whole, moved = _losses(tmp_path / "whole"), _losses(tmp_path / "moved")
    assert moved == pytest.approx(whole, abs=1e-6)
    assert len(moved) == tiny.EPOCHS
    assert len(set(whole)) == tiny.EPOCHS, "nothing was trained, so nothing was shown"


def test_ranks_that_cannot_share_the_batch_of_a_run_are_told_how_many_can(tmp_path: Path) -> None:
    tiny.run(tiny.Setting(tmp_path, kill=(5, Events.ITERATION_COMPLETED, 0)))
    assert tiny.run(tiny.Setting(tmp_path, ranks=3)) == [3] * 3
    assert "start as many ranks as divide it (1, 2, 4, 8), also to resume a run" in tiny.log(tmp_path)


def test_a_step_of_other_images_is_another_run(tmp_path: Path) -> None:
    """As of a batch of few images, which is made smaller until the ranks can share it (`even_batch`)."""
    same = {"batch_size": 8}
    tiny.run(tiny.Setting(tmp_path, kill=(5, Events.ITERATION_COMPLETED, 0)))
    assert tiny.run(tiny.Setting(tmp_path, ranks=2, batch=2 * 3, identity=same)) == [4, 4]
    assert "images in a step of all ranks was 8, is 6" in tiny.log(tmp_path)


def test_the_newest_checkpoint_is_skipped_when_it_is_truncated(whole: dict[int, str], tmp_path: Path) -> None:
    tiny.run(tiny.Setting(tmp_path, kill=(14, Events.ITERATION_STARTED, 0)))
    newest = max((tmp_path / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert tiny.run(tiny.Setting(tmp_path)) == [0]
    assert f"{newest.name} is truncated or was altered" in tiny.log(tmp_path)
    assert tiny.result(tmp_path) == whole[1]


def test_the_trainer_for_python_takes_the_same_steps_and_resumes(tmp_path: Path) -> None:
    wired, _ = tiny.trainer(tiny.Setting(tmp_path / "wired"))
    wired.run()
    for epochs in (1, tiny.EPOCHS):  # the second call resumes
        parts, unused = tiny.trainer(tiny.Setting(tmp_path / "unused"))
        trainer = contrastive_trainer(
            parts.network,
            parts.data_loader,
            parts.loss_function,
            parts.optimizer,
            unused.objects["schedule"],
            max_epochs=epochs,
            seed=3,
            checkpoints=tmp_path / "checkpoints",
            precision="float32",
        )
        trainer.run()
    assert trainer.state.iteration == tiny.STEPS
    for value, expected in zip(parts.network.parameters(), wired.network.parameters(), strict=True):
        assert torch.equal(value, expected)
