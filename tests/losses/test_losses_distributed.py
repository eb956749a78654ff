from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monai_simclr.losses import NTXentLoss
from monai_simclr.runtime.distributed import destroy_distributed

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="needs torch with gloo")

IMAGES, WIDTH, RANKS = 10, 6, 2
SETTINGS = [
    {"temperature": 0.1},
    {"temperature": 0.01},
    {"temperature": 0.3, "decoupled": True},
    {"temperature": 0.2, "same_group": "positive"},
    {"temperature": 0.2, "same_group": "negative"},
    {"temperature": 0.2, "same_group": "negative", "decoupled": True, "patients_too": True},
]


def inputs() -> tuple[Tensor, Tensor]:
    """Two views (2, N, C) and patients (N,), two of whom have images on both processes."""
    views = torch.randn(2, IMAGES, 5, generator=torch.Generator().manual_seed(3))
    return views, torch.tensor([0, 1, 2, 3, 4, 0, 1, 5, 6, 6])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(5, WIDTH)


def step(model: nn.Module, rows: slice, settings: dict) -> float:
    views, patients = inputs()
    options = {name: value for name, value in settings.items() if name != "patients_too"}
    owners = patients[rows].repeat(2)
    groups = torch.stack([owners, owners.div(2, rounding_mode="floor")]) if "patients_too" in settings else owners
    loss = NTXentLoss(**options)(model(views[:, rows].reshape(-1, 5)), groups)
    loss.backward()
    return loss.item()


def start(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=RANKS, timeout=timedelta(seconds=60))


def train_on_a_rank(rank: int, folder: str) -> None:
    start(rank, folder)
    share = slice(rank * IMAGES // RANKS, (rank + 1) * IMAGES // RANKS)
    results = []
    for settings in SETTINGS:
        model = DistributedDataParallel(network())
        loss = step(model, share, settings)
        results.append((loss, [p.grad.clone() for p in model.parameters()]))
    torch.save(results, Path(folder) / f"{rank}.pt")
    destroy_distributed()


def refuse_on_a_rank(rank: int, folder: str) -> None:
    start(rank, folder)
    ids = torch.arange(3 - rank).repeat(2)
    broken = torch.ones(4, 2)
    broken[0, 0] = float("nan") if rank else 1.0
    messages = []
    for projections, groups in [(torch.ones(len(ids), 2), ids), (broken, torch.tensor([0, 1, 0, 1]))]:
        with pytest.raises((ValueError, FloatingPointError), match=r"drop the last|not finite") as refusal:
            NTXentLoss()(projections, groups)
        messages.append(str(refusal.value))
    (Path(folder) / f"{rank}.txt").write_text("\n".join(messages))
    destroy_distributed()


def test_two_processes_are_one_process_with_the_whole_batch(tmp_path: Path) -> None:
    multiprocessing.start_processes(train_on_a_rank, (str(tmp_path),), RANKS, start_method="fork")
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    for number, settings in enumerate(SETTINGS):
        model = network()
        want = step(model, slice(None), settings)
        for rank in ranks:
            assert rank[number][0] == pytest.approx(want, rel=1e-6), settings
            for got, parameter in zip(rank[number][1], model.parameters(), strict=True):
                size = float(parameter.grad.abs().max())
                torch.testing.assert_close(got, parameter.grad, rtol=1e-5, atol=1e-6 * max(1.0, size))


def test_every_process_refuses_what_is_wrong_on_one(tmp_path: Path) -> None:
    multiprocessing.start_processes(refuse_on_a_rank, (str(tmp_path),), RANKS, start_method="fork")
    for rank in range(RANKS):
        sizes, broken = (tmp_path / f"{rank}.txt").read_text().splitlines()
        assert "different numbers of images (rank 0: 3, rank 1: 2)" in sizes
        assert "1 of 8 projections are not finite" in broken
