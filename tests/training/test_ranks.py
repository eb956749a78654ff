"""Two gloo ranks: the same weights on both, different views, one process's result, and no rank waits for a dead one."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from ignite.engine import Events

from monai_simclr.data import KeyedSampler
from monai_simclr.runtime.distributed import even_batch


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = max((folder / "checkpoints").glob("*.pt"))
    return torch.load(newest, weights_only=True)["objects"]["network"]


def test_both_ranks_end_with_the_same_weights(tmp_path: Path) -> None:
    assert tiny.run(tiny.Setting(tmp_path, ranks=2)) == [0, 0]
    assert (tmp_path / "rank0.parameters").read_text() == (tmp_path / "rank1.parameters").read_text()


def test_two_ranks_are_one_rank_with_the_whole_batch(tmp_path: Path) -> None:
    """Without batch statistics and dropout, which are of a rank; and with SGD, as Adam blows rounding up."""
    for ranks in (1, 2):
        setting = tiny.Setting(tmp_path / str(ranks), ranks=ranks, normalized=False, optimizer="sgd")
        assert tiny.run(setting) == [0] * ranks
    one, two = _weights(tmp_path / "1"), _weights(tmp_path / "2")
    start = tiny.network(normalized=False).state_dict()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6)
        assert (value - start[name]).abs().max() > 1e-4, "nothing was trained, so nothing was shown"


def test_the_ranks_of_a_step_see_the_images_and_views_that_one_rank_would_see(tmp_path: Path) -> None:
    made, _ = tiny.trainer(tiny.Setting(tmp_path))
    dataset = made.data_loader.dataset
    seen = {}
    for ranks in (1, 2):
        shares = []
        for rank in range(ranks):
            sampler = KeyedSampler(dataset, 3)
            sampler.num_replicas, sampler.rank = ranks, rank
            sampler.num_samples, sampler.total_size = tiny.IMAGES // ranks, tiny.IMAGES // ranks * ranks
            sampler.set_epoch(2)
            shares.append(list(sampler)[: tiny.BATCH // ranks])
        seen[ranks] = shares
    assert sorted(seen[2][0] + seen[2][1]) == sorted(seen[1][0])
    assert not set(seen[2][0]) & set(seen[2][1])
    first, second = (dataset[share[0]]["image_1"] for share in seen[2])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_rank_dies_the_other_ends_within_seconds(tmp_path: Path, rank: int) -> None:
    started = time.monotonic()
    codes = tiny.run(tiny.Setting(tmp_path, ranks=2, kill=(5, Events.ITERATION_STARTED, rank)), timeout=60)
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 6, tiny.log(tmp_path, 1 - rank)
    assert "another rank ended; its own last line says why" in tiny.log(tmp_path, 1 - rank).splitlines()[-1]
    assert time.monotonic() - started < 60


def test_a_batch_that_ranks_cannot_share_is_refused(tmp_path: Path) -> None:
    assert tiny.run(tiny.Setting(tmp_path, ranks=2, batch=9)) == [3, 3]
    assert "batch_size is 9 over all ranks, which 2 ranks cannot share evenly" in tiny.log(tmp_path)


@pytest.mark.parametrize(("ranks", "images", "batch"), [(1, 37, 37), (2, 37, 36), (4, 37, 36), (4, 3, 4), (2, 64, 64)])
def test_a_batch_of_few_images_is_one_that_the_ranks_can_share(
    monkeypatch, ranks: int, images: int, batch: int
) -> None:
    monkeypatch.setattr("monai_simclr.runtime.distributed.world_size", lambda: ranks)
    assert even_batch(64, images) == batch
