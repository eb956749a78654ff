"""NT-Xent, the contrastive loss of SimCLR, and its relatives, over all views of a batch on all processes.

With the projections scaled to length 1, ``u_i``, and similarities ``s_ij = u_i . u_j / T``, every row i is once the
*anchor*. It has *positives* P(i), such as the other view of its image, and a *denominator* A(i), the rows that compete:

    loss = mean over all i of  log( sum over j in A(i) of exp(s_ij) )  -  ( mean over j in P(i) of s_ij )

The options only decide who is in P(i) and A(i) (`nt_xent`, `_exclusions`). Similarities are symmetric, so each pair
pulls twice on ``u_i``, as its anchor and as its candidate. With the probabilities ``p_ij = exp(s_ij - lse_i)``, where
lse_i is the logarithm above, over M rows the gradient is

    d loss / d u_i = ( sum over j of (p_ij + p_ji) u_j  -  2 (mean over j in P(i) of u_j) ) / (T M)

The two sums over pairs are in `tiles`, which never holds the M x M matrix.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from monai_simclr.losses.tiles import Tiling, log_sums, weighted_rows
from monai_simclr.runtime.distributed import gathered, rank, world_size

SameGroup = Literal["exclude", "negative", "positive"]

_OPTIONS = ("n_views", "same_group", "decoupled", "gather")  # of `nt_xent`, which `NTXentLoss` holds
_SHORTEST = 1e-12  # a shorter projection counts as 0: similarity 0 to all, and no gradient


def nt_xent(
    projections: Tensor,
    group_ids: Tensor,
    temperature: float = 0.1,
    *,
    patient_ids: Tensor | None = None,
    n_views: int = 2,
    same_group: SameGroup = "exclude",
    decoupled: bool = False,
    gather: bool = False,
    block: int = 0,
) -> Tensor:
    """Normalized temperature-scaled cross-entropy over V views of N images, averaged over the V*N anchors.

    Rows `i`, `i + N`, ... are views of one image and are positives of each other. Computed in float32 (float64 for
    float64 input) whatever autocast says, in tiles; beyond 32 MiB the backward pass computes the tiles again.

    Args:
        projections: float, shape ``(V*N, D)``, views stacked; any scale, they are normalized here.
        group_ids: int, shape ``(V*N,)``: the patient, study or label of each row, the same for the views of one image;
            with `gather`, an id means the same in all processes.
        temperature: above 0.
        patient_ids: int, shape ``(V*N,)``, for when `group_ids` are something else: images of one patient are excluded
            from each other's denominator, unless they are positives.
        n_views: V, at least 2.
        same_group: what other images of the same group are: ``"exclude"`` excludes them from the denominator,
            ``"negative"`` treats them as any other image, ``"positive"`` as positives (with studies as ids: all images
            of a study; with labels: SupCon).
        decoupled: exclude the positives from the denominator.
        gather: compare with the images of all processes of ``torch.distributed``. The value is the mean over the
            anchors of all processes; the gradient is scaled so that averaging it over processes, as
            DistributedDataParallel does, gives exactly the gradient of one process with the whole batch.
        block: rows and columns of a tile, 0 for one that fits the device; changes speed and memory, not the result.

    Returns:
        A scalar, float32 or float64.

    Raises:
        ValueError: if a setting is out of range, shapes do not fit, the processes hold different numbers of images, or
            there is nothing to contrast (fewer than two images, or one group).
        FloatingPointError: if a projection is not finite.

    Source:
        Chen et al. 2020, "A simple framework for contrastive learning" (NT-Xent). Khosla et al. 2020, "Supervised
        contrastive learning", equation 2. Yeh et al. 2022, "Decoupled contrastive learning".

    Example:
        >>> views = torch.eye(2).repeat(2, 1)  # two images, each the same in both views, at right angles
        >>> loss = nt_xent(views, torch.tensor([0, 1, 0, 1]), temperature=1.0)
        >>> round(loss.item(), 4), round(math.log(math.e + 2) - 1, 4)
        (0.5514, 0.5514)
    """
    _check_settings(temperature, n_views, same_group, block)
    _check_shapes(projections, {"group_ids": group_ids, "patient_ids": patient_ids}, n_views)
    device, rows = projections.device, len(projections)
    world, this_rank = (world_size(), rank()) if gather else (1, 0)
    projections = projections.as_subclass(Tensor)  # type: ignore[arg-type]
    groups = group_ids.as_subclass(Tensor).to(device)  # type: ignore[arg-type]
    patients = None if patient_ids is None else patient_ids.as_subclass(Tensor).to(device)  # type: ignore[arg-type]
    with torch.autocast(device.type, enabled=False), torch.no_grad():
        wide = projections.to(torch.promote_types(projections.dtype, torch.float32))
        lengths = torch.linalg.vector_norm(wide, dim=1)
        _check_batch(lengths, groups, patients, n_views, world)
        unit = gathered(wide / lengths.clamp_min(_SHORTEST)[:, None], world)
        groups, patients = gathered(groups, world), None if patients is None else gathered(patients, world)
        images = torch.arange(world * rows // n_views, device=device)
        image_ids = images.view(world, 1, -1).expand(-1, n_views, -1).flatten()
        excluded, exempt = _exclusions(groups, patients, image_ids, same_group, decoupled)
        ours, tile = slice(this_rank * rows, (this_rank + 1) * rows), 512 if device.type == "cpu" else 4096
        tiling = Tiling(ours, float(temperature), excluded, exempt, block or tile)
    of_a_group = groups if same_group == "positive" else None
    positives = functools.partial(_mean_of_positives, n_views=n_views, world=world, groups=of_a_group)
    with torch.autocast(device.type, enabled=False):
        loss: Tensor = _NTXent.apply(projections, lengths, unit, positives, tiling)
    return loss


class NTXentLoss(nn.Module):
    """`nt_xent` as a module, with its settings inside.

    Args:
        temperature: see `nt_xent`; or a function of the step, such as `CosineTemperature`.
        n_views: see `nt_xent`.
        same_group: see `nt_xent`.
        decoupled: see `nt_xent`.
        gather: see `nt_xent`; without ``torch.distributed`` there is one process.

    Attributes:
        step: number of the last training step, part of ``state_dict()``: counted here, one per call in training mode,
            unless a trainer sets it before the call.

    Raises:
        ValueError: see `nt_xent`.
        FloatingPointError: if a projection is not finite (names the step).

    Example:
        >>> criterion = NTXentLoss(temperature=0.5)
        >>> criterion(torch.eye(4), torch.tensor([0, 1, 0, 1])).item() > 0
        True
    """

    def __init__(
        self,
        temperature: float | Callable[[int], float] = 0.1,
        n_views: int = 2,
        same_group: SameGroup = "exclude",
        decoupled: bool = False,
        gather: bool = True,
    ) -> None:
        super().__init__()
        _check_settings(temperature(0) if callable(temperature) else temperature, n_views, same_group)
        self.temperature, self.step = temperature, 0
        self.n_views, self.same_group, self.decoupled, self.gather = n_views, same_group, decoupled, gather

    def forward(self, projections: Tensor, group_ids: Tensor, patient_ids: Tensor | None = None) -> Tensor:
        """See `nt_xent`; ids may be stacked, groups and patients ``(2, V*N)``: MONAI's trainers pass one tensor."""
        self.step += self.training
        if patient_ids is None and group_ids.ndim == 2 and len(group_ids) == 2:
            group_ids, patient_ids = group_ids.unbind()
        temperature = self.temperature(self.step) if callable(self.temperature) else self.temperature
        try:
            options = {name: getattr(self, name) for name in _OPTIONS}
            return nt_xent(projections, group_ids, temperature, patient_ids=patient_ids, **options)
        except FloatingPointError as error:
            raise FloatingPointError(f"step {self.step}: {error}") from None

    def get_extra_state(self) -> dict[str, int]:
        """The step, for ``state_dict()``."""
        return {"step": self.step}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Continue counting from a saved step."""
        self.step = int(state["step"])

    def extra_repr(self) -> str:
        """The settings, for ``print(module)``."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in ("temperature", *_OPTIONS))


