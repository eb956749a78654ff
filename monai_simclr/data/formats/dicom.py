"""DICOM files to canonical images: which files are read, how large, which way up.

The steps are in `dicom_header` (open safely), `exam` (what it shows), `dicom_pixels` (decode) and `dicom_gray` (stored
values to gray levels).
"""

from __future__ import annotations

import math
from typing import BinaryIO, NamedTuple

import numpy as np
import pydicom
from pydicom.uid import JPEG2000TransferSyntaxes

from monai_simclr.data.formats.dicom_gray import to_gray
from monai_simclr.data.formats.dicom_header import open_dicom
from monai_simclr.data.formats.dicom_pixels import PixelLayout, decode_pixels
from monai_simclr.data.formats.dicom_tags import get_code, get_codes, get_floats, get_int, get_texts, keyword_name
from monai_simclr.data.formats.exam import is_for_processing, is_radiograph, read_exam
from monai_simclr.data.formats.halved import in_place, pixel_scales
from monai_simclr.data.formats.scaling import check_contrast, describe_turn, turn
from monai_simclr.data.radiograph import UNKNOWN, RadiographError, RadiographMeta, ReaderSettings, check_size, init_meta

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_VERTICAL, _HORIZONTAL = "HF", "LRAP"


def read_dicom(
    file: BinaryIO, settings: ReaderSettings, side: int | None, padded: bool = False
) -> tuple[np.ndarray, RadiographMeta]:
    """Read a DICOM Part 10 file with one gray radiograph, as `read_radiograph` does.

    The order is: header and limits, decoding, padding, modality LUT, values of interest, one inversion, orientation.
    """
    header = open_dicom(file, settings.max_bytes)
    check_kind(header.data, settings)
    layout = read_layout(header.data)
    check_size(layout.rows, layout.columns, settings)
    if get_floats(header.data, "PixelPaddingValue"):  # a mean of padding and a pixel is neither
        side = None
    stored = decode_pixels(header, layout, side)
    check_contrast(stored)
    meta = init_meta("DICOM")
    meta["view_position"] = read_exam(header.data).view.position
    meta["photometric_interpretation"] = layout.photometric_interpretation
    gray = to_gray(header, layout, stored, settings, meta)
    shape = (layout.rows, layout.columns)
    scales = pixel_scales(shape, gray.shape, padded)
    gray = in_place(gray, shape, header.syntax in JPEG2000TransferSyntaxes, padded)
    orientation = read_orientation(header.data) if settings.patient_orientation else ""
    spacing, meta["spacing_source"] = read_spacing(header.data)
    spacing = (spacing[0] * scales[0], spacing[1] * scales[1])
    meta["spacing"] = (spacing[1], spacing[0]) if "transposed" in orientation else spacing
    meta["orientation"] = orientation
    return turn(gray, orientation), meta


