"""The contrastive loss over all views of a batch, and binary cross-entropy that leaves unknown labels out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["MaskedBCEWithLogits", "NTXentLoss", "SameGroup", "masked_bce", "nt_xent"]

SameGroup = Literal["exclude", "negative", "positive"]

# Tiles of exponentials are kept for the backward pass up to this size; beyond it they are computed a second time.
_KEPT_BYTES = 64 * 2**20
# A cosine is at most 1, so below this value of 1/T no exponential, nor a sum of 2**24 of them, leaves float32.
_SAFE_EXPONENT = 60.0


class _Plan(NamedTuple):
    """Which rows are ours, how alike two rows count, and which pairs stay out of the denominator."""

    first: int
    rows: int
    world: int
    temperature: float
    block: int
    images: Tensor
    left_out: Tensor | None  # (M,): two rows with equal values stay out of each other's denominator
    keep_views: bool  # ... unless they are views of one image

    @property
    def ours(self) -> slice:
        return slice(self.first, self.first + self.rows)

    @property
    def needs_shift(self) -> bool:
        return 1 / self.temperature > _SAFE_EXPONENT


def nt_xent(
    projections: Tensor,
    group_ids: Tensor,
    temperature: float = 0.1,
    *,
    n_views: int = 2,
    same_group: SameGroup = "exclude",
    decoupled: bool = False,
    gather: bool = False,
    block: int = 1024,
) -> Tensor:
    """Normalized temperature-scaled cross-entropy over V views of N images, averaged over the V*N anchors.

    Rows `i`, `i + N`, ... are views of one image and are positives of each other. The similarity of two rows is their
    cosine divided by the temperature. An anchor's loss is the log of the summed exponentials over its denominator,
    minus the mean similarity to its positives. It is computed in float32 (float64 for float64 input) whatever autocast
    says, in tiles of `block` rows and columns; beyond 64 MiB the tiles are not kept but computed again in the backward.

    Args:
        projections: float, shape ``(V*N, D)``, views stacked; any scale, they are normalized here.
        group_ids: int, shape ``(V*N,)``: the patient (or label) of each row, the same for the views of one image; with
            `gather`, an id means the same in all processes.
        temperature: above 0.
        n_views: V, at least 2.
        same_group: what other images of the same group are: ``"exclude"`` leaves them out of the denominator,
            ``"negative"`` treats them as any other image, ``"positive"`` as positives (with labels as ids: SupCon).
        decoupled: leave the positives out of the denominator.
        gather: compare with the images of all processes of ``torch.distributed``. The value is the mean over the
            anchors of this process; the gradient is scaled so that averaging it over processes, as
            DistributedDataParallel does, gives exactly the gradient of one process with the whole batch.
        block: rows and columns of a tile; changes speed and memory, not the result.

    Returns:
        A scalar, float32 or float64.

    Raises:
        ValueError: if a setting is out of range, shapes do not fit, a projection is not finite, the processes hold
            different numbers of images, or nothing is there to be told apart (fewer than two images, or one group).

    Source:
        Chen et al. 2020, "A simple framework for contrastive learning" (NT-Xent). Khosla et al. 2020, "Supervised
        contrastive learning", equation 2. Yeh et al. 2022, "Decoupled contrastive learning".

    Example:
        >>> views = torch.eye(2).repeat(2, 1)  # two images, each the same in both views, at right angles
        >>> loss = nt_xent(views, torch.tensor([0, 1, 0, 1]), temperature=1.0)
        >>> round(loss.item(), 4), round(math.log(math.e + 2) - 1, 4)
        (0.5514, 0.5514)
    """
    _check_settings(projections, group_ids, temperature, n_views, same_group, block)
    world, rank = _processes() if gather else (1, 0)
    with torch.autocast(projections.device.type, enabled=False):
        dtype = torch.float64 if projections.dtype == torch.float64 else torch.float32
        local = functional.normalize(projections.as_subclass(Tensor).to(dtype), dim=1, eps=1e-12)
        groups = group_ids.as_subclass(Tensor).to(local.device)
        _check_batch(local, groups, n_views, world)
        candidates, groups = _gathered(local.detach(), world), _gathered(groups, world)
        images = _image_numbers(len(local), n_views, world, local.device)
        left_out, keep_views = _left_out(groups, images, n_views, same_group, decoupled)
        plan = _Plan(rank * len(local), len(local), world, float(temperature), block, images, left_out, keep_views)
        positives = groups if same_group == "positive" else None
        pull = _mean_of_positives(candidates, n_views, world, positives)[plan.ours]
        loss: Tensor = _Contrast.apply(local, candidates, pull, plan)
    return loss


class NTXentLoss(nn.Module):
    """`nt_xent` as a module, with its settings inside.

    Args:
        temperature: see `nt_xent`.
        n_views: see `nt_xent`.
        same_group: see `nt_xent`.
        decoupled: see `nt_xent`.
        gather: compare with the images of all processes, when ``torch.distributed`` is initialized.

    Raises:
        ValueError: see `nt_xent`.

    Example:
        >>> criterion = NTXentLoss(temperature=0.5)
        >>> criterion(torch.eye(4), torch.tensor([0, 1, 0, 1])).item() > 0
        True
    """

    def __init__(
        self,
        temperature: float = 0.1,
        n_views: int = 2,
        same_group: SameGroup = "exclude",
        decoupled: bool = False,
        gather: bool = True,
    ) -> None:
        super().__init__()
        _check_options(temperature, n_views, same_group)
        self.temperature = temperature
        self.n_views = n_views
        self.same_group: SameGroup = same_group
        self.decoupled = decoupled
        self.gather = gather

    def forward(self, projections: Tensor, group_ids: Tensor) -> Tensor:
        """The loss of projections ``(V*N, D)`` with group ids ``(V*N,)``, a scalar."""
        return nt_xent(
            projections,
            group_ids,
            self.temperature,
            n_views=self.n_views,
            same_group=self.same_group,
            decoupled=self.decoupled,
            gather=self.gather,
        )

    def extra_repr(self) -> str:
        """The settings, for ``print(module)``."""
        names = ("temperature", "n_views", "same_group", "decoupled", "gather")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def masked_bce(logits: Tensor, labels: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, averaged over the labels that are known.

    Args:
        logits: float, shape ``(B, F)``.
        labels: shape ``(B, F)``: 1 (present), 0 (absent) or NaN (unknown, left out).
        pos_weight: shape ``(F,)``: how many times a present finding counts; None for once.

    Returns:
        A scalar in float32 (float64 for float64 logits); 0, with a gradient of zeros, when no label is known.

    Raises:
        ValueError: if the shapes differ or a label is none of 0, 1 and NaN.

    Example:
        >>> round(masked_bce(torch.tensor([[0.0, 9.0]]), torch.tensor([[1.0, float("nan")]])).item(), 4)
        0.6931
    """
    if logits.shape != labels.shape:
        raise ValueError(f"logits of shape {tuple(logits.shape)} do not go with labels of shape {tuple(labels.shape)}")
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    labels = labels.as_subclass(Tensor).to(logits.device, dtype)
    known = ~labels.isnan()
    strange = known & (labels != 0) & (labels != 1)
    if strange.any():
        raise ValueError(
            f"{int(strange.sum())} labels are none of 0, 1 and NaN, the first is {labels[strange][0].item():g}; "
            "write unknown or uncertain labels as NaN"
        )
    weight = None if pos_weight is None else pos_weight.to(logits.device, dtype)
    each = functional.binary_cross_entropy_with_logits(
        logits.as_subclass(Tensor).to(dtype), labels.nan_to_num(0.0), pos_weight=weight, reduction="none"
    )
    return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


