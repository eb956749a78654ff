"""Random views of a radiograph, drawn together and applied in one pass, and what they vary, by what it imitates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from monai_simclr import ops
from monai_simclr.ops.keyed import KeyedRandom
from monai_simclr.ops.views import NOISE_PIXELS
from monai_simclr.transforms.base import Parameters, RandOperation, check_number, check_range
from monai_simclr.transforms.crops import draw_crops

Range = tuple[float, float]
_LARGEST = math.isqrt(NOISE_PIXELS) - 1
_LUNGS = np.array(ops.PRIOR_LUNG_BOX)[None]


_BOUNDS = {  # of settings; the others are shares or probabilities, in [0, 1]
    "scale": (1e-3, 1),
    "aspect": (0.1, 10),
    "rotate_degrees": (0, 180),
    "gamma": (0.01, 100),
    "blur_sigma": (0, 100),
    "clip_limit": (0.01, 1000),
}


class _Settings:
    """What a view may vary: plain numbers and pairs, checked; a config's lists become tuples."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            check = check_range if isinstance(each.default, tuple) else check_number
            checked = check(each.name, getattr(self, each.name), *_BOUNDS.get(each.name, (0, 1)))  # type: ignore[operator]
            object.__setattr__(self, each.name, checked)  # frozen instances need this way


@dataclass(frozen=True)
class ViewPositioning(_Settings):
    """Crop, scale, rotation: another collimation and another posture of the same patient.

    Attributes:
        scale: lowest and highest area of the crop, as a share of the image.
        aspect: lowest and highest ratio of the crop's width to its height, relative to the image's, log-uniform. A view
            of an image that is not square is squeezed, so pad first (`ToStored`).
        min_lung_coverage: smallest share of the area of `ops.PRIOR_LUNG_BOX` that the crop keeps; 0 for any crop.
        rotate_degrees: largest rotation to either side.
        flip_prob: probability of a left-right mirror image. It must stay 0 where sides matter: the heart is on the
            left, side markers turn unreadable, "left effusion" becomes wrong.

    Example:
        >>> ViewPositioning(scale=(0.5, 1.0)).rotate_degrees
        10.0
    """

    scale: Range = (0.3, 1.0)
    aspect: Range = (0.75, 4 / 3)
    min_lung_coverage: float = 0.8
    rotate_degrees: float = 10.0
    flip_prob: float = 0.0


@dataclass(frozen=True)
class ViewExposure(_Settings):
    """Gamma, brightness and contrast, together: another dose, tube voltage and display.

    Attributes:
        gamma: lowest and highest exponent, log-uniform.
        brightness: largest change of the brightness factor from 1, at most 1.
        contrast: largest change of the contrast factor from 1, at most 1. It must not invert.
        prob: probability that a view has another exposure.

    Example:
        >>> ViewExposure(brightness=0.4).gamma
        (0.8, 1.25)
    """

    gamma: Range = (0.8, 1.25)
    brightness: float = 0.2
    contrast: float = 0.2
    prob: float = 0.8


@dataclass(frozen=True)
class ViewDetector(_Settings):
    """Blur and noise: another detector, focal spot and dose.

    Attributes:
        blur_sigma: lowest and highest standard deviation of the blur, in pixels of the view. It must stay small:
            nodules and interstitial lines are a few pixels wide.
        prob_blur: probability of a blur.
        noise_std: lowest and highest standard deviation of the noise, in shares of the range.
        prob_noise: probability of noise.

    Example:
        >>> ViewDetector(prob_blur=0.0).noise_std
        (0.0, 0.03)
    """

    blur_sigma: Range = (0.1, 1.0)
    prob_blur: float = 0.3
    noise_std: Range = (0.0, 0.03)
    prob_noise: float = 0.5