def check_kind(data: pydicom.Dataset, settings: ReaderSettings) -> None:
    """Refuse everything but one gray radiograph, by the tag that tells."""
    if "DirectoryRecordSequence" in data:
        raise RadiographError("is a DICOMDIR, an index of other files; give it those files")
    if not is_radiograph(data):
        raise RadiographError(
            f"{keyword_name('Modality')} is {get_code(data, 'Modality')!r}; a radiograph (CR, DX, RG, PX, "
            "or a Secondary Capture of no other modality) is needed"
        )
    if is_for_processing(data) and not settings.render_for_processing:
        raise RadiographError(
            f"{keyword_name('PresentationIntentType')} is FOR PROCESSING: raw detector values, not shown to people; "
            "look for the FOR PRESENTATION image, or set render_for_processing"
        )
    frames, samples = get_int(data, "NumberOfFrames", 1), get_int(data, "SamplesPerPixel", 1)
    if frames not in (0, 1):  # some writers count the further ones
        raise RadiographError(f"{keyword_name('NumberOfFrames')} is {frames}; a radiograph has one")
    if samples != 1:
        raise RadiographError(f"{keyword_name('SamplesPerPixel')} is {samples}: a color picture; a radiograph is gray")
    photometric = get_code(data, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") and get_floats(data, "Rows"):
        raise RadiographError(
            f"{keyword_name('PhotometricInterpretation')} is {photometric!r}; MONOCHROME1 or MONOCHROME2 is needed"
        )


def read_layout(data: pydicom.Dataset) -> PixelLayout:
    """Read and check the Image Pixel Module (PS3.3 C.7.6.3)."""
    rows, columns = get_int(data, "Rows"), get_int(data, "Columns")
    if rows < 1 or columns < 1:
        raise RadiographError(
            f"has no pixels: {keyword_name('Rows')} is {rows} and {keyword_name('Columns')} is {columns}"
        )
    for keyword in ("BitsAllocated", "BitsStored", "PixelRepresentation"):
        if not get_floats(data, keyword):
            raise RadiographError(f"{keyword_name(keyword)} is missing, so the pixels have no meaning")
    allocated, stored = get_int(data, "BitsAllocated"), get_int(data, "BitsStored")
    if allocated not in (8, 16) or not 8 <= stored <= allocated:
        raise RadiographError(
            f"{keyword_name('BitsAllocated')} is {allocated} and {keyword_name('BitsStored')} is {stored}; "
            "8 to 16 bits in 8 or 16 are read"
        )
    high = get_int(data, "HighBit", stored - 1)
    if high != stored - 1:
        raise RadiographError(
            f"{keyword_name('HighBit')} is {high}, not one less than {keyword_name('BitsStored')}={stored} "
            "(PS3.5 section 8.1.1), so it is unknown which bits are the pixel"
        )
    signed = get_int(data, "PixelRepresentation")
    if signed not in (0, 1):
        raise RadiographError(f"{keyword_name('PixelRepresentation')} is {signed}; 0 or 1 is needed")
    return PixelLayout(rows, columns, allocated, stored, bool(signed), get_code(data, "PhotometricInterpretation"))


def read_orientation(data: pydicom.Dataset) -> str:
    """Return how to `turn` an image canonical by its Patient Orientation (PS3.3 C.7.6.1.1.1): of rows, then of columns.

    Canonical is "L\\F" for frontal images: along a row to the patient's left, down to the feet. A lateral image (to A
    or P) is turned upright and not mirrored. Without the attribute, or where it makes no sense, nothing is done.

    Example:
        >>> data = pydicom.Dataset()
        >>> data.PatientOrientation = ["R", "H"]
        >>> read_orientation(data)
        'flipped mirrored'
    """
    axes = _read_axes(data)
    return "" if axes is None else describe_turn(axes.transposed, axes.down == "H", axes.along_row == "R")


def is_turned_frontal(data: pydicom.Dataset) -> bool:
    """Whether `read_orientation` makes it "L\\F": a frontal image whose Patient Orientation makes sense.

    Example:
        >>> data = pydicom.Dataset()
        >>> shown = []
        >>> for data.PatientOrientation in (["R", "H"], ["P", "F"], ["L", "R"], "L"):
        ...     shown.append(is_turned_frontal(data))
        >>> shown
        [True, False, False, False]
    """
    axes = _read_axes(data)
    return axes is not None and axes.along_row in "LR"


class _Axes(NamedTuple):
    """Where rows and columns point to, after `transposed`."""

    transposed: bool
    along_row: str  # one of _HORIZONTAL
    down: str  # one of _VERTICAL


def _read_axes(data: pydicom.Dataset) -> _Axes | None:
    """The axes of a Patient Orientation; None without it, or where it makes no sense."""
    directions = get_codes(data, "PatientOrientation")
    if len(directions) != 2 or not all(directions):
        return None
    along_row, down = directions[0][0], directions[1][0]  # "LF" is mostly to the left and a little to the feet
    transposed = along_row in _VERTICAL and down in _HORIZONTAL
    if transposed:
        along_row, down = down, along_row
    if along_row not in _HORIZONTAL or down not in _VERTICAL:
        return None
    return _Axes(transposed, along_row, down)


def read_spacing(data: pydicom.Dataset) -> tuple[tuple[float, float], str]:
    """Return the distance between rows and between columns in millimeters, as stored, and the attribute it is from.

    Pixel Spacing, else Imager Pixel Spacing (at the detector, PS3.3 C.8.11.4), else Nominal Scanned Pixel Spacing
    (of a film, C.8.6.1). What is not two finite numbers above 0 counts as missing.
    """
    for keyword in SPACINGS:
        steps = read_steps(data, keyword)
        if len(steps) == 2 and all(math.isfinite(step) and step > 0 for step in steps):
            return (steps[0], steps[1]), keyword
    return UNKNOWN, ""


def read_steps(data: pydicom.Dataset, keyword: str) -> tuple[float, ...]:
    """Return the numbers of a spacing, none where they are not numbers. "0,143" is read as 0.143: some writers follow
    their locale and not PS3.5 section 6.2, and no spacing is in the thousands.
    """
    try:
        return get_floats(data, keyword)
    except RadiographError:
        pass
    try:
        return tuple(float(text.replace(",", ".")) for text in get_texts(data, keyword))
    except ValueError:
        return ()
