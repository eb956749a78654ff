"""NT-Xent, the contrastive loss of SimCLR, and its relatives, over all views of a batch on all processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from monai_simclr.losses.checks import check_batch, check_inputs, check_negatives, check_options, check_temperature
from monai_simclr.losses.groups import SameGroup, denominator, image_numbers, mean_of_positives
from monai_simclr.losses.tiles import Plan, log_sums, weighted_rows
from monai_simclr.runtime.distributed import gathered, processes

_SHORTEST = 1e-12  # a projection below this length has no direction: similarity 0 to all, and no gradient


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

    Rows `i`, `i + N`, ... are views of one image and are positives of each other. The similarity of two rows is their
    cosine divided by the temperature. An anchor's loss is the log of the summed exponentials over its denominator,
    minus the mean similarity to its positives. It is computed in float32 (float64 for float64 input) whatever autocast
    says, in tiles; beyond 32 MiB the tiles are not kept but computed again in the backward pass.

    Args:
        projections: float, shape ``(V*N, D)``, views stacked; any scale, they are normalized here.
        group_ids: int, shape ``(V*N,)``: the patient, study or label of each row, the same for the views of one image;
            with `collect_runs`, an id means the same in all processes.
        temperature: above 0.
        patient_ids: int, shape ``(V*N,)``, for when `group_ids` are something else: images of one patient stay out of
            each other's denominator, unless they are positives.
        n_views: V, at least 2.
        same_group: what other images of the same group are: ``"exclude"`` leaves them out of the denominator,
            ``"negative"`` treats them as any other image, ``"positive"`` as positives (with studies as ids: all images
            of a study; with labels: SupCon).
        decoupled: leave the positives out of the denominator.
        gather: compare with the images of all processes of ``torch.distributed``. The value is the mean over the
            anchors of all processes; the gradient is scaled so that averaging it over processes, as
            DistributedDataParallel does, gives exactly the gradient of one process with the whole batch.
        block: rows and columns of a tile, 0 for one that fits the device; changes speed and memory, not the result.

    Returns:
        A scalar, float32 or float64.

    Raises:
        ValueError: if a setting is out of range, shapes do not fit, the processes hold different numbers of images, or
            nothing is there to be told apart (fewer than two images, or one group).
        FloatingPointError: if a projection is not finite.

    Source:
        Chen et al. 2020, "A simple framework for contrastive learning" (NT-Xent). Khosla et al. 2020, "Supervised
        contrastive learning", equation 2. Yeh et al. 2022, "Decoupled contrastive learning".

    Example:
        >>> import math
        >>> views = torch.eye(2).repeat(2, 1)  # two images, each the same in both views, at right angles
        >>> loss = nt_xent(views, torch.tensor([0, 1, 0, 1]), temperature=1.0)
        >>> round(loss.item(), 4), round(math.log(math.e + 2) - 1, 4)
        (0.5514, 0.5514)
    """
    check_temperature(temperature)
    check_options(n_views, same_group, block)
    check_inputs(projections, {"group_ids": group_ids, "patient_ids": patient_ids}, n_views)
    block = block or (512 if projections.device.type == "cpu" else 4096)
    options = _Options(float(temperature), n_views, same_group, decoupled, gather, block)
    groups, patients = (None if ids is None else _plain(ids).to(projections.device) for ids in (group_ids, patient_ids))
    with torch.autocast(projections.device.type, enabled=False):
        loss: Tensor = _Contrast.apply(_plain(projections), groups, patients, options)
    return loss


