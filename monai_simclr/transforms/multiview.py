"""Several views of one image, each with its own copy of the transform and its own seed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms.transform import MapTransform, Randomizable, Transform
from monai.utils.misc import MAX_SEED

from monai_simclr.ops.keyed import KeyedRandom
from monai_simclr.transforms.base import BatchTransform, RandOperation


class MultiView(Randomizable, Transform):
    """Make several views of an image.

    Every view has its own deep copy of the transform, its own seed and its own clone of the image. A plain wrapper
    gives identical views under `monai.utils.set_determinism`, and frozen ones in `monai.data.CacheDataset`; this one is
    `Randomizable`, so that MONAI seeds it in workers and never caches its results.

    Args:
        transform: makes one view of one image; or one transform per view, for views of different strength.
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
        transforms = [transform] * n_views if callable(transform) else list(transform)
        if len(transforms) != n_views:
            raise ValueError(f"n_views is {n_views}, but {len(transforms)} transforms came; give one, or one per view")
        self.transforms = tuple(copy.deepcopy(each) for each in transforms)
        self.n_views = n_views
        self.set_random_state(seed=int(self.R.randint(MAX_SEED, dtype=np.uint32)))

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> MultiView:
        """Seed this transform, and every view with a seed of its own that follows from it."""
        super().set_random_state(seed, state)
        first = int(self.R.randint(MAX_SEED, dtype=np.uint32))
        for view, transform in enumerate(self.transforms):
            if isinstance(transform, Randomizable):
                transform.set_random_state(seed=(first + view) % int(MAX_SEED))  # distinct, whatever is drawn
        return self

    def __call__(self, img: Any) -> list[Any]:
        """Make `n_views` views of one image, shape ``(C, H, W)``; `img` is not written to."""
        return self.each([img] * self.n_views)

    def each(self, images: Sequence[Any]) -> list[Any]:
        """Make one view of each of `n_views` images, which are not written to."""
        views = []
        for transform, image in zip(self.transforms, images, strict=True):
            if not isinstance(transform, BatchTransform):  # ours never write to their input
                image = image.clone() if isinstance(image, torch.Tensor) else copy.deepcopy(image)
            views.append(transform(image))
        return views


class MultiViewd(Randomizable, MapTransform):
    """Make several views of the images under some keys: ``image`` gives ``image_1``, ``image_2``, ...

    The other keys, and the images themselves, stay as they are. See `MultiView` for why views differ.

    Args:
        keys: keys of the images.
        transform: see `MultiView`.
        n_views: see `MultiView`.
        allow_missing_keys: do not raise for a missing key.
        partner_key: key of another image of the same patient (`StoreDataset` with `second_view`): where an item has it,
            the views after the first are made of it (MedAug, Vu et al., MLHC 2021).

    Raises:
        ValueError: as `MultiView` does, and when called on a dictionary that already has such a key, or that has a
            partner and images under several of `keys`.

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
        partner_key: str = "partner",
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.multi_view = MultiView(transform, n_views)
        self.partner_key = partner_key

    @property
    def takes_batches(self) -> bool:
        """Whether `batch` works: every view is made by a transform that draws and applies."""
        return all(isinstance(transform, RandOperation) for transform in self.multi_view.transforms)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> MultiViewd:
        """Seed every view with a seed of its own."""
        super().set_random_state(seed, state)
        self.multi_view.set_random_state(seed, self.R if seed is None else None)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the views to the dictionary; `data` is not written to."""
        d = dict(data)
        for key in self.key_iterator(data):
            inputs = self._inputs(d, key)
            d.update(zip(inputs, self.multi_view.each([*inputs.values()]), strict=True))
        return d

    def batch(self, data: Mapping[Hashable, Any], random: KeyedRandom) -> dict[Hashable, Any]:
        """Add the views to a batch ``(B, 1, H, W)``, each a function of its image's key and the number of the view."""
        d = dict(data)
        for place, key in enumerate(self.key_iterator(data)):
            views = zip(self._inputs(d, key).items(), self.multi_view.transforms, strict=True)
            for number, ((name, images), transform) in enumerate(views, place * self.multi_view.n_views):
                d[name] = transform.batch(images, random.stream(number))  # type: ignore[attr-defined]
        return d

    def _inputs(self, d: Mapping[Hashable, Any], key: Hashable) -> dict[str, Any]:
        """The name of each view, and the image that it is made of."""
        images = [each for each in self.keys if each in d]
        if self.partner_key in d and len(images) > 1:
            raise ValueError(
                f"{self.partner_key!r} is another image for one key, but views are made of {images}; give each key a "
                "MultiViewd of its own, with its own partner_key"
            )
        others = d.get(self.partner_key, d[key])
        inputs = {f"{key}_{i + 1}": others if i else d[key] for i in range(self.multi_view.n_views)}
        taken = [name for name in inputs if name in d]
        if taken:
            raise ValueError(f"the views of {key!r} would overwrite the keys {taken}; rename or drop them")
        return inputs