@dataclass(frozen=True)
class ViewProcessing(_Settings):
    """CLAHE: another vendor's processing of the same exposure.

    Attributes:
        clip_limit: lowest and highest clip limit of CLAHE, see `ops.clahe`.
        prob: probability of CLAHE. Below 1: as a fixed step it made models worse at other hospitals.

    Example:
        >>> ViewProcessing().prob
        0.0
    """

    clip_limit: Range = (1.0, 3.0)
    prob: float = 0.0


@dataclass(frozen=True)
class SizeSchedule:
    """Small views first: how large the views of an epoch are (progressive resizing, as in FixRes and FFCV).

    The size follows from the epoch in an image's key, so that workers and a resumed run agree; without a key, and
    without stages, views have their full size.

    Attributes:
        stages: sizes in pixels, each with its share of the epochs; the shares sum to 1.
        epochs: of the whole run.

    Raises:
        ValueError: if a stage is not such a pair, or the shares do not sum to 1.

    Example:
        >>> schedule = SizeSchedule([[64, 0.5], [96, 0.25], [128, 0.25]], epochs=8)
        >>> [schedule.size(epoch) for epoch in range(1, 9)]
        [64, 64, 64, 64, 96, 96, 128, 128]
    """

    stages: Sequence[Sequence[float]] = ()
    epochs: int = 1

    def __post_init__(self) -> None:
        pairs = all(np.shape(stage) == (2,) and stage[0] >= 1 and stage[1] > 0 for stage in self.stages)
        if not pairs or (self.stages and abs(sum(stage[1] for stage in self.stages) - 1) > 1e-6):
            raise ValueError(
                "a size schedule is pairs of a size in pixels and its share of the epochs, which sum to 1, as in "
                f"[[64, 0.4], [128, 0.6]]; got {self.stages}"
            )
        object.__setattr__(self, "stages", tuple((int(size), float(share)) for size, share in self.stages))

    def size(self, epoch: int) -> int:
        """Pixels along each side of the views of an epoch, counted from 1."""
        ends = np.rint(np.cumsum([share for _, share in self.stages]) * self.epochs)
        return int(self.stages[min(int((ends < epoch).sum()), len(ends) - 1)][0])


