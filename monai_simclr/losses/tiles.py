"""Sums over the matrix of all similarities, tile by tile, without keeping the matrix.

The matrix E of exponentiated similarities is symmetric, so when all rows are at hand only its upper triangle is
computed, and a tile serves its rows and, mirrored, its columns: in the forward pass for the sums of E's rows, in the
backward pass for the product of ``P + P^T`` with the unit vectors, where P is E with rows divided by their sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from monai_simclr.losses.groups import Denominator

# Tiles are kept for the backward pass up to this size; beyond it they are computed a second time.
_KEPT_BYTES = 32 * 2**20
# A cosine is at most 1, so below this value of 1/T no exponential, nor a sum of 2**24 of them, leaves float32.
_SAFE_EXPONENT = 60.0


class Plan(NamedTuple):
    """Our rows among all rows, how sharply they are compared, and in what pieces."""

    ours: slice
    temperature: float
    denominator: Denominator
    block: int

    @property
    def in_logarithms(self) -> bool:
        """Whether a tile holds the similarities themselves, because their exponentials could overflow."""
        return 1 / self.temperature > _SAFE_EXPONENT


def log_sums(unit: Tensor, plan: Plan, keep: bool) -> tuple[Tensor, list[Tensor]]:
    """Log-sum-exp over every row's denominator.

    Args:
        unit: unit vectors of all rows ``(M, D)``.
        plan: which rows are ours.
        keep: whether tiles are wanted for `weighted_rows`.

    Returns:
        The logarithms, for our rows only in a vector over all rows ``(M,)``; the tiles, if few enough to keep.
    """
    tiles = list(_tiles(plan, len(unit)))
    keep = keep and unit.element_size() * sum(_area(rows, columns) for rows, columns, _ in tiles) <= _KEPT_BYTES
    space = None if keep else _space(unit, plan)
    kept = []
    sums = unit.new_full((len(unit),), -math.inf if plan.in_logarithms else 0.0)
    for rows, columns, mirrored in tiles:
        tile = _tile(unit, plan, rows, columns, space)
        _add_up(sums[rows], tile, 1, plan)
        if mirrored:
            _add_up(sums[columns], tile, 0, plan)
        if keep:
            kept.append(tile)
    return (sums if plan.in_logarithms else sums.log_()), kept


def weighted_rows(unit: Tensor, lse: Tensor, kept: list[Tensor], plan: Plan) -> Tensor:
    """Our rows of ``(P + P^T) unit``, where P holds the softmax probabilities; `lse` and `kept` are of `log_sums`."""
    result = torch.zeros_like(unit[plan.ours])
    first = plan.ours.start
    space, spare = None if kept else _space(unit, plan), _space(unit, plan)
    inverse = None if plan.in_logarithms else lse.neg().exp_()
    for number, (rows, columns, mirrored) in enumerate(_tiles(plan, len(unit))):
        tile = kept[number] if kept else _tile(unit, plan, rows, columns, space)
        weights = spare[: tile.numel()].view(tile.shape)
        if inverse is None:
            torch.exp(tile - lse[rows, None], out=weights).add_(tile.sub(lse[None, columns]).exp_())
        else:
            torch.add(inverse[rows, None], inverse[None, columns], out=weights).mul_(tile)
        result[rows.start - first : rows.stop - first].addmm_(weights, unit[columns])
        if mirrored:
            result[columns].addmm_(weights.T, unit[rows])
    return result


def _tiles(plan: Plan, total: int) -> Iterator[tuple[slice, slice, bool]]:
    """Our rows against all columns; only the upper triangle (third item: has a mirror image) when all rows are ours."""
    first, end = plan.ours.start, plan.ours.stop
    everything = end - first == total
    for top in range(first, end, plan.block):
        for left in range(top if everything else 0, total, plan.block):
            rows, columns = slice(top, min(top + plan.block, end)), slice(left, min(left + plan.block, total))
            yield rows, columns, everything and left > top


def _tile(unit: Tensor, plan: Plan, rows: slice, columns: slice, space: Tensor | None) -> Tensor:
    """Exponentials of the similarities, 0 where a pair stays out; or their logarithms, -inf where a pair does."""
    area = _area(rows, columns)
    tile = unit.new_empty(area) if space is None else space[:area]
    tile = tile.view(rows.stop - rows.start, columns.stop - columns.start)
    torch.addmm(tile, unit[rows], unit[columns].T, beta=0, alpha=1 / plan.temperature, out=tile)
    counted = plan.denominator.counted(rows, columns)
    if plan.in_logarithms:
        if counted is not None:
            tile.add_(counted.log_())
    else:
        tile.exp_()
        if counted is not None:
            tile.mul_(counted)
    tile.diagonal(rows.start - columns.start).fill_(-math.inf if plan.in_logarithms else 0.0)
    return tile


def _add_up(sums: Tensor, tile: Tensor, dim: int, plan: Plan) -> None:
    if plan.in_logarithms:
        torch.logaddexp(sums, tile.logsumexp(dim), out=sums)
    else:
        sums += tile.sum(dim)


def _space(unit: Tensor, plan: Plan) -> Tensor:
    """Memory of one tile, used again for each: asking for it anew costs a tenth of the time."""
    return unit.new_empty(min(plan.block, len(unit)) ** 2)


def _area(rows: slice, columns: slice) -> int:
    return (rows.stop - rows.start) * (columns.stop - columns.start)
