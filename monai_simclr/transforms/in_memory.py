"""Images that come as arrays instead of files, as from MONAI Deploy's operators."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform

_CANONICAL, _FILE = "photometric_interpretation", "filename_or_obj"  # left by our reader, and by LoadImage


def canonical(values: np.ndarray) -> np.ndarray:
    """Turn one radiograph's values into a canonical image, by percentiles 0.5 to 99.5 of them.

    An array does not say which values are of interest (the window in a DICOM header), so it is treated as a file
    without a window; where most of an image is background, so that the percentiles are equal, its extremes count.

    Args:
        values: after rescale, bright = dense; shape ``(W, H, 1)`` or ``(W, H)``, as MONAI's readers and the operators
            of MONAI Deploy give it, or ``(1, H, W)``, as Deploy does where the header has no pixel spacing.

    Returns:
        float32 ``(1, H, W)`` in [0, 1].

    Raises:
        ValueError: if it is not a single plane, not finite, or constant.

    Example:
        >>> canonical(np.arange(6.0).reshape(3, 2, 1)).shape
        (1, 2, 3)
    """
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0].T
    elif values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    elif values.ndim == 2:
        values = values.T
    else:
        raise ValueError(
            f"an image in memory is one plane, (W, H, 1), (W, H) or (1, H, W), got {values.shape}; give it one "
            "image of a series at a time"
        )
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"an image in memory needs finite pixels, got {values.shape} with some that are not, or none")
    low, high = (float(level) for level in np.percentile(values.astype(np.float64), (0.5, 99.5)))
    if low >= high:
        low, high = float(values.min()), float(values.max())
    if low == high:
        raise ValueError(f"an image in memory is one value all over ({low:g}); a radiograph has contrast")
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)[None]


class FromMemoryd(MapTransform):
    """Turn arrays in memory into canonical images; what `RadiographReader` has read stays as it is.

    MONAI Deploy replaces ``LoadImage`` in a bundle's preprocessing by the array of a DICOM series: rescaled and of the
    right polarity, but in other axes, in the vendor's unit, and without its window. Its metadata name the patient and
    are dropped.

    Example:
        >>> FromMemoryd("image")({"image": np.arange(6.0).reshape(3, 2, 1)})["image"].shape
        torch.Size([1, 2, 3])
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            if not (isinstance(image, MetaTensor) and _CANONICAL in image.meta):
                d[key] = MetaTensor(torch.from_numpy(canonical(np.asarray(image))), meta={})
        return d


class PlainImaged(MapTransform):
    """Drop MONAI's metadata, which neither training nor inference uses, from images that were files.

    An image from memory stays a `MetaTensor`: MONAI Deploy asks it for its metadata after the network has run.

    Example:
        >>> image = MetaTensor(torch.zeros(1, 2, 2), meta={"filename_or_obj": "a.png"})
        >>> type(PlainImaged("image")({"image": image})["image"])
        <class 'torch.Tensor'>
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            if isinstance(d[key], MetaTensor) and _FILE in d[key].meta:
                d[key] = d[key].as_tensor()
        return d
