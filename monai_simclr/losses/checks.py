"""What the contrastive loss refuses, on every process at once."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from monai_simclr.losses.groups import SameGroup
from monai_simclr.runtime.distributed import gathered


def check_temperature(temperature: float) -> float:
    """The temperature, if it is above 0 and finite."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
    return float(temperature)


def check_options(n_views: int, same_group: str, block: int = 0) -> None:
    """Refuse settings that are wrong whatever the batch is."""
    if n_views < 2:
        raise ValueError(f"n_views must be at least 2, got {n_views}; a contrast needs two views of every image")
    if same_group not in get_args(SameGroup):
        raise ValueError(f"same_group must be one of {', '.join(get_args(SameGroup))}, got {same_group!r}")
    if block < 0:
        raise ValueError(f"block must be at least 1, or 0 for one that fits the device, got {block}")


def check_inputs(projections: Tensor, ids: dict[str, Tensor | None], n_views: int) -> None:
    """Refuse shapes and types that do not fit."""
    rows = len(projections) if projections.ndim else 0
    if projections.ndim != 2 or not projections.is_floating_point():
        raise ValueError(
            "projections must be float, of shape (views * images, D), "
            f"got {projections.dtype} {tuple(projections.shape)}"
        )
    if rows % n_views:
        raise ValueError(f"{rows} projections cannot be {n_views} views of every image; stack the views")
    for name, numbers in ids.items():
        if numbers is not None and (numbers.shape != (rows,) or numbers.is_floating_point()):
            raise ValueError(
                f"{name} must be {rows} integers, one for each projection, got {numbers.dtype} {tuple(numbers.shape)}"
            )


def check_batch(lengths: Tensor, groups: Tensor, patients: Tensor | None, n_views: int, world: int) -> None:
    """Refuse on every process what is wrong on any, so that none is left waiting for the others.

    Args:
        lengths: of the local projections ``(V*N,)``.
        groups: ids of the same rows ``(V*N,)``.
        patients: ids of the same rows ``(V*N,)``, or none.
        n_views: V.
        world: number of processes.

    Raises:
        ValueError: for unequal batches, fewer than two images, views of one image with different ids.
        FloatingPointError: for projections that are not finite.
    """
    rows = torch.full((), len(lengths), device=lengths.device)
    nobody = torch.full_like(rows, -1)
    mixed = [nobody if ids is None else _unlike_views(ids, n_views) for ids in (groups, patients)]
    found = torch.stack([rows, (~lengths.isfinite()).sum(), *mixed])
    sizes, broken, *mixed_ids = zip(*gathered(found[None], world).tolist(), strict=True)
    if len(set(sizes)) > 1:
        images = ", ".join(f"rank {rank}: {size // n_views}" for rank, size in enumerate(sizes))
        raise ValueError(f"processes hold different numbers of images ({images}); drop the last partial batch")
    if sum(sizes) < 2 * n_views:
        raise ValueError(f"a contrast needs at least two images, got {sum(sizes) // n_views}")
    if any(broken):
        raise FloatingPointError(
            f"{sum(broken)} of {sum(sizes)} projections are not finite; lower the learning rate, check inputs"
        )
    if len({unlike < 0 for unlike in mixed_ids[1]}) > 1:
        raise ValueError("some processes pass patient_ids and some do not; pass them on all or on none")
    for name, unlike in zip(("group_ids", "patient_ids"), mixed_ids, strict=True):
        if max(unlike) > 0:
            raise ValueError(f"the views of one image have different {name}; repeat the ids once for every view")


def check_negatives(lse: Tensor) -> None:
    """Refuse a decoupled loss, which has no positives in the denominator, where no negative is in it either.

    Args:
        lse: log-sum-exp of all rows ``(M,)``, minus infinity where nothing was summed.
    """
    alone = int(lse.isneginf().sum())
    if alone:
        raise ValueError(
            f"{alone} of {len(lse)} projections have no negative: all other images are of their group or patient, and "
            "decoupled=True leaves the positives out too; use a larger batch, or decoupled=False"
        )


def _unlike_views(ids: Tensor, n_views: int) -> Tensor:
    return (ids.view(n_views, -1) != ids[: len(ids) // n_views]).sum()
