"""What a random view may vary, by what it imitates: positioning, exposure, detector, processing."""

from __future__ import annotations

from dataclasses import dataclass

from monai_simclr.transforms.base import check_number, check_prob, check_range

Range = tuple[float, float]


@dataclass(frozen=True)
class ViewPositioning:
    """Crop, scale, rotation: another collimation and another posture of the same patient.

    Attributes:
        scale: lowest and highest area of the crop, as a share of the image.
        aspect: lowest and highest ratio of the crop's width to its height, log-uniform.
        min_lung_coverage: share of the area of `ops.PRIOR_LUNG_BOX` that the crop keeps at least; 0 for any crop.
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

    def __post_init__(self) -> None:
        _set(self, "scale", check_range("scale", self.scale, 1e-3, 1.0))
        _set(self, "aspect", check_range("aspect", self.aspect, 0.1, 10.0))
        _set(self, "min_lung_coverage", check_prob("min_lung_coverage", self.min_lung_coverage))
        _set(self, "rotate_degrees", check_number("rotate_degrees", self.rotate_degrees, 0.0, 180.0))
        _set(self, "flip_prob", check_prob("flip_prob", self.flip_prob))


@dataclass(frozen=True)
class ViewExposure:
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

    def __post_init__(self) -> None:
        _set(self, "gamma", check_range("gamma", self.gamma, 0.01, 100.0))
        _set(self, "brightness", check_number("brightness", self.brightness, 0.0, 1.0))
        _set(self, "contrast", check_number("contrast", self.contrast, 0.0, 1.0))
        _set(self, "prob", check_prob("prob", self.prob))


@dataclass(frozen=True)
class ViewDetector:
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

    def __post_init__(self) -> None:
        _set(self, "blur_sigma", check_range("blur_sigma", self.blur_sigma, 0.0, 100.0))
        _set(self, "prob_blur", check_prob("prob_blur", self.prob_blur))
        _set(self, "noise_std", check_range("noise_std", self.noise_std, 0.0, 1.0))
        _set(self, "prob_noise", check_prob("prob_noise", self.prob_noise))


@dataclass(frozen=True)
class ViewProcessing:
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

    def __post_init__(self) -> None:
        _set(self, "clip_limit", check_range("clip_limit", self.clip_limit, 0.01, 1000.0))
        _set(self, "prob", check_prob("prob", self.prob))


def _set(settings: object, name: str, value: object) -> None:
    """What was checked takes the place of what came (a config brings lists); frozen instances need this way."""
    object.__setattr__(settings, name, value)