class MaskedBCEWithLogits(nn.Module):
    """`masked_bce` as a module.

    Args:
        pos_weight: shape ``(F,)``, or a list of F numbers; None for no weighting.

    Example:
        >>> MaskedBCEWithLogits()(torch.zeros(1, 2), torch.full((1, 2), float("nan"))).item()
        0.0
    """

    pos_weight: Tensor | None

    def __init__(self, pos_weight: Tensor | list[float] | None = None) -> None:
        super().__init__()
        weight = None if pos_weight is None else torch.as_tensor(pos_weight, dtype=torch.float32)
        self.register_buffer("pos_weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over known labels of logits and labels ``(B, F)``, a scalar."""
        return masked_bce(logits, labels, self.pos_weight)


class _Contrast(torch.autograd.Function):
    """Mean over our rows of log-sum-exp minus the mean similarity to the positives, from normalized rows."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, candidates: Tensor, pull: Tensor, plan: _Plan) -> Tensor:
        lse, kept = _log_sums(candidates, plan, keep=ctx.needs_input_grad[0])
        ctx.plan = plan
        if ctx.needs_input_grad[0]:
            lse[...] = _gathered(lse[plan.ours], plan.world)
            ctx.save_for_backward(candidates, pull, lse, *kept)
        return (lse[plan.ours] - (local * pull).sum(1) / plan.temperature).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        plan: _Plan = ctx.plan
        candidates, pull, lse, *kept = ctx.saved_tensors
        with torch.autocast(candidates.device.type, enabled=False):
            push = _weighted_rows(candidates, lse, kept, plan)[plan.ours]
            # The similarity is symmetric, so every pair pulls twice: once as anchor, once as candidate.
            scale = grad_output * (plan.world / (len(candidates) * plan.temperature))
            return (push - 2 * pull) * scale, None, None, None


def _tiles(plan: _Plan, total: int) -> Iterator[tuple[slice, slice, bool]]:
    """Our rows against all columns; only the upper triangle (third item: has a mirror image) when all rows are ours."""
    everything = plan.rows == total
    end = plan.first + plan.rows
    for top in range(plan.first, end, plan.block):
        for left in range(top if everything else 0, total, plan.block):
            rows, columns = slice(top, min(top + plan.block, end)), slice(left, min(left + plan.block, total))
            yield rows, columns, everything and left > top


def _tile(z: Tensor, plan: _Plan, rows: slice, columns: slice) -> Tensor:
    """Exponentials of the similarities, 0 where a pair stays out; their logarithms (-inf) if they could overflow."""
    tile = (z[rows] / plan.temperature) @ z[columns].T
    if not plan.needs_shift:
        tile.exp_()
    out = -math.inf if plan.needs_shift else 0.0
    tile.diagonal(rows.start - columns.start).fill_(out)
    if plan.left_out is not None:
        alike = plan.left_out[rows, None] == plan.left_out[None, columns]
        if plan.keep_views:
            alike &= plan.images[rows, None] != plan.images[None, columns]
        tile.masked_fill_(alike, out)
    return tile


def _log_sums(z: Tensor, plan: _Plan, keep: bool) -> tuple[Tensor, list[Tensor]]:
    """The log-sum-exp of our rows, in a vector over all rows, and the tiles if they are few enough to keep."""
    tiles = list(_tiles(plan, len(z)))
    size = z.element_size() * sum((r.stop - r.start) * (c.stop - c.start) for r, c, _ in tiles)
    keep = keep and size <= _KEPT_BYTES
    kept: list[Tensor] = []
    sums = z.new_full((len(z),), -math.inf if plan.needs_shift else 0.0)
    for rows, columns, mirrored in tiles:
        tile = _tile(z, plan, rows, columns)
        _add_up(sums, rows, tile, 1, plan)
        if mirrored:
            _add_up(sums, columns, tile, 0, plan)
        if keep:
            kept.append(tile)
    return (sums if plan.needs_shift else sums.log_()), kept


def _add_up(sums: Tensor, where: slice, tile: Tensor, dim: int, plan: _Plan) -> None:
    if plan.needs_shift:
        sums[where] = torch.logaddexp(sums[where], tile.logsumexp(dim))
    else:
        sums[where] += tile.sum(dim)


def _weighted_rows(z: Tensor, lse: Tensor, kept: list[Tensor], plan: _Plan) -> Tensor:
    """Rows of ``(P + P^T) z``, where P holds the softmax probabilities; only our rows are filled."""
    result = torch.zeros_like(z)
    for number, (rows, columns, mirrored) in enumerate(_tiles(plan, len(z))):
        tile = kept[number] if kept else _tile(z, plan, rows, columns)
        if plan.needs_shift:
            weights = (tile - lse[rows, None]).exp_() + (tile - lse[None, columns]).exp_()
        else:
            weights = tile * ((-lse[rows, None]).exp() + (-lse[None, columns]).exp())
        result[rows] += weights @ z[columns]
        if mirrored:
            result[columns] += weights.T @ z[rows]
    return result


def _mean_of_positives(z: Tensor, n_views: int, world: int, groups: Tensor | None) -> Tensor:
    """For every row the mean of its positives: its other views, or all other rows of its group."""
    if groups is None:
        views = z.view(world, n_views, -1, z.shape[1])
        return ((views.sum(1, keepdim=True) - views) / (n_views - 1)).view_as(z)
    _, number, count = groups.unique(return_inverse=True, return_counts=True)
    sums = z.new_zeros(len(count), z.shape[1]).index_add_(0, number, z)
    return (sums[number] - z) / (count[number] - 1)[:, None]


def _left_out(
    groups: Tensor, images: Tensor, n_views: int, same_group: str, decoupled: bool
) -> tuple[Tensor | None, bool]:
    """The ids whose equality keeps a pair out of the denominator, and whether views of one image are spared."""
    if same_group == "negative":
        return (images if decoupled else None), False
    if same_group == "positive" and not decoupled:
        return None, False
    ordered = groups.sort().values
    one_a_group = ordered.view(-1, n_views)[:, 0]
    repeats = one_a_group[:-1] == one_a_group[1:]
    repeated, single = torch.stack([repeats.any(), repeats.all()]).tolist()
    if single:
        raise ValueError(
            f"all images of the batch belong to group {int(ordered[0])}, so none is left to be told apart; "
            "shuffle the images, or check the group ids"
        )
    if decoupled:
        return groups, False
    return (groups, True) if repeated else (None, False)


def _image_numbers(rows: int, n_views: int, world: int, device: torch.device) -> Tensor:
    """The number of every row's image among the images of all processes."""
    here = rows // n_views
    return torch.arange(world * here, device=device).view(world, 1, here).expand(-1, n_views, -1).reshape(-1)


def _processes() -> tuple[int, int]:
    ready = dist.is_available() and dist.is_initialized()
    return (dist.get_world_size(), dist.get_rank()) if ready else (1, 0)


def _gathered(tensor: Tensor, world: int) -> Tensor:
    """The tensors of all processes, one after the other; without a gradient."""
    if world == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world)]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def _check_options(temperature: float, n_views: int, same_group: str) -> None:
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
    if n_views < 2:
        raise ValueError(f"n_views must be at least 2, got {n_views}; a contrast needs two views of every image")
    if same_group not in get_args(SameGroup):
        raise ValueError(f"same_group must be one of {', '.join(get_args(SameGroup))}, got {same_group!r}")