class CosineTemperature:
    """Temperature that follows a cosine of the step, from `high` to `low` and back in a period.

    A low temperature spreads single images apart, a high one groups them; alternating helps on long-tailed
    collections, which archives of radiographs are. It is a function of the step alone, so a resumed run continues it.

    Args:
        low: lowest temperature, above 0.
        high: highest temperature, at least `low`.
        period: steps from high to high, above 0.

    Raises:
        ValueError: if a setting is out of range.

    Source:
        Kukleva et al. 2023, "Temperature schedules for self-supervised contrastive methods on long-tail data",
        equation 3 (0.1 to 1.0).

    Example:
        >>> temperature = CosineTemperature(0.1, 1.0, period=100)
        >>> [round(temperature(step), 2) for step in (0, 25, 50, 100)]
        [1.0, 0.55, 0.1, 1.0]
    """

    def __init__(self, low: float, high: float, period: int) -> None:
        if not 0 < low <= high < math.inf:
            raise ValueError(f"temperatures must be above 0, the low one not above the high one, got {low} and {high}")
        if period <= 0:
            raise ValueError(f"period must be above 0 steps, got {period}")
        self.low, self.high, self.period = float(low), float(high), int(period)

    def __call__(self, step: int) -> float:
        """The temperature of a step."""
        share = (1 + math.cos(2 * math.pi * step / self.period)) / 2
        return self.low + (self.high - self.low) * share

    def __repr__(self) -> str:
        return f"CosineTemperature(low={self.low}, high={self.high}, period={self.period})"


