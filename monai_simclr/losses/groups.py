"""Which rows are each other's positives, and which pairs stay out of the denominator."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

SameGroup = Literal["exclude", "negative", "positive"]


class Denominator(NamedTuple):
    """Which pairs count in each other's denominator: all but those with equal numbers, unless they are spared.

    Numbers are float32 (exact up to 2**24 rows): comparing floats into a float result, and multiplying by it, is ten
    times faster on a CPU than making and using a boolean mask.
    """

    left_out: tuple[Tensor, ...] = ()  # each (M,): two rows with equal numbers stay out ...
    spared: Tensor | None = None  # (M,): ... unless these are equal

    def counted(self, rows: slice, columns: slice) -> Tensor | None:
        """1 where a pair counts and 0 where it does not, shape (rows, columns); None where all count."""
        counted: Tensor | None = None
        for numbers in self.left_out:
            unlike = _compared(torch.ne, numbers, rows, columns)
            counted = unlike if counted is None else counted.mul_(unlike)
        if counted is not None and self.spared is not None:
            counted.add_(_compared(torch.eq, self.spared, rows, columns)).clamp_(max=1)
        return counted


def denominator(
    groups: Tensor, patients: Tensor | None, images: Tensor, same_group: SameGroup, decoupled: bool
) -> Denominator:
    """Whom the options leave out, from the numbers ``(M,)`` of every row's group, patient and image.

    Raises:
        ValueError: if one group or one patient holds all images and is left out, so that no negative is there.
    """
    positives = groups if same_group == "positive" else images
    candidates = {"group": groups} if same_group == "exclude" else {}
    if patients is not None:
        candidates["patient"] = patients
    if decoupled:
        candidates["group" if same_group == "positive" else "image"] = positives
    number_of_images = int(images[-1]) + 1
    left_out = []
    for name, ids in candidates.items():
        different, numbers = ids.unique(return_inverse=True)
        if len(different) == 1:
            _refuse_one_for_all(name, ids)
        # Without `decoupled`, ids that only the views of one image share leave nobody out.
        if decoupled or len(different) < number_of_images:
            left_out.append(numbers.float())
    spared = positives.unique(return_inverse=True)[1].float() if left_out and not decoupled else None
    return Denominator(tuple(left_out), spared)


def image_numbers(rows: int, n_views: int, world: int, device: torch.device) -> Tensor:
    """The number of every row's image among the images of all processes, int64 ``(world * rows,)``."""
    here = rows // n_views
    return torch.arange(world * here, device=device).view(world, 1, here).expand(-1, n_views, -1).reshape(-1)


def mean_of_positives(unit: Tensor, n_views: int, world: int, groups: Tensor | None) -> Tensor:
    """For every row ``(M, D)`` the mean of its positives: its other views, or all other rows of its group."""
    if groups is None:
        views = unit.view(world, n_views, -1, unit.shape[1])
        return (views.sum(1, keepdim=True) - views).div_(n_views - 1).view_as(unit)
    _, number, count = groups.unique(return_inverse=True, return_counts=True)
    sums = unit.new_zeros(len(count), unit.shape[1]).index_add_(0, number, unit)
    return sums[number].sub_(unit).div_((count[number] - 1)[:, None])


def _compared(relation: object, numbers: Tensor, rows: slice, columns: slice) -> Tensor:
    out = numbers.new_empty(rows.stop - rows.start, columns.stop - columns.start)
    return relation(numbers[rows, None], numbers[None, columns], out=out)  # type: ignore[operator,no-any-return]


def _refuse_one_for_all(name: str, ids: Tensor) -> None:
    raise ValueError(
        f"all images of the batch belong to {name} {int(ids[0])}, so none is left to be told apart; "
        f"shuffle the images, or check the {name} ids"
    )
