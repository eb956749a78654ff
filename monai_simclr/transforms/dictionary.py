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
from monai_simclr.transforms import array, spatial, views, window
from monai_simclr.transforms.base import Operation, RandOperation
from monai_simclr.transforms.lung_source import LungBoxMixin, as_image


class _OverKeys(MapTransform):
    """An array transform over keys of a dictionary; what is random is drawn once and shared by all keys."""

    array_class: type[Transform]

    def __init__(self, keys: KeysCollection, *args: Any, allow_missing_keys: bool = False, **kwargs: Any) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transform: Any = self.array_class(*args, **kwargs)

    def __call__(self, data: Mapping[Hashable, Any], **options: Any) -> dict[Hashable, Any]:
        d = dict(data)
        present = list(self.key_iterator(d))
        if present:
            options |= self._shared(d, present[0])
        for key in present:
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

    def _shared(self, d: Mapping[Hashable, Any], first: Hashable) -> dict[str, Any]:
        """What is drawn or looked up once, from the first key, and holds for all."""
        if not isinstance(self.transform, Randomizable):
            return {}
        self.transform.randomize(d[first])
        return {"randomize": False}


class _RandomOverKeys(_OverKeys, RandomizableTransform):
    def __init__(self, keys: KeysCollection, *args: Any, **kwargs: Any) -> None:
        _OverKeys.__init__(self, keys, *args, **kwargs)
        RandomizableTransform.__init__(self, prob=1.0)  # the array transform decides

    def randomize(self, data: Any = None) -> None:
        """Draw once, for all keys."""
        self.transform.randomize(data)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> _RandomOverKeys:
        """Seed the array transform too: the draws are its own."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, self.R if seed is None else None)
        return self


class _LazyOverKeys(_OverKeys, LazyTransform, InvertibleTransform):
    def __init__(self, keys: KeysCollection, *args: Any, **kwargs: Any) -> None:
        _OverKeys.__init__(self, keys, *args, **kwargs)
        LazyTransform.__init__(self, self.transform.lazy)

    @LazyTransform.lazy.setter  # type: ignore[attr-defined]
    def lazy(self, lazy: bool) -> None:
        self.transform.lazy = lazy
        self._lazy = lazy

    @property
    def requires_current_data(self) -> bool:
        return bool(self.transform.requires_current_data)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:  # type: ignore[override]
        return super().__call__(data, lazy=self.lazy if lazy is None else lazy)

    def inverse(self, data: Any) -> dict[Hashable, Any]:
        """Undo the transform of every key that is there."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform.inverse(d[key])
        return d


class _RandomLazyOverKeys(_LazyOverKeys, _RandomOverKeys):
    def __init__(self, keys: KeysCollection, *args: Any, **kwargs: Any) -> None:
        _LazyOverKeys.__init__(self, keys, *args, **kwargs)
        RandomizableTransform.__init__(self, prob=1.0)


class _FromLungsOverKeys(_LazyOverKeys):
    """Lungs are looked for in the first key, or under `lungs_key`; all keys get the same crop."""

    def _shared(self, d: Mapping[Hashable, Any], first: Hashable) -> dict[str, Any]:
        key = self.transform.lungs_key
        if key is not None and key not in d and not self.allow_missing_keys:
            raise KeyError(
                f"lungs_key={key!r} is not in the item, which has {sorted(map(str, d))}; "
                "with allow_missing_keys=True such items fall back to the other sources of a lung box"
            )
        given = self.transform.given_in(d, d[first])
        if not isinstance(self.transform, Randomizable):
            return {"lungs": self.transform.find(as_image(d[first]), given)}
        draws: Any = self.transform
        draws.randomize(d[first], given)
        return {"randomize": False}


class _RandomFromLungsOverKeys(_FromLungsOverKeys, _RandomLazyOverKeys):
    pass


def make_dict_transform(array_class: type[Transform]) -> type[Any]:
    """Make the dictionary form of an array transform.

    The result has the name of `array_class` and a ``d``, and its parameters and defaults, with `keys` before them and
    `allow_missing_keys` after them. All keys share one draw: use `MultiViewd` where views shall differ.

    Args:
        array_class: a transform of one image: of this package, or one of MONAI's.

    Returns:
        The class. Bind it to its own name in this module, so that it pickles and configs find it.

    Example:
        >>> import torch
        >>> Finishedd = make_dict_transform(array.ToNetworkInput)
        >>> sorted(Finishedd(keys="image", size=7)({"image": torch.zeros(1, 8, 8, dtype=torch.uint8), "id": 7}))
        ['id', 'image']
    """
    lazy, random = issubclass(array_class, LazyTrait), issubclass(array_class, Randomizable)
    base = {(False, False): _OverKeys, (False, True): _RandomOverKeys, (True, False): _LazyOverKeys}.get(
        (lazy, random), _RandomLazyOverKeys
    )
    if issubclass(array_class, LungBoxMixin):
        base = _RandomFromLungsOverKeys if random else _FromLungsOverKeys
    namespace = {
        "__module__": __name__,
        "__qualname__": f"{array_class.__name__}d",
        "__doc__": f"`{array_class.__name__}` over keys of a dictionary, which share one draw.\n\n"
        f"Args:\n    keys: keys of the images.\n    allow_missing_keys: do not complain about a missing key.\n\n"
        f"The other arguments are those of `{array_class.__name__}`.",
        "array_class": array_class,
        "backend": getattr(array_class, "backend", []),
        "__signature__": _signature(array_class),
    }
    return type(f"{array_class.__name__}d", (base,), namespace)


def _signature(array_class: type) -> inspect.Signature:
    own = list(inspect.signature(array_class).parameters.values())
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    keys = inspect.Parameter("keys", kind, annotation="KeysCollection")
    allow = inspect.Parameter("allow_missing_keys", inspect.Parameter.KEYWORD_ONLY, default=False, annotation="bool")
    return inspect.Signature([keys, *own, allow])


CLAHEd = CLAHED = CLAHEDict = make_dict_transform(array.CLAHE)
RandCLAHEd = RandCLAHED = RandCLAHEDict = make_dict_transform(array.RandCLAHE)
Windowd = WindowD = WindowDict = make_dict_transform(window.Window)
RandWindowd = RandWindowD = RandWindowDict = make_dict_transform(window.RandWindow)
ToStoredd = ToStoredD = ToStoredDict = make_dict_transform(array.ToStored)
ToNetworkInputd = ToNetworkInputD = ToNetworkInputDict = make_dict_transform(array.ToNetworkInput)
RandMildRotated = RandMildRotateD = RandMildRotateDict = make_dict_transform(spatial.RandMildRotate)
LungCropd = LungCropD = LungCropDict = make_dict_transform(spatial.LungCrop)
RandLungPreservingCropd = RandLungPreservingCropD = RandLungPreservingCropDict = make_dict_transform(
    spatial.RandLungPreservingCrop
)
RandRadiographViewd = RandRadiographViewD = RandRadiographViewDict = make_dict_transform(views.RandRadiographView)