class _NTXent(torch.autograd.Function):
    """The two formulas at the top of this file.

    The gradient for our rows needs all unit vectors and all log-sum-exps, which the forward pass has gathered. So the
    backward pass needs no communication, and yet is that of a gather with autograd.
    """

    @staticmethod
    def forward(
        ctx: Any, projections: Tensor, lengths: Tensor, unit: Tensor, positives: Callable, tiling: Tiling
    ) -> Tensor:
        ours, world = tiling.ours, len(unit) // len(lengths)
        lse, kept = log_sums(unit, tiling, keep=ctx.needs_input_grad[0])
        attraction = (unit[ours] * positives(unit)[ours]).sum(1).div_(tiling.temperature)
        lse, each = gathered(torch.stack([lse[ours], lse[ours] - attraction], 1), world).unbind(1)
        if tiling.excluded and tiling.exempt is None:  # decoupled: a denominator may be empty
            alone = int(lse.isneginf().sum())
            if alone:
                raise ValueError(
                    f"{alone} of {len(lse)} projections have no negative: all other images are of their group or "
                    "patient, and decoupled=True excludes the positives too; use a larger batch, or decoupled=False"
                )
        ctx.positives, ctx.tiling, ctx.dtype = positives, tiling, projections.dtype
        ctx.save_for_backward(unit, lengths, lse, *kept)
        return each.mean(dtype=torch.float64).to(unit.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        unit, lengths, lse, *kept = ctx.saved_tensors
        tiling: Tiling = ctx.tiling
        with torch.autocast(unit.device.type, enabled=False):
            slope = weighted_rows(unit, lse, kept, tiling)
            slope.sub_(ctx.positives(unit)[tiling.ours], alpha=2)
            ours, world = unit[tiling.ours], len(unit) // len(lengths)
            # times the number of processes, because DistributedDataParallel takes the mean over them
            slope.mul_(grad_output * (world / (len(unit) * tiling.temperature)))
            slope.addcmul_(ours, (slope * ours).sum(1, keepdim=True), value=-1)  # along the sphere only
            slope.mul_(torch.where(lengths > _SHORTEST, 1 / lengths, 0.0)[:, None])  # from unit vectors to projections
        return slope.to(ctx.dtype), None, None, None, None


def _mean_of_positives(unit: Tensor, n_views: int, world: int, groups: Tensor | None) -> Tensor:
    """For every row ``(M, D)`` the mean of its positives: its other views, or all other rows of its group."""
    if groups is None:
        views = unit.view(world, n_views, -1, unit.shape[1])
        return (views.sum(1, keepdim=True) - views).div_(n_views - 1).view_as(unit)
    _, number, count = groups.unique(return_inverse=True, return_counts=True)
    sums = unit.new_zeros(len(count), unit.shape[1]).index_add_(0, number, unit)
    return sums[number].sub_(unit).div_((count[number] - 1)[:, None])


def _exclusions(
    groups: Tensor, patients: Tensor | None, image_ids: Tensor, same_group: SameGroup, decoupled: bool
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Numbers ``(M,)`` that exclude two rows from each other's denominator where equal, and those that exempt them."""
    positives = groups if same_group == "positive" else image_ids
    candidates = {"group": groups} if same_group == "exclude" else {}
    if patients is not None:
        candidates["patient"] = patients
    if decoupled:
        candidates["group" if same_group == "positive" else "image"] = positives
    excluded = []
    for name, ids in candidates.items():
        different, numbers = ids.unique(return_inverse=True)
        if len(different) == 1:
            raise ValueError(
                f"all images of the batch belong to {name} {int(ids[0])}, so there is nothing to contrast; "
                f"shuffle the images, or check the {name} ids"
            )
        # unless decoupled, ids that only the views of one image share exclude nothing
        if decoupled or len(different) <= int(image_ids[-1]):
            excluded.append(numbers.float())
    exempt = positives.unique(return_inverse=True)[1].float() if excluded and not decoupled else None
    return tuple(excluded), exempt


def _check_settings(temperature: float, n_views: int, same_group: str, block: int = 0) -> None:
    """Refuse settings that are wrong whatever the batch is."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
    if n_views < 2:
        raise ValueError(f"n_views must be at least 2, got {n_views}; a contrast needs two views of every image")
    if same_group not in get_args(SameGroup):
        raise ValueError(f"same_group must be one of {', '.join(get_args(SameGroup))}, got {same_group!r}")
    if block < 0:
        raise ValueError(f"block must be at least 1, or 0 for one that fits the device, got {block}")


def _check_shapes(projections: Tensor, ids: dict[str, Tensor | None], n_views: int) -> None:
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
                f"{name} must be {rows} integers, one per projection, got {numbers.dtype} {tuple(numbers.shape)}"
            )


def _check_batch(lengths: Tensor, groups: Tensor, patients: Tensor | None, n_views: int, world: int) -> None:
    """Refuse on every process what is wrong on any, so that none waits for the others: they share four numbers."""
    rows = torch.full((), len(lengths), device=lengths.device)
    mixed = [
        torch.full_like(rows, -1) if ids is None else (ids.view(n_views, -1) != ids[: len(ids) // n_views]).sum()
        for ids in (groups, patients)
    ]
    counts = gathered(torch.stack([rows, (~lengths.isfinite()).sum(), *mixed])[None], world)
    sizes, broken, *mixed_ids = zip(*counts.tolist(), strict=True)
    if len(set(sizes)) > 1:
        images = ", ".join(f"rank {number}: {size // n_views}" for number, size in enumerate(sizes))
        raise ValueError(f"processes hold different numbers of images ({images}); drop the last partial batch")
    if sum(sizes) < 2 * n_views:
        raise ValueError(f"a contrast needs at least two images, got {sum(sizes) // n_views}")
    if any(broken):
        raise FloatingPointError(
            f"{sum(broken)} of {sum(sizes)} projections are not finite; lower the learning rate, check inputs"
        )
    if len({count < 0 for count in mixed_ids[1]}) > 1:
        raise ValueError("some processes pass patient_ids and some do not; pass them on all or on none")
    for name, different in zip(("group_ids", "patient_ids"), mixed_ids, strict=True):
        if max(different) > 0:
            raise ValueError(f"the views of one image have different {name}; repeat the ids once for every view")
