"""Stored values to gray: padding, modality LUT, values of interest, one inversion (PS3.3 C.11, in that order).

Every step maps a value to a value, so all of them are computed on the at most 65,536 values that a pixel can have, in
float64, and the image is one look-up in the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from monai_simclr.data.formats.dicom_file import DicomHeader
from monai_simclr.data.formats.dicom_header import PixelLayout, is_for_processing
from monai_simclr.data.formats.dicom_luts import lookup_table
from monai_simclr.data.formats.dicom_tags import code, items, keyword_name, number, numbers, whole
from monai_simclr.data.formats.dicom_voi import Shown, ValueRange, show_values
from monai_simclr.data.formats.scaling import histogram, look_up, patterns, percentile_range, spread
from monai_simclr.data.radiograph import UNKNOWN, RadiographError, ReaderSettings


@dataclass(frozen=True)
class GrayTable:
    """What gray every stored value becomes.

    Attributes:
        gray: float32 in [0, 1], one for each bit pattern of a pixel, read as an unsigned number.
        voi: what chose the values of interest: "lut", "window", "percentile" or "none".
        window: its center and width; NaN where no window was used.
        inverted: whether dark and bright were swapped.
    """

    gray: np.ndarray
    voi: str
    window: tuple[float, float]
    inverted: bool

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """Map an image of stored values."""
        return look_up(self.gray, stored)


def gray_table(
    path: Path, header: DicomHeader, layout: PixelLayout, stored: np.ndarray, settings: ReaderSettings
) -> GrayTable:
    """Compute the table for one file.

    Args:
        path: the file, for the error.
        header: its attributes.
        layout: of its pixels.
        stored: the image of stored values; only percentiles and padding look at it.
        settings: the policy.

    Raises:
        RadiographError: if the attributes make no table, or every pixel is padding.
    """
    data = header.data
    padding = _padding(path, data, stored.dtype)
    counts = _counts_outside(path, stored, padding)
    values, known = _modality(path, header, layout, patterns(stored.dtype))
    if is_for_processing(data):
        shown = _show_raw(path, data, values, known, counts)
        inverted = _is_raw_inverted(path, data, layout)
    else:
        shown = show_values(path, header, values, known, counts, settings)
        inverted = _is_inverted(data, layout)
    gray = np.clip(1 - shown.gray if inverted else shown.gray, 0, 1)
    gray[padding] = 0
    return GrayTable(gray.astype(np.float32), shown.voi, shown.window, inverted)


def _padding(path: Path, data: pydicom.Dataset, dtype: np.dtype) -> np.ndarray:
    """Which bit patterns are padding: a value, or a range of them (PS3.3 C.7.5.1.1.2)."""
    first = numbers(path, data, "PixelPaddingValue")
    if not first:
        return np.zeros(256**dtype.itemsize, dtype=bool)
    ends = [_wrapped(whole(path, data, "PixelPaddingValue"), dtype)]
    ends.append(_wrapped(whole(path, data, "PixelPaddingRangeLimit", ends[0]), dtype))
    values = patterns(dtype)
    return (values >= min(ends)) & (values <= max(ends))


def _wrapped(value: int, dtype: np.dtype) -> int:
    """A value as the pixels have it: some files write 63536 where signed pixels have -2000."""
    return int(patterns(dtype)[value % 256**dtype.itemsize])


def _counts_outside(path: Path, stored: np.ndarray, padding: np.ndarray) -> np.ndarray:
    counts = histogram(stored)
    counts[padding] = 0
    if not counts.any():
        raise RadiographError(path, f"{keyword_name('PixelPaddingValue')} is everywhere; there is no picture")
    return counts


def _modality(
    path: Path, header: DicomHeader, layout: PixelLayout, inputs: np.ndarray
) -> tuple[np.ndarray, ValueRange]:
    """Stored values to the detector's or the vendor's unit (PS3.3 C.11.1), and the range that they can have."""
    data = header.data
    tables = items(path, data, "ModalityLUTSequence")
    if tables:
        table = lookup_table(path, tables[0], layout.signed, header.syntax.is_little_endian)
        return table(inputs), ValueRange(0.0, table.top)
    slope, intercept = number(path, data, "RescaleSlope", 1.0), number(path, data, "RescaleIntercept", 0.0)
    if slope == 0:
        raise RadiographError(path, f"{keyword_name('RescaleSlope')} is 0, which makes every pixel the same")
    ends = [value * slope + intercept for value in layout.stored_range]
    if not np.isfinite([*ends, ends[1] - ends[0]]).all() or ends[0] == ends[1]:
        raise RadiographError(path, f"{keyword_name('RescaleSlope')} and Intercept lead to values that are no numbers")
    return inputs * slope + intercept, ValueRange(min(ends), max(ends))


def _is_inverted(data: pydicom.Dataset, layout: PixelLayout) -> bool:
    """MONOCHROME1 shows the lowest value white; INVERSE says it a second time, or of MONOCHROME2 (PS3.3 C.11.6.1.2)."""
    return layout.photometric_interpretation == "MONOCHROME1" or code(data, "PresentationLUTShape") == "INVERSE"


def _show_raw(path: Path, data: pydicom.Dataset, values: np.ndarray, known: ValueRange, counts: np.ndarray) -> Shown:
    """Raw detector values: the logarithm of what is linear in the X-rays (PS3.3 C.8.11.3.1.2), then percentiles."""
    if code(data, "PixelIntensityRelationship") == "LIN":
        falls = whole(path, data, "PixelIntensityRelationshipSign", 1) < 0
        exposure = np.clip(known.high - values if falls else values - known.low, 0, None)
        values = -np.log1p(exposure) if falls else np.log1p(exposure)
    return Shown(spread(values, *percentile_range(values, counts)), "percentile", UNKNOWN)


def _is_raw_inverted(path: Path, data: pydicom.Dataset, layout: PixelLayout) -> bool:
    """Sign 1 means that larger values met more X-rays, that is, air; without it, what `_is_inverted` says."""
    sign = numbers(path, data, "PixelIntensityRelationshipSign")
    return sign[0] > 0 if sign else _is_inverted(data, layout)
