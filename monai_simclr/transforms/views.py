"""Random views of a radiograph: crop, rotation, exposure, blur and noise, drawn together and applied in one pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from monai_simclr import ops
from monai_simclr.ops.views import NOISE_PIXELS
from monai_simclr.transforms.base import Parameters, RandOperation
from monai_simclr.transforms.crops import draw_crops
from monai_simclr.transforms.settings import ViewDetector, ViewExposure, ViewPositioning, ViewProcessing

_LARGEST = math.isqrt(NOISE_PIXELS) - 1


class RandRadiographView(RandOperation):
    """Draw a view of a radiograph, as another positioning, exposure and detector of the same chest would show it.

    A view never loses the lungs (at least `min_lung_coverage` of the lungs' prior box stays in the crop, before it is
    rotated), and is not mirrored unless asked.

    Geometry is one warp, intensity one look-up table. On the CPU uint8 stays uint8 throughout, in OpenCV; on a device
    torch makes the whole batch (`batch`) at once; 12- and 16-bit images go through float32. The parameters come from
    `draw`, have one row an image, and hold neutral values where a step does not apply, so that the same parameters
    give the same picture everywhere: see `ops.make_views` for the tolerance. In a bundle config the settings are
    objects: ``"positioning": {"_target_": "monai_simclr.transforms.ViewPositioning", "scale": [0.5, 1.0]}``.

    Args:
        size: pixels along each side of a view.
        positioning: crop, scale, rotation.
        exposure: gamma, brightness, contrast.
        detector: blur and noise.
        processing: CLAHE.

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
        positioning: ViewPositioning = ViewPositioning(),  # noqa: B008 (frozen)
        exposure: ViewExposure = ViewExposure(),  # noqa: B008
        detector: ViewDetector = ViewDetector(),  # noqa: B008
        processing: ViewProcessing = ViewProcessing(),  # noqa: B008
    ) -> None:
        super().__init__(prob=1.0)
        if not 1 <= size <= _LARGEST:
            raise ValueError(f"size must be from 1 to {_LARGEST} pixels, got {size}")
        self.size = int(size)
        self.positioning = _check_kind("positioning", positioning, ViewPositioning)
        self.exposure = _check_kind("exposure", exposure, ViewExposure)
        self.detector = _check_kind("detector", detector, ViewDetector)
        self.processing = _check_kind("processing", processing, ViewProcessing)
        turn, (low, high) = positioning.rotate_degrees, np.log(exposure.gamma)
        # one affine law for all columns of uniform numbers keeps draw(1) cheap
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
        """Draw the parameters of `n` views.

        Returns:
            `box` ``(n, 4)`` (left, top, right, bottom in shares of the image), and of shape ``(n,)``: `angle` (degrees,
            counterclockwise as seen), `flip`, `gamma`, `brightness`, `contrast` (1 is neutral), `sigma` (pixels),
            `noise` (standard deviation), `clip` (0 is neutral) and `seed` (which noise); see `ops.make_views`.
        """
        place = self.positioning
        lungs = _LUNGS if n == 1 else _LUNGS.repeat(n, 0)
        box = draw_crops(self.R, lungs, place.scale, place.aspect, place.min_lung_coverage)
        u = self.R.random_sample((n, 13))
        values = self._low + self._span * u[:, :8]
        tone, blur, noise, clahe, flip = (u[:, 8:] < self._probs).T
        return {
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

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> Tensor:
        """Make one view of one image, shape ``(1, H, W)``; the affine of a MetaTensor says where the view lies."""
        out = super().__call__(img, randomize)
        if isinstance(img, MetaTensor) and isinstance(out, MetaTensor):
            (a, b, x), (c, d, y) = ops.view_matrices(self.drawn, img.shape[1:], self.size)[0]
            move = torch.eye(len(img.affine), dtype=torch.float64)
            move[:2, [0, 1, -1]] = torch.tensor([[d, c, y], [b, a, x]], dtype=torch.float64)  # rows come first
            out.affine = img.affine.to(torch.float64) @ move
        return out

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """Make one view of each image, shape ``(B, 1, H, W)``; see `ops.make_views`."""
        return ops.make_views(images, params, self.size)


_LUNGS = np.array(ops.PRIOR_LUNG_BOX)[None]


def _check_kind(name: str, settings: Any, kind: type) -> Any:
    if not isinstance(settings, kind):
        raise TypeError(
            f"{name} must be a {kind.__name__}, got {type(settings).__name__} {settings!r}; "
            f'in a config: {{"_target_": "monai_simclr.transforms.{kind.__name__}", ...}}'
        )
    return settings
