"""The terms of reading a radiograph: the settings, the metadata, the error, and quiet libraries."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from monai_simclr.runtime.files import NotRegularFileError
from monai_simclr.runtime.names import shown

VoiPolicy = Literal["auto", "index", "explanation", "percentile", "none"]
"""How values of interest become gray; see `ReaderSettings.voi`."""

DecodeAt = Literal["full", "needed"]
"""At which resolution compressed images are decoded; see `ReaderSettings.decode_at`."""


class RadiographError(ValueError):
    """A file that cannot be read as a radiograph.

    Args:
        problem: the message without the file's name, for outputs that must not contain names.
        path: of the file; the readers of single formats leave it to whoever opened the file.

    Example:
        >>> str(RadiographError("has no pixels", "in/IM_0001.dcm"))
        'IM_0001.dcm: has no pixels'
    """

    def __init__(self, problem: str, path: str | Path = "") -> None:
        super().__init__(problem)
        self.problem, self.path = problem, str(path)

    def __str__(self) -> str:
        return f"{shown(Path(self.path).name)}: {self.problem}" if self.path else self.problem

    def __reduce__(self) -> tuple[type[RadiographError], tuple[str, str]]:
        return type(self), (self.problem, self.path)


@dataclass(frozen=True)
class ReaderSettings:
    """How files become canonical images: plain values, recorded as `recorded` gives them.

    Attributes:
        voi: which values of interest are shown (DICOM PS3.3 C.11.2).

            - ``auto``: the VOI LUT Sequence, else the first window that can be used, else percentiles 0.5 to 99.5.
            - ``index``: number `window_index` of the windows, or of the VOI LUT Sequence where there are no windows.
            - ``explanation``: the window or VOI LUT whose explanation is `window_explanation`, case ignored.
            - ``percentile``: percentiles 0.5 to 99.5 of the image, in files of every format.
            - ``none``: the whole range that the stored bits can have, after the modality LUT.
        window_index: for ``voi="index"``, from 0.
        window_explanation: for ``voi="explanation"``, such as "NORMAL" in (0028,1055) or (0028,3003).
        patient_orientation: whether (0020,0020) Patient Orientation turns and mirrors the image to the canonical
            display (row 0 cranial, column 0 the patient's right). Off: as stored.
        crop_collimation: whether uniform borders, black or white, are cropped.
        render_for_processing: whether FOR PROCESSING images (raw detector values) are rendered; refused when off.
        decode_at: at which resolution JPEG 2000 and JPEG are decoded.

            - ``full``: at their own.
            - ``needed``: at a half, a quarter or an eighth of it, the smallest that has the pixels which are asked for
              (the image store asks for its size). Gray levels then differ a little, see docs/how-to/store.md. Other
              formats, images with Pixel Padding Value, and those whose collimation is cropped are decoded in full.
        max_pixels: limit of rows x columns, checked before anything is decoded.
        max_bytes: limit of the size of a file, and of its deflated content when inflated.
        min_side: fewest rows and columns. MedMNIST's smallest pictures have 28.
        max_aspect: limit of longer over shorter side. Chest radiographs are within 2.

    Raises:
        ValueError: if `voi` is not a policy, or a number is out of range.

    Example:
        >>> ReaderSettings(voi="percentile").recorded()["voi"]
        'percentile'
    """

    voi: VoiPolicy = "auto"
    window_index: int = 0
    window_explanation: str = ""
    patient_orientation: bool = True
    crop_collimation: bool = False
    render_for_processing: bool = False
    decode_at: DecodeAt = "full"
    max_pixels: int = 64_000_000
    max_bytes: int = 256 * 2**20
    min_side: int = 32
    max_aspect: int = 4

    def __post_init__(self) -> None:
        if self.voi not in get_args(VoiPolicy):
            raise ValueError(f"voi must be one of {list(get_args(VoiPolicy))}, got {self.voi!r}")
        if self.decode_at not in get_args(DecodeAt):
            raise ValueError(f"decode_at must be one of {list(get_args(DecodeAt))}, got {self.decode_at!r}")
        if self.window_index < 0:
            raise ValueError(f"window_index counts from 0, got {self.window_index}")
        if self.voi == "explanation" and not self.window_explanation.strip():
            raise ValueError("voi='explanation' needs window_explanation, such as 'NORMAL'")
        if self.max_pixels < 1 or self.max_bytes < 1:
            raise ValueError(f"max_pixels and max_bytes must be 1 or more, got {self.max_pixels} and {self.max_bytes}")
        if self.min_side < 1 or self.max_aspect < 1:
            raise ValueError(f"min_side and max_aspect must be 1 or more, got {self.min_side} and {self.max_aspect}")

    def recorded(self) -> dict[str, Any]:
        """The settings for provenance; `decode_at` only if it is not "full", as in stores made before there was one."""
        values = asdict(self)
        return values if self.decode_at != "full" else {name: values[name] for name in values if name != "decode_at"}


DEFAULT_SETTINGS = ReaderSettings()
UNKNOWN = (math.nan, math.nan)
"""Two numbers that a file does not have; never omitted, so that the metadata of all files can be collated."""


def check_size(rows: int, columns: int, settings: ReaderSettings) -> None:
    """Refuse, by a `RadiographError`, what is too large to decode, too small to show a chest, or too long to be one.

    Example:
        >>> check_size(8, 2000, DEFAULT_SETTINGS)
        Traceback (most recent call last):
        ...
        monai_simclr.data.radiograph.RadiographError: has 8 x 2000 pixels, a side under min_side=32
    """
    shape = f"has {rows} x {columns} pixels"
    if rows * columns > settings.max_pixels:
        raise RadiographError(f"{shape} by its header, more than max_pixels={settings.max_pixels}")
    if min(rows, columns) < settings.min_side:
        raise RadiographError(f"{shape}, a side under min_side={settings.min_side}")
    if max(rows, columns) > settings.max_aspect * min(rows, columns):
        raise RadiographError(f"{shape}, one side more than max_aspect={settings.max_aspect} times the other")


class RadiographMeta(TypedDict):
    """What is known about an image: the same keys and lengths for every format, and no patient's name."""

    format: str  # "DICOM", "PNG", "JPEG", "TIFF" or "NIfTI"
    view_position: str  # "PA", "AP", "LL" (every lateral) by the header, as in an index; "" when unknown or another
    photometric_interpretation: str  # "MONOCHROME1" or "MONOCHROME2" as stored; "" in other formats
    inverted: bool  # whether dark and bright were swapped
    voi: str  # what chose the gray values: "lut", "window", "percentile" or "none" (the full range)
    window: tuple[float, float]  # center and width, of the modality LUT's output; NaN where no window was used
    spacing: tuple[float, float]  # millimeters between rows, and between columns; NaN when unknown
    spacing_source: str  # the attribute that states it; "" when unknown
    orientation: str  # how the stored image was turned, such as "mirrored"; "" for not at all
    crop: tuple[int, int, int, int]  # top, left, height, width of the crop in pixels of the upright image


def init_meta(file_format: str) -> RadiographMeta:
    """Return the metadata of an image of which only the format is known."""
    return RadiographMeta(
        format=file_format,
        view_position="",
        photometric_interpretation="",
        inverted=False,
        voi="none",
        window=UNKNOWN,
        spacing=UNKNOWN,
        spacing_source="",
        orientation="",
        crop=(0, 0, 0, 0),
    )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress warnings and logs of pydicom, nibabel and Pillow: what is wrong with a file is reported once, by us.

    pydicom logs the traceback of whatever a decoder raises. What libtiff and libjpeg write to stderr remains.
    """
    pydicom, nibabel = logging.getLogger("pydicom"), logging.getLogger("nibabel.global")
    before = pydicom.propagate, nibabel.disabled
    pydicom.propagate, nibabel.disabled = False, True  # pydicom logs through the root, nibabel by its own handler
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pydicom.propagate, nibabel.disabled = before


def describe_os_error(error: OSError) -> str:
    """Say why a file cannot be opened, without its name.

    Example:
        >>> describe_os_error(PermissionError(13, "Permission denied"))
        'cannot be opened (PermissionError)'
    """
    if isinstance(error, NotRegularFileError):
        return str(error.strerror)
    return f"cannot be opened ({type(error).__name__})"


def describe_problem(error: BaseException) -> str:
    """Return the reader's own message without a path, wherever in the chain of causes it is."""
    cause: BaseException | None = error
    while cause is not None:
        if hasattr(cause, "problem"):
            return str(cause.problem)
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: the file could not be read"
