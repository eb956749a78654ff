"""Pipelines that all configs share: preprocessing, views for pretraining, augmentation for fine-tuning."""

from __future__ import annotations

import logging
import warnings
from typing import Any, Literal, get_args

from monai.config import KeysCollection
from monai.transforms import Compose, LoadImaged, MapTransform

from monai_simclr.data.radiograph import DEFAULT_SETTINGS
from monai_simclr.ops.geometry import to_network_input as to_network_input
from monai_simclr.transforms.dictionary import RandRadiographViewd, ToNetworkInputd, ToStoredd
from monai_simclr.transforms.in_memory import FromMemoryd, PlainImaged
from monai_simclr.transforms.views import (
    RandRadiographView,
    ViewDetector,
    ViewExposure,
    ViewPositioning,
    ViewProcessing,
)

Strength = Literal["mild", "default", "moco_cxr", "simclr", "phantom"]
"""Names of the presets of `views`."""

_PRESETS: dict[str, dict[str, Any]] = {
    "mild": {
        "positioning": ViewPositioning(scale=(0.5, 1.0)),
        "detector": ViewDetector(prob_blur=0.0, noise_std=(0.0, 0.02), prob_noise=0.3),
    },
    "default": {
        "positioning": ViewPositioning(scale=(0.3, 1.0)),
        "exposure": ViewExposure(brightness=0.4, contrast=0.4),
        "processing": ViewProcessing(prob=0.2),
    },
    "moco_cxr": {
        "positioning": ViewPositioning(scale=(0.85, 1.0), aspect=(1.0, 1.0), flip_prob=0.5),
        "exposure": ViewExposure(prob=0.0),
        "detector": ViewDetector(prob_blur=0.0, prob_noise=0.0),
    },
    "simclr": {
        "positioning": ViewPositioning(scale=(0.08, 1.0), min_lung_coverage=0.0, rotate_degrees=0.0, flip_prob=0.5),
        "exposure": ViewExposure(gamma=(1.0, 1.0), brightness=0.8, contrast=0.8),
        "detector": ViewDetector(blur_sigma=(0.1, 2.0), prob_blur=0.5, prob_noise=0.0),
    },
    "phantom": {
        "positioning": ViewPositioning(scale=(0.5, 1.0), rotate_degrees=5.0),
        "detector": ViewDetector(prob_blur=0.0, noise_std=(0.0, 0.05)),
    },
}


def stored_size(size: int) -> int:
    """Side of the stored images for a network input of `size` pixels: an eighth more, so that crops stay sharp.

    Example:
        >>> stored_size(224), stored_size(64)
        (256, 73)
    """
    return round(size * 8 / 7)


def views(strength: Strength = "default", size: int = 224) -> RandRadiographView:
    """The random view of a preset; a bundle config overrides single settings of it below ``train#views``.

    Only the presets that imitate a paper use mirror images, as the paper does: 94 % of cardiomegaly boxes lie right of
    the middle of the image, and mirroring makes side markers unreadable and lateralized labels wrong.

    Args:
        strength: which preset.

            - ``mild``: crops of half the image or more (Medical MAE, Xiao et al. WACV 2023), 10 degrees, small changes
              of exposure, no blur: a lesion stays in both views with a probability of 0.92.
            - ``default``: crops of 0.3 or more that keep 80 % of the lungs, changes of exposure of 0.4, weak blur, and
              CLAHE in one view of five, random as in REMEDIS (Azizi et al., Nature BME 2023).
            - ``moco_cxr``: Sowrirajan et al. (MIDL 2021): 10 degrees, a mirror image, aspect kept, intensity untouched.
              Their encoder was pretrained on ImageNet; from random weights the gray levels alone identify the partner
              view, and on 2,008 radiographs it learned little more than random weights (docs/results.md).
            - ``simclr``: Chen et al. (ICML 2020) without color: crops of 0.08 or more, a mirror image, exposure 0.8,
              blur up to 2 pixels. For comparison; half of such crops lose a lesion.
            - ``phantom``: for the synthetic phantoms of `data.phantoms`, whose findings are small.
        size: side of a view in pixels.

    Returns:
        The transform; seed it with `set_random_state`.

    Raises:
        ValueError: if there is no such preset.

    Example:
        >>> views("mild", size=64).positioning.flip_prob
        0.0
    """
    if strength not in _PRESETS:
        raise ValueError(f"strength must be one of {list(get_args(Strength))}, got {strength!r}")
    return RandRadiographView(size=size, **_PRESETS[strength])


def augmentation(size: int = 224, keys: KeysCollection = "image") -> MapTransform:
    """The augmentation for fine-tuning: the mild view, which preserves what the labels describe.

    Args:
        size: side of the result in pixels.
        keys: keys of stored images, uint8 ``(1, S, S)``.

    Example:
        >>> augmentation(64).keys
        ('image',)
    """
    return RandRadiographViewd(keys, size=size, **_PRESETS["mild"])


def preprocessing(size: int = 224, keys: KeysCollection = "image") -> Compose:
    """The transforms from files (or arrays in memory, where another runtime has read them) to the network's input.

    Bit for bit the numbers that the image store and `to_network_input` give: read as a canonical image, pad to a
    square, resize to `stored_size(size)`, round to 256 gray levels, resize to `size`. Where MONAI Deploy removes the
    reading, arrays become canonical images instead, see `transforms.in_memory.canonical`.

    Args:
        size: side of the result in pixels.
        keys: keys of the paths.

    Returns:
        A MONAI pipeline of dictionaries; every key becomes a plain float32 tensor,
        shape ``(1, size, size)``, in [0, 1] (a `MetaTensor` without the patient's metadata, if it was an array).

    Example:
        >>> len(preprocessing(64).transforms)
        5
    """
    other_reader = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    level = other_reader.level
    with warnings.catch_warnings():  # MONAI's other readers announce themselves, although ours is asked for
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        other_reader.setLevel(logging.ERROR)
        load = LoadImaged(keys, reader="monai_simclr.data.RadiographReader", image_only=True, ensure_channel_first=True)
        other_reader.setLevel(level)
    steps = [
        load,
        FromMemoryd(keys),
        ToStoredd(keys, stored_size(size)),
        ToNetworkInputd(keys, size),
        PlainImaged(keys),
    ]
    return Compose(steps)


def settings(size: int = 224) -> dict[str, Any]:
    """The settings of `preprocessing` as plain values, stored with a classifier; inference with others is an error.

    Example:
        >>> settings(224)["stored_size"]
        256
    """
    limits = ("max_", "min_")  # they refuse files and change no pixel
    reader = {name: value for name, value in DEFAULT_SETTINGS.recorded().items() if not name.startswith(limits)}
    return {"size": size, "stored_size": stored_size(size), "padding": "square", "levels": 256, "reader": reader}
