"""Views whose parameters are drawn in the workers and applied later, to the whole batch on the device."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch

from monai_simclr.ops.keyed import KeyedRandom
from monai_simclr.transforms.base import RandOperation
from monai_simclr.transforms.multiview import MultiViewd


class DrawViewsd(MultiViewd):
    """Draw the parameters of several views, and leave the image as it is.

    ``image`` stays, and ``draws_1``, ``draws_2``, ... hold the parameters of its views, as `RandOperation.draw` gives
    them, without their leading axis: collated over a batch they are what `apply` takes. The seeds are those of
    `MultiViewd`, so the same state draws the same views.

    Args:
        keys: key of the image; one only.
        transform: a `RandOperation` that is always applied (``prob=1``).
        n_views: how many views, at least 2.

    Example:
        >>> import torch
        >>> from monai_simclr.transforms import RandRadiographView
        >>> views = DrawViewsd("image", RandRadiographView(size=64)).set_random_state(0)
        >>> item = views({"image": torch.zeros(1, 80, 80, dtype=torch.uint8)})
        >>> sorted(item), item["draws_1"]["box"].shape
        (['draws_1', 'draws_2', 'image'], (4,))
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Give the dictionary with the parameters added; `data` is not written to."""
        d = dict(data)
        for number, transform in enumerate(self.multi_view.transforms, start=1):
            assert isinstance(transform, RandOperation)
            transform.randomize(n=1)
            d[f"draws_{number}"] = {name: value[0] for name, value in transform.drawn.items()}
        return d

    def batch(self, data: Mapping[Hashable, Any], random: KeyedRandom) -> dict[Hashable, Any]:
        """Give a batch with the parameters added, those that `MultiViewd.batch` draws."""
        d = dict(data)
        for view, transform in enumerate(self.multi_view.transforms):
            assert isinstance(transform, RandOperation)
            transform.randomize_from(random.stream(view), len(random.rows))
            d[f"draws_{view + 1}"] = {name: torch.from_numpy(value) for name, value in transform.drawn.items()}
        return d
