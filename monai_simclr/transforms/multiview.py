"""Several views of one image, which differ: every view has its own copy of the transform and its own seed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms.transform import MapTransform, Randomizable, Transform
from monai.utils.misc import MAX_SEED

from monai_simclr.transforms.base import BatchTransform

__all__ = ["MultiView", "MultiViewD", "MultiViewDict", "MultiViewd"]


class MultiView(Randomizable, Transform):
    """Make several views of an image.

    Every view has its own deep copy of the transform, its own seed and its own clone of the image. A plain wrapper
    gives identical views under `monai.utils.set_determinism`, and frozen ones in `monai.data.CacheDataset`; this one is
    `Randomizable`, so that MONAI seeds it in workers and never caches what it makes.

    Args:
        transform: makes one view of one image; or one transform a view, for views of different strength.
        n_views: how many views, at least 2.

    Raises:
        ValueError: if `n_views` is less than 2, or not the length of a list of transforms.

    Example:
        >>> from monai_simclr.transforms import RandRadiographView
        >>> views = MultiView(RandRadiographView(size=64)).set_random_state(0)
        >>> one, two = views(torch.randint(0, 256, (1, 80, 80), dtype=torch.uint8))
        >>> one.shape == two.shape, torch.equal(one, two)
        (True, False)
    """

    def __init__(self, transform: Callable | Sequence[Callable], n_views: int = 2) -> None:
        if n_views < 2:
            raise ValueError(f"n_views must be at least 2, got {n_views}")
        # a Compose is a callable and no sequence, whatever it holds
        transforms = [transform] * n_views if callable(transform) else list(transform)
        if len(transforms) != n_views:
            raise ValueError(f"n_views is {n_views}, but {len(transforms)} transforms came; give one each, or one")
        self.transforms = tuple(copy.deepcopy(one) for one in transforms)
        self.n_views = n_views
        self.set_random_state(seed=int(self.R.randint(MAX_SEED, dtype=np.uint32)))

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> MultiView:
        """Seed this transform, and every view with a seed of its own that follows from it."""
        super().set_random_state(seed, state)
        first = int(self.R.randint(MAX_SEED, dtype=np.uint32))
        for view, one in enumerate(self.transforms):
            if isinstance(one, Randomizable):
                one.set_random_state(seed=(first + view) % int(MAX_SEED))  # distinct, whatever is drawn
        return self

    def __call__(self, img: Any) -> list[Any]:
        """Give `n_views` views of one image, shape ``(C, H, W)``; `img` is not written to."""
        # ours never write to what they get
        return [one(img if isinstance(one, BatchTransform) else _clone(img)) for one in self.transforms]


class MultiViewd(Randomizable, MapTransform):
    """Make several views of the images under some keys: ``image`` gives ``image_1``, ``image_2``, ...

    The other keys, and the images themselves, stay as they are. See `MultiView` for why views differ.

    Args:
        keys: keys of the images.
        transform: array transform that makes one view; or one a view.
        n_views: how many views, at least 2.
        allow_missing_keys: do not complain about a missing key.

    Raises:
        ValueError: as `MultiView` does, and when called on a dictionary that already has such a key.

    Example:
        >>> from monai_simclr.transforms import RandRadiographView
        >>> item = {"image": torch.zeros(1, 80, 80, dtype=torch.uint8), "patient_id": "7"}
        >>> sorted(MultiViewd("image", RandRadiographView(size=64))(item))
        ['image', 'image_1', 'image_2', 'patient_id']
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: Callable | Sequence[Callable],
        n_views: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.multi_view = MultiView(transform, n_views)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> MultiViewd:
        """Seed every view with a seed of its own."""
        super().set_random_state(seed, state)
        self.multi_view.set_random_state(seed, self.R if seed is None else None)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Give the dictionary with the views added; `data` is not written to."""
        d = dict(data)
        for key in self.key_iterator(data):
            names = [f"{key}_{i + 1}" for i in range(self.multi_view.n_views)]
            taken = [name for name in names if name in d]
            if taken:
                raise ValueError(f"the views of {key!r} would overwrite the keys {taken}; rename or drop them")
            d.update(zip(names, self.multi_view(d[key]), strict=True))
        return d


MultiViewD = MultiViewDict = MultiViewd


def _clone(image: Any) -> Any:
    return image.clone() if isinstance(image, torch.Tensor) else copy.deepcopy(image)