class NTXentLoss(nn.Module):
    """`nt_xent` as a module, with its settings inside.

    Args:
        temperature: see `nt_xent`; or a function of the step, such as `CosineTemperature`.
        n_views: see `nt_xent`.
        same_group: see `nt_xent`.
        decoupled: see `nt_xent`.
        gather: compare with the images of all processes, when ``torch.distributed`` is initialized.

    Attributes:
        step: the number of the last training step: counted here, one for each call in training mode, unless a trainer
            sets it before the call. It is part of ``state_dict()``.

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
        check_temperature(temperature(0) if callable(temperature) else temperature)
        check_options(n_views, same_group)
        self.temperature = temperature
        self.n_views = n_views
        self.same_group: SameGroup = same_group
        self.decoupled = decoupled
        self.gather = gather
        self.step = 0

    def forward(self, projections: Tensor, group_ids: Tensor, patient_ids: Tensor | None = None) -> Tensor:
        """The loss of projections ``(V*N, D)``, a scalar.

        Args:
            projections: see `nt_xent`.
            group_ids: see `nt_xent`; or group and patient ids stacked, ``(2, V*N)``: MONAI's trainers hand over one
                tensor.
            patient_ids: see `nt_xent`.
        """
        self.step += self.training
        if patient_ids is None and group_ids.ndim == 2 and len(group_ids) == 2:
            group_ids, patient_ids = group_ids.unbind()
        temperature = self.temperature(self.step) if callable(self.temperature) else self.temperature
        try:
            return nt_xent(
                projections,
                group_ids,
                temperature,
                patient_ids=patient_ids,
                n_views=self.n_views,
                same_group=self.same_group,
                decoupled=self.decoupled,
                gather=self.gather,
            )
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
        names = ("temperature", "n_views", "same_group", "decoupled", "gather")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


class _Options(NamedTuple):
    temperature: float
    n_views: int
    same_group: SameGroup
    decoupled: bool
    gather: bool
    block: int


class _Contrast(torch.autograd.Function):
    """Mean over all anchors of log-sum-exp minus the mean similarity to the positives.

    The gradient for our rows needs all unit vectors and all log-sum-exps, which the forward pass has gathered; so the
    backward pass talks to no other process, and yet is that of a gather with autograd.
    """

    @staticmethod
    def forward(ctx: Any, projections: Tensor, groups: Tensor, patients: Tensor | None, options: _Options) -> Tensor:
        world, rank = processes() if options.gather else (1, 0)
        rows = projections.to(torch.float64 if projections.dtype == torch.float64 else torch.float32)
        lengths = torch.linalg.vector_norm(rows, dim=1)
        check_batch(lengths, groups, patients, options.n_views, world)
        unit = gathered(rows / lengths.clamp_min(_SHORTEST)[:, None], world)
        groups = gathered(groups, world)
        patients = None if patients is None else gathered(patients, world)
        images = image_numbers(len(rows), options.n_views, world, rows.device)
        outside = denominator(groups, patients, images, options.same_group, options.decoupled)
        plan = Plan(slice(rank * len(rows), (rank + 1) * len(rows)), options.temperature, outside, options.block)
        lse, kept = log_sums(unit, plan, keep=ctx.needs_input_grad[0])
        ctx.plan, ctx.dtype, ctx.world, ctx.n_views = plan, projections.dtype, world, options.n_views
        ctx.groups = groups if options.same_group == "positive" else None
        pull = mean_of_positives(unit, options.n_views, world, ctx.groups)[plan.ours]
        each = lse[plan.ours] - (unit[plan.ours] * pull).sum(1).div_(options.temperature)
        lse, each = gathered(torch.stack([lse[plan.ours], each], 1), world).unbind(1)
        if options.decoupled:
            check_negatives(lse)
        ctx.save_for_backward(unit, lengths, lse, *kept)
        return each.mean(dtype=torch.float64).to(unit.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        plan: Plan = ctx.plan
        unit, lengths, lse, *kept = ctx.saved_tensors
        with torch.autocast(unit.device.type, enabled=False):
            slope = weighted_rows(unit, lse, kept, plan)
            # The similarity is symmetric, so every pair pulls twice: once as anchor, once as candidate.
            slope.sub_(mean_of_positives(unit, ctx.n_views, ctx.world, ctx.groups)[plan.ours], alpha=2)
            slope.mul_(grad_output * (ctx.world / (len(unit) * plan.temperature)))
            ours = unit[plan.ours]
            slope.addcmul_(ours, (slope * ours).sum(1, keepdim=True), value=-1)  # along the sphere only
            slope.mul_(torch.where(lengths > _SHORTEST, 1 / lengths, 0.0)[:, None])
        return slope.to(ctx.dtype), None, None, None


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor)  # type: ignore[arg-type]
