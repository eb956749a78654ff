"""DICOM windows: stated, or the image's own, and jittered at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_simclr import ops
from monai_simclr.ops.intensity import WindowFunction
from monai_simclr.transforms.base import Operation, Parameters, RandOperation

_NAMES = (
    ("window_center", "window_width", "voi_lut_function"),
    ("WindowCenter", "WindowWidth", "VOILUTFunction"),
    ("00281050", "00281051", "00281056"),  # monai.data.PydicomReader(prune_metadata=False)
    ("0028|1050", "0028|1051", "0028|1056"),  # monai.data.ITKReader
)
_WHOLE_RANGE = {torch.uint8: 255.0, torch.uint16: 65535.0}
_NARROWEST = 0.01
"""What a jitter leaves of the width of a window, at least."""


class Window(Operation):
    """Map an intensity window to floating point [0, 1], as a DICOM display does (PS3.3 C.11.2).

    For pixel values in the unit of the window: after the modality LUT, before any scaling, in any number of spatial
    dimensions. The polarity stays. The image's own window is the first one in the metadata `window_center`,
    `window_width` and `voi_lut_function`, or in what MONAI's PydicomReader (with ``prune_metadata=False``) and
    ITKReader keep of (0028,1050), (0028,1051) and (0028,1056). The result has no window of its own any more: its
    metadata have none of these names, and as ``meta["window"]`` the center and width that were applied.

    Args:
        center: middle of the window, in the unit of the image; None for the image's own window.
        width: width of the window, in the unit of the image; None for the image's own window.
        function: DICOM's VOI LUT function, see `ops.window`. None is LINEAR_EXACT with `center` and `width`, and
            that of the metadata (LINEAR if there is none, as in DICOM) with the image's own window.

    Raises:
        ValueError: if only one of `center` and `width` is given; when called, if there is no window (none in the
            metadata, or it is windowed already), or if ITKReader has inverted the values (MONOCHROME1), so that the
            window no longer belongs to them.

    Example:
        >>> Window(center=2048, width=4096)(torch.tensor([[[0.0, 2048.0, 4096.0]]])).flatten().tolist()
        [0.0, 0.5, 1.0]
    """

    any_rank = True

    def __init__(
        self, center: float | None = None, width: float | None = None, function: WindowFunction | None = None
    ) -> None:
        self.center, self.width, self.function = *_check_pair(center, width), function

    def read(self, meta: Mapping[str, Any], images: Tensor) -> Parameters:
        """Center, width and function of each image's window."""
        window = _read_window(self, meta, len(images))
        if window is None:
            windowed = "window" in meta
            why = "it is windowed already, by RadiographReader or Window" if windowed else "none in its metadata"
            raise ValueError(f"the image has no window of its own ({why}); give center and width")
        return window

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """See `ops.window`; here every image may have a function of its own."""
        return _windowed(images, params["center"], params["width"], params["function"])

    def describe(self, meta: dict[str, Any], **params: Any) -> None:
        """Put the window that was applied in the place of the image's own."""
        _note_window(meta, params["center"], params["width"])