def _check_settings(z: Tensor, ids: Tensor, temperature: float, n_views: int, same_group: str, block: int) -> None:
    _check_options(temperature, n_views, same_group)
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    if z.ndim != 2 or not z.is_floating_point():
        raise ValueError(f"projections must be float, of shape (views * images, D), got {z.dtype} {tuple(z.shape)}")
    if len(z) % n_views:
        raise ValueError(f"{len(z)} projections cannot be {n_views} views of every image; stack the views")
    if ids.shape != z.shape[:1] or ids.is_floating_point():
        raise ValueError(
            f"group_ids must be {len(z)} integers, one for each projection, got {ids.dtype} {tuple(ids.shape)}"
        )


def _check_batch(local: Tensor, groups: Tensor, n_views: int, world: int) -> None:
    """Refuse on every process what is wrong on any, so that none is left waiting for the others."""
    rows = groups.new_full((), len(local), dtype=torch.long)
    unlike = (groups.view(n_views, -1) != groups[: len(local) // n_views]).any()
    found = torch.stack([rows, (~local.isfinite().all(1)).sum(), unlike.long()])
    sizes, broken, mixed = zip(*_gathered(found, world).view(world, 3).tolist(), strict=True)
    if len(set(sizes)) > 1:
        images = ", ".join(f"rank {rank}: {size // n_views}" for rank, size in enumerate(sizes))
        raise ValueError(f"processes hold different numbers of images ({images}); drop the last partial batch")
    if sum(sizes) < 2 * n_views:
        raise ValueError(f"a contrast needs at least two images, got {sum(sizes) // n_views}")
    if any(broken):
        raise ValueError(
            f"{sum(broken)} of {sum(sizes)} projections are not finite; lower the learning rate, check inputs"
        )
    if any(mixed):
        raise ValueError("the views of one image have different group_ids; repeat the ids once for every view")
