"""The family of transforms that the contract is about, and how to make each of them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform

from monai_simclr import transforms

ARGUMENTS: dict[str, dict[str, Any]] = {
    "CLAHE": {},
    "Window": {"center": 0.5, "width": 0.8},
    "ToStored": {"size": 32},
    "ToNetworkInput": {"size": 32},
    "RandCLAHE": {"prob": 0.5},
    "RandWindow": {"prob": 0.5},
    "RandRadiographView": {"size": 32},
    "RandMildRotate": {"prob": 0.5},
    "LungCrop": {},
    "RandLungPreservingCrop": {},
}
SPATIAL = ("RandMildRotate", "LungCrop", "RandLungPreservingCrop")
BATCHED = tuple(name for name in ARGUMENTS if name not in SPATIAL)
RANDOM = tuple(name for name in ARGUMENTS if name.startswith("Rand"))
GATED = ("RandCLAHE", "RandWindow", "RandMildRotate")
DTYPES = ("uint8", "uint16", "float32", "float64")
TAKES = {"ToStored": ("float32", "float64"), "ToNetworkInput": ("uint8",)}
GIVES = {"ToStored": "uint8", "ToNetworkInput": "float32"}


def makes(name: str, dtype: str) -> str:
    """Name of the dtype that a transform makes of another."""
    if "Window" in name:
        return dtype if dtype.startswith("float") else "float32"
    if name == "RandMildRotate":
        return "float32" if dtype.startswith("float") else dtype  # MONAI rotates in float32
    return GIVES.get(name, dtype)


def takes(name: str, dtype: str) -> bool:
    return dtype in TAKES.get(name, DTYPES)


def dtype_of(name: str) -> str:
    """A dtype that a transform takes."""
    return "uint8" if name == "ToNetworkInput" else "float32"


def public() -> set[str]:
    """Names of our array transforms, as `monai_simclr.transforms` exports them."""
    base = (transforms.Operation, transforms.RandOperation, transforms.MultiView)
    return {
        name
        for name, kind in vars(transforms).items()
        if inspect.isclass(kind)
        and issubclass(kind, Transform)
        and kind not in base
        and not issubclass(kind, MapTransform)
    }


def pixels(dtype: str = "float32", count: int = 4, channels: int = 1, size: int = 64) -> np.ndarray:
    """Smooth images, shape ``(count, channels, size, size)``, over the whole range of their dtype."""
    coarse = np.random.RandomState(0).rand(count, channels, 8, 8)
    smooth = np.kron(coarse, np.ones((size // 8, size // 8)))
    smooth = (smooth + np.roll(smooth, 3, -1) + np.roll(smooth, 2, -2)) / 3
    top = {"uint8": 255, "uint16": 65535}.get(dtype)
    return smooth.astype(dtype) if top is None else np.rint(smooth * top).astype(dtype)


def arguments(name: str, dtype: str = "float32") -> dict[str, Any]:
    """Constructor arguments; a window is in the unit of the image."""
    given = dict(ARGUMENTS[name])
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    return {key: value * top if key in ("center", "width") else value for key, value in given.items()}


def array(name: str, dtype: str = "float32", seed: int = 3, **changes: Any) -> Any:
    return _seeded(getattr(transforms, name)(**{**arguments(name, dtype), **changes}), seed)


def dictionary(name: str, keys: Any = "image", dtype: str = "float32", seed: int = 3, **changes: Any) -> Any:
    return _seeded(getattr(transforms, f"{name}d")(keys, **{**arguments(name, dtype), **changes}), seed)


def _seeded(transform: Any, seed: int) -> Any:
    return transform.set_random_state(seed) if isinstance(transform, Randomizable) else transform


def layouts(image: np.ndarray) -> dict[str, Any]:
    """One image, shape ``(..., H, W)``, in every layout of memory that pipelines leave; each is compared with its copy.

    MONAI's Transposed, Flipd, Rotate90d, EnsureChannelFirst(channel_dim=-1) and CacheDataset make these.
    """
    swapped = np.ascontiguousarray(np.swapaxes(image, -1, -2))
    wide = np.repeat(np.repeat(image, 2, -1), 2, -2)
    last = np.ascontiguousarray(np.moveaxis(image, -3, -1))
    locked = image.copy()
    locked.flags.writeable = False
    shape, row = image.shape, image[..., :1, :].copy()
    arrays = {
        "transposed": np.swapaxes(swapped, -1, -2),
        "strided": wide[..., ::2, ::2],
        "channel last": np.moveaxis(last, -1, -3),
    }
    tensors = {f"tensor, {name}": torch.from_numpy(each.copy(order="K")) for name, each in arrays.items()}
    tensors["tensor, strided"] = torch.from_numpy(wide)[..., ::2, ::2]
    tensors["tensor, expanded"] = torch.from_numpy(row).expand(shape)
    if image.ndim == 4:
        tensors["channels_last"] = torch.from_numpy(image.copy()).contiguous(memory_format=torch.channels_last)
    return {
        **arrays,
        "negative strides": image[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
        "read-only": locked,
        "broadcast": np.broadcast_to(row, shape),
        "other byte order": image.astype(image.dtype.newbyteorder(">")),
        **tensors,
        **{name.replace("tensor", "MetaTensor"): MetaTensor(each) for name, each in tensors.items()},
    }


def copy_of(image: Any) -> torch.Tensor:
    """The same values as a tensor of its own, in plain rows."""
    array = np.ascontiguousarray(image.numpy() if isinstance(image, torch.Tensor) else image)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")).copy())


def plain(image: Any) -> torch.Tensor:
    return image.as_tensor() if hasattr(image, "as_tensor") else torch.as_tensor(image)
