"""Random views of a radiograph: crop, rotation, exposure, blur and noise, drawn together and applied in one pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from monai_simclr import ops
from monai_simclr.ops.filters import kernel_size
from monai_simclr.transforms.base import Parameters, RandOperation, check_prob, check_range
from monai_simclr.transforms.crops import draw_crops

__all__ = ["RandRadiographView"]

_BANK = 1 << 20
"""Noise comes from a fixed table at a drawn place: fresh normal numbers would cost more than all the rest of a view."""

_GRID = (8, 8)


class RandRadiographView(RandOperation):
    """Draw a view of a radiograph, as another positioning, exposure and detector of the same chest would show it.

    Crop and scale imitate collimation and positioning, the rotation a tilted patient, gamma, brightness and contrast
    another exposure and display, blur and noise another detector and dose, CLAHE another vendor's processing. A view
    never loses the lungs (at least `min_lung_coverage` of the lungs' prior box stays in the crop, before it is
    rotated), and is not mirrored unless asked: the heart lies on the left.

    Geometry is one warp, intensity one look-up table; uint8 on the CPU stays uint8 throughout. The parameters come
    from `draw`, have one row an image, and hold neutral values where a step does not apply, so that the same
    parameters give the same picture on every device: uint8 and float differ by less than
    1 gray level in the mean and by 8 at most.

    Args:
        size: pixels along each side of a view.
        scale: lowest and highest area of the crop, as a share of the image.
        min_lung_coverage: share of the area of `ops.PRIOR_LUNG_BOX` that the crop keeps at least; 0 for any crop.
        aspect: lowest and highest ratio of the crop's width to its height.
        rotate_degrees: rotation to either side.
        gamma: lowest and highest exponent, log-uniform.
        brightness: largest change of the brightness factor from 1.
        contrast: largest change of the contrast factor from 1.
        prob_intensity: probability of the three above, together.
        blur_sigma: lowest and highest standard deviation in pixels of the view.
        prob_blur: probability of a blur.
        noise_std: lowest and highest standard deviation of the noise, in shares of the range.
        prob_noise: probability of noise.
        clahe_clip: lowest and highest clip limit.
        prob_clahe: probability of CLAHE.
        flip_prob: probability of a left-right mirror image.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> view = RandRadiographView(size=64).set_random_state(0)
        >>> stored = torch.arange(80, dtype=torch.uint8).repeat(80, 1)[None]
        >>> view(stored).shape, view(stored).dtype
        (torch.Size([1, 64, 64]), torch.uint8)
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.3, 1.0),
        min_lung_coverage: float = 0.8,
        aspect: tuple[float, float] = (0.75, 4 / 3),
        rotate_degrees: float = 10.0,
        gamma: tuple[float, float] = (0.8, 1.25),
        brightness: float = 0.2,
        contrast: float = 0.2,
        prob_intensity: float = 0.8,
        blur_sigma: tuple[float, float] = (0.1, 1.0),
        prob_blur: float = 0.3,
        noise_std: tuple[float, float] = (0.0, 0.03),
        prob_noise: float = 0.5,
        clahe_clip: tuple[float, float] = (1.0, 3.0),
        prob_clahe: float = 0.0,
        flip_prob: float = 0.0,
    ) -> None:
        super().__init__(prob=1.0)
        if size < 1 or size * size >= _BANK:
            raise ValueError(f"size must be from 1 to {math.isqrt(_BANK) - 1} pixels, got {size}")
        self.size = int(size)
        self.scale = check_range("scale", scale, 1e-3, 1.0)
        self.min_lung_coverage = check_prob("min_lung_coverage", min_lung_coverage)
        self.aspect = check_range("aspect", aspect, 0.1, 10.0)
        self.rotate_degrees = check_range("rotate_degrees", (0.0, rotate_degrees), 0.0, 180.0)[1]
        self.gamma = check_range("gamma", gamma, 0.01, 100.0)
        self.brightness = check_range("brightness", (0.0, brightness), 0.0, 1.0)[1]
        self.contrast = check_range("contrast", (0.0, contrast), 0.0, 1.0)[1]
        self.prob_intensity = check_prob("prob_intensity", prob_intensity)
        self.blur_sigma = check_range("blur_sigma", blur_sigma, 0.0, 100.0)
        self.prob_blur = check_prob("prob_blur", prob_blur)
        self.noise_std = check_range("noise_std", noise_std, 0.0, 1.0)
        self.prob_noise = check_prob("prob_noise", prob_noise)
        self.clahe_clip = check_range("clahe_clip", clahe_clip, 0.01, 1000.0)
        self.prob_clahe = check_prob("prob_clahe", prob_clahe)
        self.flip_prob = check_prob("flip_prob", flip_prob)
        # one affine law for all columns of uniform numbers keeps draw(1) cheap
        low, high = np.log(self.gamma)
        self._low = np.array([-self.rotate_degrees, low, 1 - self.brightness, 1 - self.contrast, self.blur_sigma[0],
                              self.noise_std[0], self.clahe_clip[0], 0.0])  # fmt: skip
        self._high = np.array([self.rotate_degrees, high, 1 + self.brightness, 1 + self.contrast, self.blur_sigma[1],
                               self.noise_std[1], self.clahe_clip[1], float(_BANK - size * size)])  # fmt: skip
        self._probs = np.array([prob_intensity, prob_blur, prob_noise, prob_clahe, flip_prob])

    def draw(self, n: int) -> Parameters:
        """Draw the parameters of `n` views.

        Returns:
            `box` ``(n, 4)`` (left, top, right, bottom in shares of the image), and of shape ``(n,)``: `angle` (degrees,
            counterclockwise as seen), `flip`, `gamma`, `brightness`, `contrast` (1 is neutral), `sigma` (pixels),
            `noise` (standard deviation), `clip` (0 is neutral) and `seed` (which noise).
        """
        lungs = np.array(ops.PRIOR_LUNG_BOX)[None].repeat(n, 0)
        box = draw_crops(self.R, lungs, self.scale, self.aspect, self.min_lung_coverage)
        u = self.R.random_sample((n, 13))
        values = self._low + (self._high - self._low) * u[:, :8]
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

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """Make one view of each image.

        Args:
            images: shape ``(B, 1, H, W)``, uint8, or floating point in [0, 1].
            **params: what `draw` returned, with leading length B.

        Returns:
            New tensor, shape ``(B, 1, size, size)``, of the dtype and on the device of `images`.

        Raises:
            ValueError: if `images` has another number of channels.
        """
        if images.ndim != 4 or images.shape[1] != 1:
            raise ValueError(f"images must have shape (B, 1, H, W), got {tuple(images.shape)}")
        if images.dtype == torch.uint8 and images.device.type == "cpu":
            rows = [{name: value[i] for name, value in params.items()} for i in range(len(images))]
            views = [self.view(image[0], row) for image, row in zip(images.numpy(), rows, strict=True)]
            return torch.from_numpy(np.stack(views)[:, None])
        return self._apply_torch(images, params)

    def view(self, pixels: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
        """Make one view of one stored image: the lean form for data loading workers.

        Args:
            pixels: shape ``(H, W)``, uint8.
            params: one row of what `draw` returned (``{name: value[0] for ...}``).

        Returns:
            New array, shape ``(size, size)``, uint8.
        """
        matrix = _matrix(params["box"], float(params["angle"]), bool(params["flip"]), pixels.shape, self.size)
        out = cv2.warpAffine(
            pixels, matrix, (self.size, self.size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        if params["clip"] > 0:
            out = cv2.createCLAHE(float(params["clip"]), _GRID).apply(out)
        tone = float(params["gamma"]), float(params["brightness"]), float(params["contrast"])
        if tone != (1.0, 1.0, 1.0):
            out = cv2.LUT(out, ops.curve(*tone))
        if params["sigma"] > 0:
            taps = kernel_size(params["sigma"])
            out = cv2.GaussianBlur(out, (taps, taps), float(params["sigma"]), borderType=cv2.BORDER_REPLICATE)
        if params["noise"] > 0:
            noise = _noise(int(params["seed"]), self.size)
            out = cv2.addWeighted(out, 1.0, noise, 255 * float(params["noise"]), 0.0, dtype=cv2.CV_8U)
        return out

    def _apply_torch(self, images: Tensor, params: Mapping[str, Any]) -> Tensor:
        shape, size = tuple(images.shape[2:]), self.size
        rows = zip(params["box"], params["angle"], params["flip"], strict=True)
        matrices = np.stack([_matrix(box, float(angle), bool(flip), shape, size) for box, angle, flip in rows])
        out = ops.warp(images, matrices, (size, size))
        chosen = params["clip"] > 0
        if chosen.any():
            where = torch.from_numpy(chosen).to(images.device)
            out[where] = ops.clahe(out[where], params["clip"][chosen], _GRID)
        out = ops.adjust(out, params["gamma"], params["brightness"], params["contrast"])
        out = ops.gaussian_blur(out, params["sigma"])
        noise = torch.from_numpy(np.stack([_noise(int(seed), size) for seed in params["seed"]])[:, None])
        std = torch.as_tensor(params["noise"], dtype=torch.float32).view(-1, 1, 1, 1)
        noise = (noise * std).to(images.device)
        if images.is_floating_point():
            return (out + noise).clamp(0, 1).to(images.dtype)
        return (out + noise * 255).round().clamp(0, 255).to(images.dtype)


def _matrix(box: Any, angle: float, flip: bool, shape: tuple[int, ...], size: int) -> np.ndarray:
    """Where a pixel of the view lies in the image: about the crop's middle, scaled, mirrored, rotated."""
    height, width = shape
    left, top, right, bottom = (float(edge) for edge in box)
    across, down = (right - left) * width / size, (bottom - top) * height / size
    across = -across if flip else across
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    a, b, c, d = cosine * across, -sine * down, sine * across, cosine * down
    middle = (size - 1) / 2
    x, y = (left + right) / 2 * width - 0.5, (top + bottom) / 2 * height - 0.5
    return np.array([[a, b, x - (a + b) * middle], [c, d, y - (c + d) * middle]])


def _noise(seed: int, size: int) -> np.ndarray:
    return _bank()[seed : seed + size * size].reshape(size, size)


@lru_cache(maxsize=1)
def _bank() -> np.ndarray:
    return np.random.Generator(np.random.Philox(0)).standard_normal(_BANK, dtype=np.float32)
