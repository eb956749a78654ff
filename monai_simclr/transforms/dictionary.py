"""Dictionary transforms, made from the array transforms by one rule instead of by hand."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.traits import LazyTrait
from monai.transforms.transform import LazyTransform, MapTransform, Randomizable, RandomizableTransform, Transform

from monai_simclr.ops.keyed import KeyedRandom
from monai_simclr.transforms import array, lung_crops, views, window
from monai_simclr.transforms.base import Operation, RandOperation


class DictTransform(MapTransform):
    """An array transform over keys of a dictionary; what is random or looked up happens once, for all keys."""

    array_class: type[Transform]

    def __init__(self, keys: KeysCollection, *args: Any, allow_missing_keys: bool = False, **kwargs: Any) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if isinstance(self, RandomizableTransform):
            RandomizableTransform.__init__(self)  # with prob=1: the array transform decides
        self.transform: Any = self.array_class(*args, **kwargs)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Transform the images under the keys; `data` is not written to."""
        d = dict(data)
        options: dict[str, Any] = {} if lazy is None else {"lazy": lazy}
        for number, key in enumerate(self.key_iterator(d)):
            if number == 0:
                read = getattr(self.transform, "read_item", None)
                shared = {} if read is None else read(d, d[key], self.allow_missing_keys)
                if isinstance(self.transform, Randomizable):
                    self.transform.randomize(d[key], **shared)
                    shared = {"randomize": False}
                options |= shared
            d[key] = self.transform(d[key], **options)
        return d

    @property
    def takes_batches(self) -> bool:
        """Whether `batch` works: the array transform is one function on a batch."""
        return isinstance(self.transform, Operation | RandOperation)

    def batch(self, data: Mapping[Hashable, Any], random: KeyedRandom) -> dict[Hashable, Any]:
        """Transform whole batches, shape ``(B, 1, H, W)``, under the keys, which share one keyed draw."""
        d = dict(data)
        for key in self.key_iterator(d):
            keyed = (random.stream(0),) if isinstance(self.transform, RandOperation) else ()
            d[key] = self.transform.batch(d[key], *keyed)
        return d


class _Random(RandomizableTransform):
    """What MONAI asks of a random transform, passed on to the array transform, whose draws they are."""

    transform: Any

    def randomize(self, data: Any = None) -> None:
        self.transform.randomize(data)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> _Random:
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, self.R if seed is None else None)
        return self


class _Lazy(LazyTransform, InvertibleTransform):
    """What MONAI asks of a lazy, invertible transform, passed on to the array transform."""

    transform: Any

    @property
    def lazy(self) -> bool:
        return bool(self.transform.lazy)

    @lazy.setter
    def lazy(self, lazy: bool | None) -> None:
        self.transform.lazy = lazy

    @property
    def requires_current_data(self) -> bool:
        return bool(self.transform.requires_current_data)

    def inverse(self, data: Any) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):  # type: ignore[attr-defined]
            d[key] = self.transform.inverse(d[key])
        return d


def make_dict_transform(array_class: type[Transform]) -> type[Any]:
    """Make the dictionary form of an array transform.

    The result has the name of `array_class` and a ``d``, and its parameters and defaults, with `keys` before them and
    `allow_missing_keys` after them. All keys share one draw: use `MultiViewd` for views that differ. An array transform
    that needs other entries of the item has a method ``read_item(item, image, allow_missing_keys)``, which is asked
    once, with the first image, for arguments of its ``randomize`` (if it is random) or call.

    Args:
        array_class: a transform of one image: of this package, or a subclass of `Operation` or `RandOperation`.

    Returns:
        The class. Bind it to its own name in the module of `array_class` (in this one, for transforms of this package),
        so that it pickles and configs find it.

    Example:
        >>> import torch
        >>> Finishedd = make_dict_transform(array.ToNetworkInput)
        >>> sorted(Finishedd(keys="image", size=7)({"image": torch.zeros(1, 8, 8, dtype=torch.uint8), "id": 7}))
        ['id', 'image']
    """
    lazy, random = issubclass(array_class, LazyTrait), issubclass(array_class, Randomizable)
    bases = (DictTransform, *((_Random,) if random else ()), *((_Lazy,) if lazy else ()))
    keys = inspect.Parameter("keys", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="KeysCollection")
    allow = inspect.Parameter("allow_missing_keys", inspect.Parameter.KEYWORD_ONLY, default=False, annotation="bool")
    parameters = list(inspect.signature(array_class).parameters.values())
    rest = [each for each in parameters if each.kind == inspect.Parameter.VAR_KEYWORD]  # must stay the last one
    named = [each for each in parameters if each not in rest]
    ours = array_class.__module__.partition(".")[0] == __name__.partition(".")[0]
    namespace = {
        "__module__": __name__ if ours else array_class.__module__,
        "__qualname__": f"{array_class.__name__}d",
        "__doc__": f"`{array_class.__name__}` over keys of a dictionary, which share one draw.\n\n"
        f"Args:\n    keys: keys of the images.\n    allow_missing_keys: do not raise for a missing key.\n\n"
        f"The other arguments are those of `{array_class.__name__}`.",
        "array_class": array_class,
        "backend": getattr(array_class, "backend", []),
        "__signature__": inspect.Signature([keys, *named, allow, *rest]),
    }
    return type(f"{array_class.__name__}d", bases, namespace)


CLAHEd = CLAHED = CLAHEDict = make_dict_transform(array.CLAHE)
RandCLAHEd = RandCLAHED = RandCLAHEDict = make_dict_transform(array.RandCLAHE)
Windowd = WindowD = WindowDict = make_dict_transform(window.Window)
RandWindowd = RandWindowD = RandWindowDict = make_dict_transform(window.RandWindow)
ToStoredd = ToStoredD = ToStoredDict = make_dict_transform(array.ToStored)
ToNetworkInputd = ToNetworkInputD = ToNetworkInputDict = make_dict_transform(array.ToNetworkInput)
RandMildRotated = RandMildRotateD = RandMildRotateDict = make_dict_transform(array.RandMildRotate)
LungCropd = LungCropD = LungCropDict = make_dict_transform(lung_crops.LungCrop)
RandLungPreservingCropd = RandLungPreservingCropD = RandLungPreservingCropDict = make_dict_transform(
    lung_crops.RandLungPreservingCrop
)
RandRadiographViewd = RandRadiographViewD = RandRadiographViewDict = make_dict_transform(views.RandRadiographView)