class RandRadiographView(RandOperation):
    """Draw a view of a radiograph, as another positioning, exposure and detector of the same chest would show it.

    A view never loses the lungs (at least `min_lung_coverage` of the lungs' prior box stays in the crop, before it is
    rotated), and is not mirrored unless asked. Geometry is one warp, intensity one look-up table: see `ops.make_views`.

    In a bundle config the settings are objects:
    ``"positioning": {"_target_": "monai_simclr.transforms.ViewPositioning", "scale": [0.5, 1.0]}``.

    Args:
        size: pixels along each side of a view.
        positioning: crop, scale, rotation.
        exposure: gamma, brightness, contrast.
        detector: blur and noise.
        processing: CLAHE.
        schedule: smaller sizes for the first epochs of a training.

    Raises:
        ValueError: if an argument is out of its range.
        TypeError: if one of the settings is of another kind.

    Example:
        >>> view = RandRadiographView(size=64, positioning=ViewPositioning(scale=(0.5, 1.0))).set_random_state(0)
        >>> import torch
        >>> stored = torch.arange(80, dtype=torch.uint8).repeat(80, 1)[None]
        >>> view(stored).shape, view(stored).dtype
        (torch.Size([1, 64, 64]), torch.uint8)
    """

    def __init__(
        self,
        size: int = 224,
        positioning: ViewPositioning = ViewPositioning(),
        exposure: ViewExposure = ViewExposure(),
        detector: ViewDetector = ViewDetector(),
        processing: ViewProcessing = ViewProcessing(),
        schedule: SizeSchedule = SizeSchedule(),
    ) -> None:
        super().__init__(prob=1.0)
        if not 1 <= size <= _LARGEST:
            raise ValueError(f"size must be from 1 to {_LARGEST} pixels, got {size}")
        self.size, self.schedule = int(size), schedule
        largest = max((stage[0] for stage in schedule.stages), default=0)
        if largest > size:
            raise ValueError(
                f"the size schedule has views of {largest:g} pixels, but images are stored for a size of {size}; pass "
                f"--size {largest:g}, or smaller stages"
            )
        for name, settings, kind in (
            ("positioning", positioning, ViewPositioning),
            ("exposure", exposure, ViewExposure),
            ("detector", detector, ViewDetector),
            ("processing", processing, ViewProcessing),
        ):
            if not isinstance(settings, kind):
                raise TypeError(
                    f"{name} must be a {kind.__name__}, got {type(settings).__name__} {settings!r}; "
                    f'in a config: {{"_target_": "monai_simclr.transforms.{kind.__name__}", ...}}'
                )
        self.positioning, self.exposure, self.detector, self.processing = positioning, exposure, detector, processing
        turn, (low, high) = positioning.rotate_degrees, np.log(exposure.gamma)
        # one affine map for all columns of uniform numbers keeps draw(1) cheap
        bounds = np.array(
            [
                (-turn, turn),
                (low, high),
                (1 - exposure.brightness, 1 + exposure.brightness),
                (1 - exposure.contrast, 1 + exposure.contrast),
                detector.blur_sigma,
                detector.noise_std,
                processing.clip_limit,
                (0.0, NOISE_PIXELS - self.size**2),
            ]
        )
        self._low, self._span = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
        self._probs = np.array(
            [exposure.prob, detector.prob_blur, detector.prob_noise, processing.prob, positioning.flip_prob]
        )

    def draw(self, n: int) -> Parameters:
        """Draw the parameters of `n` views (see `ops.make_views`), with neutral values where a step does not apply."""
        place = self.positioning
        lungs = _LUNGS if n == 1 else _LUNGS.repeat(n, 0)
        crops, u = np.split(self.R.random_sample((n, 53)), [40], axis=1)  # one call: calls are what numbers cost
        box = draw_crops(crops, lungs, place.scale, place.aspect, place.min_lung_coverage)
        values = self._low + self._span * u[:, :8]
        tone, blur, noise, clahe, flip = (u[:, 8:] < self._probs).T
        drawn = {
            "box": box,
            "angle": values[:, 0],
            "flip": flip,
            "gamma": np.exp(values[:, 1] * tone),
            "brightness": np.where(tone, values[:, 2], 1.0),
            "contrast": np.where(tone, values[:, 3], 1.0),
            "sigma": values[:, 4] * blur,
            "noise": values[:, 5] * noise,
            "clip": values[:, 6] * clahe,
            "seed": values[:, 7].astype(np.int64),
        }
        if self.schedule.stages and isinstance(self.R, KeyedRandom):
            drawn["size"] = self._sizes(self.R.epoch)
        return drawn

    def _sizes(self, epochs: np.ndarray) -> np.ndarray:
        """The size of each view of a batch, which must be one."""
        sizes = {self.schedule.size(int(epoch)) for epoch in np.unique(epochs)}
        if len(sizes) > 1:
            raise ValueError(
                f"a batch of several epochs has views of several sizes, {sorted(sizes)}; split it by epoch"
            )
        return np.full(len(epochs), sizes.pop())

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> Tensor:
        """Make one view of one image, shape ``(1, H, W)``; the affine of a MetaTensor says where the view lies."""
        out = super().__call__(img, randomize)
        if isinstance(img, MetaTensor) and isinstance(out, MetaTensor):
            (a, b, x), (c, d, y) = ops.view_matrices(self.drawn, img.shape[1:], out.shape[-1])[0]
            move = torch.eye(len(img.affine), dtype=torch.float64)
            move[:2, [0, 1, -1]] = torch.tensor([[d, c, y], [b, a, x]], dtype=torch.float64)  # rows come first
            out.affine = img.affine.to(torch.float64) @ move
        return out

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """Make one view of each image, shape ``(B, 1, H, W)``; see `ops.make_views`."""
        sizes = params.pop("size", None)
        return ops.make_views(images, params, self.size if sizes is None else int(sizes[0]))
