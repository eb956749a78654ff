"""The two sums over all pairs of rows that NT-Xent needs, tile by tile, without holding the matrix of similarities.

The matrix E of exponentiated similarities is symmetric, so when all rows are ours only its upper triangle is computed,
and a tile serves its rows and, mirrored, its columns: in the forward pass for the sums of E's rows, in the backward
pass for the product of ``P + P^T`` with the unit vectors, where P is E with rows divided by their sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Tiles are kept for the backward pass up to this size; beyond it they are computed a second time.
KEPT_BYTES = 32 * 2**20
# A cosine is at most 1, so below this value of 1/T no exponential, nor a sum of 2**24 of them, leaves float32.
_SAFE_EXPONENT = 60.0


class Tiling(NamedTuple):
    """Our rows among all rows, how sharply they are compared, which pairs count, and in tiles of which size.

    Ids are float32 (exact up to 2**24 rows): comparing floats into a float result, and multiplying by it, is ten times
    faster on a CPU than making and using a boolean mask.
    """

    ours: slice
    temperature: float
    excluded: tuple[Tensor, ...]  # each (M,): two rows with equal ids do not count for each other ...
    exempt: Tensor | None  # (M,): ... unless these are equal
    block: int

    @property
    def in_logarithms(self) -> bool:
        """Whether a tile holds the similarities themselves, because their exponentials could overflow."""
        return 1 / self.temperature > _SAFE_EXPONENT

    def tiles(self, total: int) -> Iterator[tuple[slice, slice, bool]]:
        """Our rows by all columns; only the upper triangle (third item: has a mirror image) when all rows are ours."""
        first, end = self.ours.start, self.ours.stop
        everything = end - first == total
        for top in range(first, end, self.block):
            for left in range(top if everything else 0, total, self.block):
                rows, columns = slice(top, min(top + self.block, end)), slice(left, min(left + self.block, total))
                yield rows, columns, everything and left > top

    def buffer(self, unit: Tensor) -> Tensor:
        """Memory of one tile, used again for each: allocating it anew costs a tenth of the time."""
        return unit.new_empty(min(self.block, len(unit)) ** 2)


def log_sums(unit: Tensor, tiling: Tiling, keep: bool) -> tuple[Tensor, list[Tensor]]:
    """Log-sum-exp over every row's denominator.

    Args:
        unit: unit vectors of all rows ``(M, D)``.
        tiling: which rows are ours.
        keep: whether tiles are wanted for `weighted_rows`.

    Returns:
        The logarithms, for our rows only in a vector over all rows ``(M,)``; the tiles, if few enough to keep.
    """
    places = list(tiling.tiles(len(unit)))
    area = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns, _ in places)
    keep = keep and unit.element_size() * area <= KEPT_BYTES
    buffer = None if keep else tiling.buffer(unit)
    kept = []
    sums = unit.new_full((len(unit),), -math.inf if tiling.in_logarithms else 0.0)
    for rows, columns, mirrored in places:
        tile = _tile(unit, tiling, rows, columns, buffer)
        for part, dim in ((sums[rows], 1), (sums[columns], 0))[: 1 + mirrored]:
            if tiling.in_logarithms:
                torch.logaddexp(part, tile.logsumexp(dim), out=part)
            else:
                part += tile.sum(dim)
        if keep:
            kept.append(tile)
    return (sums if tiling.in_logarithms else sums.log_()), kept


def weighted_rows(unit: Tensor, lse: Tensor, kept: list[Tensor], tiling: Tiling) -> Tensor:
    """Our rows of ``(P + P^T) unit``, where P holds the softmax probabilities; `lse` and `kept` are of `log_sums`."""
    result = torch.zeros_like(unit[tiling.ours])
    first = tiling.ours.start
    buffer, spare = None if kept else tiling.buffer(unit), tiling.buffer(unit)
    inverse = None if tiling.in_logarithms else lse.neg().exp_()
    for number, (rows, columns, mirrored) in enumerate(tiling.tiles(len(unit))):
        tile = kept[number] if kept else _tile(unit, tiling, rows, columns, buffer)
        weights = spare[: tile.numel()].view(tile.shape)
        if inverse is None:
            torch.exp(tile - lse[rows, None], out=weights).add_(tile.sub(lse[None, columns]).exp_())
        else:
            torch.add(inverse[rows, None], inverse[None, columns], out=weights).mul_(tile)
        result[rows.start - first : rows.stop - first].addmm_(weights, unit[columns])
        if mirrored:
            result[columns].addmm_(weights.T, unit[rows])
    return result


def _tile(unit: Tensor, tiling: Tiling, rows: slice, columns: slice, buffer: Tensor | None) -> Tensor:
    """Exponentials of the similarities, 0 where a pair does not count; or their logarithms, -inf where it does not."""
    shape = rows.stop - rows.start, columns.stop - columns.start
    tile = unit.new_empty(shape) if buffer is None else buffer[: math.prod(shape)].view(shape)
    torch.addmm(tile, unit[rows], unit[columns].T, beta=0, alpha=1 / tiling.temperature, out=tile)
    counted: Tensor | None = None  # 1 where a pair counts, 0 where it does not
    for ids in tiling.excluded:
        different = torch.ne(ids[rows, None], ids[None, columns], out=ids.new_empty(shape))
        counted = different if counted is None else counted.mul_(different)
    if counted is not None and tiling.exempt is not None:
        exempt = torch.eq(tiling.exempt[rows, None], tiling.exempt[None, columns], out=torch.empty_like(counted))
        counted.add_(exempt).clamp_(max=1)
    if not tiling.in_logarithms:
        tile.exp_()
    if counted is not None:
        _ = tile.add_(counted.log_()) if tiling.in_logarithms else tile.mul_(counted)
    tile.diagonal(rows.start - columns.start).fill_(-math.inf if tiling.in_logarithms else 0.0)
    return tile
