"""Cached gradients: value and gradient of the whole batch in the memory of a chunk."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monai_simclr.engines import ContrastiveTrainer
from monai_simclr.losses import NTXentLoss, nt_xent
from monai_simclr.networks import SimCLR, encoder
from monai_simclr.runtime.distributed import destroy_distributed

IDS = torch.arange(5).repeat(2)


def simclr(chunk_size: int, exact: bool = True, dropout: float = 0.0) -> SimCLR:
    torch.manual_seed(0)
    net = encoder("resnet10", 0.125, norm="group" if exact else "batch")
    if dropout:
        features = net.out_features
        net = nn.Sequential(net, nn.Dropout(dropout))
        net.out_features = features
    return SimCLR(net, 16, 8, norm="layer" if exact else "batch", chunk_size=chunk_size)


def gradient(network: nn.Module, images: Tensor) -> tuple[float, list[Tensor]]:
    loss = nt_xent(network(images), IDS)
    loss.backward()
    return loss.item(), [p.grad.clone() for p in network.parameters()]


@pytest.mark.parametrize("chunk_size", [2, 3, 4, 10, 64])
def test_without_batch_statistics_the_gradient_is_that_of_the_whole_batch(chunk_size: int) -> None:
    images = torch.rand(10, 1, 32, 32, dtype=torch.float64)
    want = gradient(simclr(0).double(), images)
    got = gradient(simclr(chunk_size).double(), images)
    assert got[0] == pytest.approx(want[0], rel=1e-12)
    for mine, theirs in zip(got[1], want[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_the_second_pass_draws_the_random_numbers_of_the_first() -> None:
    images = torch.rand(10, 1, 32, 32, dtype=torch.float64)
    network = simclr(4, dropout=0.5).double()

    def value() -> float:
        torch.manual_seed(7)
        return nt_xent(network(images), IDS)

    value().backward()
    weight = network.head[3].weight
    slope, step = weight.grad[0, 0].item(), 1e-6
    with torch.no_grad():
        weight[0, 0] += step
        above = value().item()
        weight[0, 0] -= 2 * step
        below = value().item()
    assert slope == pytest.approx((above - below) / (2 * step), rel=1e-5)


def test_batch_statistics_are_those_of_chunks_and_averages_move_once_a_chunk() -> None:
    images = torch.rand(10, 1, 32, 32)
    network, plain = simclr(5, exact=False), simclr(0, exact=False)
    got = gradient(network, images)
    projections = torch.cat([plain(part) for part in images.split(5)])
    loss = nt_xent(projections, IDS)
    loss.backward()
    assert got[0] == pytest.approx(loss.item(), rel=1e-6)
    for mine, theirs in zip(got[1], plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.grad, rtol=1e-4, atol=1e-6)
    for name, value in network.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name
    assert network.encoder.bn1.num_batches_tracked == 2
    assert network.encoder.bn1.momentum == 0.1


def test_it_is_said_that_batch_statistics_are_those_of_chunks(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "monai_simclr"):
        simclr(4)
        assert not caplog.records
        simclr(4, exact=False)
    assert "cached in chunks of 4 images: batch normalization sees a chunk, not the batch" in caplog.text


@pytest.mark.parametrize("chunk_size", [-1, 1])
def test_chunks_of_one_image_are_refused(chunk_size: int) -> None:
    with pytest.raises(ValueError, match=f"chunk_size must be at least 2 images, or 0 .* got {chunk_size}"):
        simclr(chunk_size)


def test_the_first_pass_keeps_no_activations() -> None:
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    totals = []
    for chunk_size in (0, 2):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            projections = simclr(chunk_size)(torch.rand(16, 1, 32, 32))
        assert projections.requires_grad
        totals.append(sum(kept))
    assert totals[1] < totals[0] / 10


def test_the_trainer_takes_it_as_it_is() -> None:
    class Views:
        def __len__(self) -> int:
            return 2

        def __iter__(self):
            for seed in range(2):
                images = torch.rand(2, 5, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
                yield {"image_1": images[0], "image_2": images[1], "patient": torch.arange(5)}

    trained = []
    for chunk_size in (0, 4):
        network = simclr(chunk_size)
        ContrastiveTrainer(
            torch.device("cpu"), 1, Views(), network, torch.optim.SGD(network.parameters(), 0.1), NTXentLoss()
        ).run()
        trained.append(network.state_dict())
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-4, atol=1e-5)


def test_autocast_holds_in_the_second_pass() -> None:
    images = torch.rand(10, 1, 32, 32)
    results = []
    for chunk_size in (0, 5):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            network = simclr(chunk_size)
            projections = network(images)
        nt_xent(projections, IDS).backward()
        results.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert torch.nn.functional.cosine_similarity(results[0], results[1], dim=0) > 0.99


def test_a_compiled_network_caches_too() -> None:
    images = torch.rand(10, 1, 32, 32)
    want = gradient(simclr(4), images)
    network = simclr(4)
    loss = nt_xent(torch.compile(network, backend="eager")(images), IDS)
    loss.backward()
    assert loss.item() == pytest.approx(want[0], rel=1e-6)
    for mine, theirs in zip(network.parameters(), want[1], strict=True):
        torch.testing.assert_close(mine.grad, theirs, rtol=1e-4, atol=1e-6)


def _train_on_a_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    views = torch.rand(2, 6, 1, 32, 32, generator=torch.Generator().manual_seed(1))[:, 3 * rank : 3 * rank + 3]
    gradients = []
    for chunk_size in (0, 2):
        network = DistributedDataParallel(simclr(chunk_size))
        ids = torch.arange(3 * rank, 3 * rank + 3).repeat(2)
        NTXentLoss()(network(views.reshape(-1, 1, 32, 32)), ids).backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    torch.save(gradients, Path(folder) / f"{rank}.pt")
    destroy_distributed()


def test_two_processes_cache_as_one(tmp_path: Path) -> None:
    multiprocessing.start_processes(_train_on_a_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for whole, cached, other in zip(ranks[0][0], ranks[0][1], ranks[1][1], strict=True):
        torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-6)
        assert torch.equal(cached, other)