class RandWindow(RandOperation):
    """Window an image with a jittered center and width, as another exposure or display would show the same chest.

    The result is always in [0, 1]: an image that gets no jitter still gets its window. Where neither the arguments nor
    the metadata have one (see `Window`), it is the whole range of a canonical image: [0, 1] of floating point, [0, 255]
    of uint8, [0, 65535] of uint16. The metadata change as by `Window`.

    Args:
        center: see `Window`.
        width: see `Window`.
        center_jitter: largest shift of the center, in the unit of the image; None is a tenth of the width.
        width_jitter: largest change of the width, in the unit of the image, less than `width`; None is a fifth of the
            width. The image's own window stays open: at least a hundredth of its width, and 1 for LINEAR.
        function: see `Window`.
        prob: probability of a jitter.

    Raises:
        ValueError: if a number is out of range, or only one of `center` and `width` is given; when called without any
            window, if the image has integers other than uint8 and uint16, or floating point far out of [0, 1] (on the
            CPU, see `ops.check_canonical`).

    Example:
        >>> image = torch.tensor([[[0.0, 1000.0, 4000.0]]])
        >>> RandWindow(center=2000, width=4000, prob=0.0)(image).flatten().tolist()
        [0.0, 0.25, 1.0]
    """

    any_rank = True

    def __init__(
        self,
        center: float | None = None,
        width: float | None = None,
        center_jitter: float | None = None,
        width_jitter: float | None = None,
        function: WindowFunction | None = None,
        prob: float = 0.8,
    ) -> None:
        super().__init__(prob)
        self.center, self.width, self.function = *_check_pair(center, width), function
        for name, jitter in (("center_jitter", center_jitter), ("width_jitter", width_jitter)):
            if jitter is not None and not 0 <= jitter < float("inf"):
                raise ValueError(f"{name} must be at least 0, in the unit of the image, got {jitter}")
        if width is not None and width_jitter is not None and width_jitter >= width:
            raise ValueError(f"width_jitter must be less than the width {width:g}, got {width_jitter}")
        self.center_jitter, self.width_jitter = center_jitter, width_jitter

    def read(self, meta: Mapping[str, Any], images: Tensor) -> Parameters:
        """Center, width and function of each image's window, before the jitter."""
        return _read_window(self, meta, len(images)) or self._whole_range(images)

    def _whole_range(self, images: Tensor) -> Parameters:
        if images.dtype not in _WHOLE_RANGE and not images.is_floating_point():
            raise ValueError(
                "the image has no window of its own, and only uint8, uint16 and floating point in [0, 1] have a range "
                f"that stands for one, got {images.dtype}; give center and width"
            )
        ops.check_canonical(images)
        top = _WHOLE_RANGE.get(images.dtype, 1.0)
        return _repeat(len(images), top / 2, top, self.function)

    def draw(self, n: int) -> Parameters:
        """Draw shifts of center and width, shape ``(n,)``, in shares of the largest ones."""
        shifts = self.R.uniform(-1, 1, (n, 2))
        return {"center_shift": shifts[:, 0], "width_shift": shifts[:, 1]}

    def randomize(self, data: Any = None, n: int = 1) -> None:
        """Draw; all images are kept, those without jitter with shifts of 0."""
        super().randomize(data, n)
        self.drawn = {name: np.where(self.keep, shift, 0.0) for name, shift in self.drawn.items()}
        self.keep = np.ones(n, dtype=bool)

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """Window every image with its own center, width and function."""
        return _windowed(images, *self._jittered(**params), params["function"])

    def describe(self, meta: dict[str, Any], **params: Any) -> None:
        """Put the window that was applied in the place of the image's own."""
        _note_window(meta, *self._jittered(**params))

    def _jittered(
        self,
        center: np.ndarray,
        width: np.ndarray,
        function: np.ndarray,
        center_shift: np.ndarray,
        width_shift: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        shift = width / 10 if self.center_jitter is None else self.center_jitter
        change = width / 5 if self.width_jitter is None else self.width_jitter
        lowest = np.maximum(_NARROWEST * width, np.where(function == "LINEAR", 1.0, 0.0))
        lowest = np.minimum(width, lowest)  # a width that was too small before the jitter stays so, and is refused
        return center + shift * center_shift, np.maximum(width + change * width_shift, lowest)


def _check_pair(center: float | None, width: float | None) -> tuple[float | None, float | None]:
    if (center is None) != (width is None):
        raise ValueError(f"center and width belong together, got center={center} and width={width}; give both or none")
    if width is not None and not 0 < width < float("inf"):
        raise ValueError(f"width must be greater than 0, in the unit of the image, got {width}")
    return center, width


def _repeat(count: int, center: float, width: float | None, function: str | None) -> Parameters:
    values = {"center": center, "width": width, "function": function or "LINEAR_EXACT"}
    return {name: np.full(count, value) for name, value in values.items()}


def _windowed(images: Tensor, center: np.ndarray, width: np.ndarray, function: np.ndarray) -> Tensor:
    names = sorted(set(function.tolist()))
    if len(names) == 1:
        return ops.window(images, center, width, names[0])
    dtype = images.dtype if images.is_floating_point() else torch.float32
    out = torch.empty(images.shape, dtype=dtype, device=images.device)
    for name in names:
        rows = function == name
        chosen = torch.from_numpy(np.flatnonzero(rows)).to(images.device)
        out[chosen] = ops.window(images[chosen], center[rows], width[rows], name)
    return out


def _note_window(meta: dict[str, Any], center: np.ndarray, width: np.ndarray) -> None:
    """The window no longer belongs to the values: the names under which it would be read again go."""
    for name in (name for names in _NAMES for name in names):
        meta.pop(name, None)
    meta["window"] = float(center[0]), float(width[0])


def _read_window(transform: Window | RandWindow, meta: Mapping[str, Any], count: int) -> Parameters | None:
    """The stated window, or else that in the metadata of `count` images (of one, or of a collated batch), or None."""
    if transform.center is not None:
        return _repeat(count, transform.center, transform.width, transform.function)
    for names in _NAMES:
        centers, widths, functions = (_first_values(meta.get(name), count) for name in names)
        if any(value is None or str(value).strip() == "" for value in (*centers, *widths)):
            continue
        if "|" in names[0] and any("MONOCHROME1" in str(kind) for kind in _first_values(meta.get("0028|0004"), count)):
            raise ValueError(
                "ITKReader has inverted this MONOCHROME1 image, so its window, (0028,1050) and (0028,1051), does not "
                'belong to its values; read it with LoadImage(reader="monai_simclr.data.RadiographReader")'
            )
        stated = [transform.function or str(name or "").strip() or "LINEAR" for name in functions]
        center, width = (np.array([float(value) for value in values]) for values in (centers, widths))
        return {"center": center, "width": width, "function": np.array(stated)}
    return None


def _first_values(value: Any, count: int) -> list[Any]:
    """The first value of each image's attribute; collating multi-valued ones makes a list by place, then by image."""
    if isinstance(value, Mapping):  # pydicom's JSON form
        value = value.get("Value")
    if count > 1 and isinstance(value, (Tensor, np.ndarray)):
        value = value.tolist()
    values = [value] * count
    if count > 1 and isinstance(value, Sequence) and not isinstance(value, str):
        by_image = value[0] if len(value) and isinstance(value[0], (Tensor, np.ndarray, list, tuple)) else value
        values = list(by_image) if len(by_image) == count else [by_image] * count
    first = []
    for each in values:
        if isinstance(each, (Tensor, np.ndarray)):
            each = each.tolist()
        while isinstance(each, Sequence) and not isinstance(each, str):
            each = each[0] if len(each) else None
        first.append(each.split("\\")[0] if isinstance(each, str) else each)
    return first