MultiViewD = MultiViewDict = MultiViewd


class DrawViewsd(MultiViewd):
    """Draw the parameters of several views, which the device then makes of whole batches.

    ``image`` stays, and ``draws_1``, ``draws_2``, ... hold the parameters of its views: collated over a batch they are
    what `RandOperation.apply` takes. From the same state they are the views of `MultiViewd`.

    Args:
        keys: key of the image; one only.
        transform: a `RandOperation` that is always applied (``prob=1``), or one per view.
        n_views: see `MultiView`.
        allow_missing_keys: see `MultiViewd`.
        partner_key: see `MultiViewd`; the draws are the same with a partner and without.

    Raises:
        ValueError: as `MultiView` does, if there is more than one key, or if a transform is not always applied.
        TypeError: if a transform is no `RandOperation`.

    Example:
        >>> from monai_simclr.transforms import RandRadiographView
        >>> views = DrawViewsd("image", RandRadiographView(size=64)).set_random_state(0)
        >>> item = views({"image": torch.zeros(1, 80, 80, dtype=torch.uint8)})
        >>> sorted(item), item["draws_1"]["box"].shape
        (['draws_1', 'draws_2', 'image'], (4,))
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: Callable | Sequence[Callable],
        n_views: int = 2,
        allow_missing_keys: bool = False,
        partner_key: str = "partner",
    ) -> None:
        super().__init__(keys, transform, n_views, allow_missing_keys, partner_key)
        if len(self.keys) != 1:
            raise ValueError(f"DrawViewsd draws for one key, got {list(self.keys)}; use MultiViewd for several")
        for each in self.multi_view.transforms:
            if not isinstance(each, RandOperation):
                raise TypeError(
                    f"DrawViewsd needs a RandOperation, such as RandRadiographView, got {type(each).__name__}; "
                    "MultiViewd takes any transform"
                )
            if each.prob != 1:
                raise ValueError(
                    f"DrawViewsd needs a transform that is always applied, got {type(each).__name__} with "
                    f"prob={each.prob:g}; set prob=1, or use MultiViewd"
                )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the parameters to the dictionary; `data` is not written to."""
        return self._draw(data, lambda value: value[0], n=1)

    def batch(self, data: Mapping[Hashable, Any], random: KeyedRandom) -> dict[Hashable, Any]:
        """Add the parameters to a batch, those that `MultiViewd.batch` draws."""
        return self._draw(data, torch.from_numpy, len(random.rows), random)

    def _draw(
        self, data: Mapping[Hashable, Any], convert: Callable, n: int, random: KeyedRandom | None = None
    ) -> dict[Hashable, Any]:
        d = dict(data)
        for view, transform in enumerate(self.multi_view.transforms):
            assert isinstance(transform, RandOperation)
            transform.randomize_from(random and random.stream(view), n)
            d[f"draws_{view + 1}"] = {name: convert(value) for name, value in transform.drawn.items()}
        return d
