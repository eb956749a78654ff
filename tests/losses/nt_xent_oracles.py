"""NT-Xent as it is defined, slowly and in float64: pair by pair, and row by row for batches of hundreds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MODES = ("exclude", "negative", "positive")


def pair_by_pair(
    z: Tensor,
    ids: Sequence[int],
    temperature: float,
    n_views: int = 2,
    mode: str = "exclude",
    decoupled: bool = False,
    patients: Sequence[int] | None = None,
) -> Tensor:
    """The definition as a double loop; autograd gives its gradient."""
    z = z / z.norm(dim=1, keepdim=True)
    images = len(z) // n_views
    total = z.new_zeros(())
    for i in range(len(z)):
        below, positives = [], []
        for j in range(len(z)):
            same_image, same_group = i % images == j % images, ids[i] == ids[j]
            positive = same_image or (mode == "positive" and same_group)
            dropped = (mode == "exclude" and same_group) or (patients is not None and patients[i] == patients[j])
            dropped = decoupled if positive else dropped
            similarity = torch.dot(z[i], z[j]) / temperature
            if i != j and positive:
                positives.append(similarity)
            if i != j and not dropped:
                below.append(similarity)
        total = total + torch.logsumexp(torch.stack(below), 0) - torch.stack(positives).mean()
    return total / len(z)


def row_by_row(z: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Two views, images of the same group left out: the same definition with the inner loop as one product."""
    z = z / z.norm(dim=1, keepdim=True)
    images, everyone = len(z) // 2, torch.arange(len(z))
    total = z.new_zeros(())
    for i in range(len(z)):
        partner = (i + images) % len(z)
        below = (everyone != i) & ((ids != ids[i]) | (everyone == partner))
        total = total + torch.logsumexp((z @ z[i])[below] / temperature, 0) - torch.dot(z[i], z[partner]) / temperature
    return total / len(z)


def batch(images: int, width: int, n_views: int = 2, groups: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n_views * images, width, dtype=torch.float64, generator=generator)
    ids = torch.arange(images) if groups is None else torch.arange(images) % groups
    return z, ids.repeat(n_views)


def value_and_gradient(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[float, Tensor]:
    z = z.clone().requires_grad_()
    loss = function(z)
    loss.backward()
    return loss.item(), z.grad
