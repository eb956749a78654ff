"""What the reading of a radiograph is told, and how it says no: the settings, the metadata, the error."""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, get_args

from monai_simclr.runtime.names import shown

VoiPolicy = Literal["auto", "index", "explanation", "percentile", "none"]
"""How values of interest become gray; see `ReaderSettings.voi`."""


class RadiographError(ValueError):
    """A file that is no radiograph that we can read.

    Attributes:
        path: the file.
        problem: the sentence without the file's name, for outputs that must not carry names.

    Example:
        >>> str(RadiographError("in/IM_0001.dcm", "has no pixels"))
        'IM_0001.dcm: has no pixels'
    """

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(f"{shown(Path(path).name)}: {problem}")
        self.path, self.problem = str(path), problem

    def __reduce__(self) -> tuple[type[RadiographError], tuple[str, str]]:
        return type(self), (self.path, self.problem)


@dataclass(frozen=True)
class ReaderSettings:
    """How files become canonical images. Plain values, so that `dataclasses.asdict` of it can be written down.

    Attributes:
        voi: which values of interest are shown (DICOM PS3.3 C.11.2).

            - ``auto``: the VOI LUT Sequence, else the first window that can be used, else percentiles 0.5 to 99.5.
            - ``index``: number `window_index` of the windows, or of the VOI LUT Sequence where there are no windows.
            - ``explanation``: the window or VOI LUT whose explanation is `window_explanation`, whatever the case.
            - ``percentile``: percentiles 0.5 to 99.5 of the image, in files of every format.
            - ``none``: the whole range that the stored bits can have, after the modality LUT.
        window_index: for ``voi="index"``, from 0.
        window_explanation: for ``voi="explanation"``, such as "NORMAL" in (0028,1055) or (0028,3003).
        patient_orientation: whether DICOM (0020,0020) Patient Orientation, where there is one, turns and mirrors the
            image to the canonical display (row 0 cranial, column 0 the patient's right). Off: as stored.
        crop_collimation: whether even borders, black or white, are cut off.
        render_for_processing: whether FOR PROCESSING images (raw detector values) are rendered; refused when off.
        max_pixels: rows x columns that are read at the most; checked before anything is decoded.
        max_bytes: size that a file may have, and that what is deflated in it may have when inflated.
        min_side: rows and columns that an image must have; on fewer pixels there is no chest to see, and a network's
            input would be made up by resizing. MedMNIST's smallest pictures have 28.
        max_aspect: how many times as long as the shorter side the longer one may be. Chest radiographs are within 2.

    Raises:
        ValueError: if `voi` is no policy, or a number is out of range.

    Example:
        >>> from dataclasses import asdict
        >>> asdict(ReaderSettings(voi="percentile"))["voi"]
        'percentile'
    """

    voi: VoiPolicy = "auto"
    window_index: int = 0
    window_explanation: str = ""
    patient_orientation: bool = True
    crop_collimation: bool = False
    render_for_processing: bool = False
    max_pixels: int = 64_000_000
    max_bytes: int = 256 * 2**20
    min_side: int = 32
    max_aspect: int = 4

    def __post_init__(self) -> None:
        if self.voi not in get_args(VoiPolicy):
            raise ValueError(f"voi must be one of {list(get_args(VoiPolicy))}, got {self.voi!r}")
        if self.window_index < 0:
            raise ValueError(f"window_index counts from 0, got {self.window_index}")
        if self.voi == "explanation" and not self.window_explanation.strip():
            raise ValueError("voi='explanation' needs window_explanation, such as 'NORMAL'")
        if self.max_pixels < 1 or self.max_bytes < 1:
            raise ValueError(f"max_pixels and max_bytes must be 1 or more, got {self.max_pixels} and {self.max_bytes}")
        if self.min_side < 1 or self.max_aspect < 1:
            raise ValueError(f"min_side and max_aspect must be 1 or more, got {self.min_side} and {self.max_aspect}")


DEFAULT_SETTINGS = ReaderSettings()
UNKNOWN = (math.nan, math.nan)
"""Two numbers that a file does not have; never left out, so that the metadata of all files can be collated."""


def check_pixels(path: str | Path, rows: int, columns: int, settings: ReaderSettings) -> None:
    """Refuse what is too large to decode.

    Raises:
        RadiographError: with the shape, the limit and its name.
    """
    if rows * columns > settings.max_pixels:
        raise RadiographError(
            path, f"has {rows} x {columns} pixels by its header, more than max_pixels={settings.max_pixels}"
        )


def check_shape(path: str | Path, rows: int, columns: int, settings: ReaderSettings) -> None:
    """Refuse what is too small to show a chest, or too long to be one.

    Raises:
        RadiographError: with the shape, the limit and its name.

    Example:
        >>> check_shape("a.png", 8, 2000, DEFAULT_SETTINGS)
        Traceback (most recent call last):
        ...
        monai_simclr.data.radiograph.RadiographError: a.png: has 8 x 2000 pixels, a side under min_side=32
    """
    shape = f"has {rows} x {columns} pixels"
    if min(rows, columns) < settings.min_side:
        raise RadiographError(path, f"{shape}, a side under min_side={settings.min_side}")
    if max(rows, columns) > settings.max_aspect * min(rows, columns):
        raise RadiographError(path, f"{shape}, one side more than max_aspect={settings.max_aspect} times the other")


class RadiographMeta(TypedDict):
    """What is known of an image beside its pixels: the same keys and lengths for every format, and nobody's name.

    Attributes:
        format: "DICOM", "PNG", "JPEG", "TIFF" or "NIfTI".
        view_position: "PA", "AP", "LL" (every lateral) by the header, as in an index; "" when unknown or another.
        photometric_interpretation: "MONOCHROME1" or "MONOCHROME2" as stored; "" in other formats.
        inverted: whether dark and bright were swapped.
        voi: what chose the gray values: "lut", "window", "percentile" or "none" (the full range).
        window: (center, width) in units of the modality LUT's output; NaN where no window was used.
        spacing: millimeters between rows, and between columns; NaN when unknown.
        spacing_source: the attribute it is from; "" when unknown.
        orientation: what was done to the stored rows and columns, such as "mirrored"; "" for nothing.
        crop: (top, left, height, width) of what was kept, in pixels of the upright image before the crop.
    """

    format: str
    view_position: str
    photometric_interpretation: str
    inverted: bool
    voi: str
    window: tuple[float, float]
    spacing: tuple[float, float]
    spacing_source: str
    orientation: str
    crop: tuple[int, int, int, int]


def init_meta(file_format: str) -> RadiographMeta:
    """Give the metadata of an image of which nothing is known but the format of its file.

    Example:
        >>> init_meta("PNG")["spacing"]
        (nan, nan)
    """
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


def unopened(error: OSError) -> str:
    """Say why a file cannot be opened, without its name.

    Example:
        >>> unopened(OSError(22, "is a named pipe, not a regular file", "in/a.dcm"))
        'is a named pipe, not a regular file'
        >>> unopened(PermissionError(13, "Permission denied"))
        'cannot be opened (PermissionError)'
    """
    if error.errno == errno.EINVAL and "regular file" in str(error.strerror):
        return str(error.strerror)
    return f"cannot be opened ({type(error).__name__})"


def describe_problem(error: BaseException) -> str:
    """The reader's own sentence without a path, wherever in the chain of causes it is."""
    cause: BaseException | None = error
    while cause is not None:
        if hasattr(cause, "problem"):
            return str(cause.problem)
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: the file could not be read"
