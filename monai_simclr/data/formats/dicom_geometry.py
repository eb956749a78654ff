"""Which way up a DICOM image is, and how large its pixels are."""

from __future__ import annotations

import math
from pathlib import Path

import pydicom

from monai_simclr.data.formats.dicom_tags import numbers, texts
from monai_simclr.data.radiograph import UNKNOWN, RadiographError

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_UP_OR_DOWN, _SIDEWAYS = "HF", "LRAP"


def read_orientation(data: pydicom.Dataset) -> str:
    """Say what makes an image canonical, by its Patient Orientation (PS3.3 C.7.6.1.1.1): rows, then columns, point to.

    Canonical is "L\\F" for frontal images: along a row to the patient's left, down to the feet. A lateral image (to A
    or P) is turned upright and not mirrored. Without the attribute, or where it makes no sense, nothing is done.

    Returns:
        some of "transposed", "flipped" (upside down) and "mirrored" (left to right), in the order of doing them.

    Example:
        >>> data = pydicom.Dataset()
        >>> data.PatientOrientation = ["R", "H"]
        >>> read_orientation(data)
        'flipped mirrored'
    """
    said = texts(data, "PatientOrientation")
    if len(said) != 2 or not all(said):
        return ""
    along_row, down = said[0][0], said[1][0]  # "LF" is mostly to the left and a little to the feet
    steps = []
    if along_row in _UP_OR_DOWN and down in _SIDEWAYS:
        steps, (along_row, down) = ["transposed"], (down, along_row)
    if along_row not in _SIDEWAYS or down not in _UP_OR_DOWN:
        return ""
    return " ".join([*steps, *(["flipped"] if down == "H" else []), *(["mirrored"] if along_row == "R" else [])])


def read_spacing(path: Path, data: pydicom.Dataset) -> tuple[tuple[float, float], str]:
    """Give the distance between rows and between columns in millimeters, as stored, and the attribute it is from.

    Pixel Spacing, else Imager Pixel Spacing (at the detector, PS3.3 C.8.11.4), else Nominal Scanned Pixel Spacing
    (of a film, C.8.6.1). What is not two finite numbers above 0 is as good as missing.
    """
    for keyword in SPACINGS:
        found = read_steps(path, data, keyword)
        if len(found) == 2 and all(math.isfinite(value) and value > 0 for value in found):
            return (found[0], found[1]), keyword
    return UNKNOWN, ""


def read_steps(path: Path, data: pydicom.Dataset, keyword: str) -> tuple[float, ...]:
    """Give the numbers of a spacing, none where they are not numbers. "0,143" is 0.143: some writers follow their
    country and not PS3.5 section 6.2, and no spacing is in the thousands.
    """
    try:
        return numbers(path, data, keyword)
    except RadiographError:
        written = [one.replace(",", ".") for one in texts(data, keyword)]
    try:
        return tuple(float(one) for one in written)
    except ValueError:
        return ()
