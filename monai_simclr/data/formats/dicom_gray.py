"""Stored values to shown gray levels: padding, modality LUT, values of interest, one inversion (DICOM PS3.3 C.11).

Every step maps a value to a value, so all are computed, in this order and in float64, on the at most 65,536 values that
a pixel can have, and the image is one look-up in the result. Tables and windows are ours, and `pydicom.pixels` is their
oracle in the tests: pydicom 3.0.2 wraps around in 8-bit tables and refuses packed ones.
"""

from __future__ import annotations

import numpy as np
import pydicom

from monai_simclr.data.formats.dicom_header import DicomHeader
from monai_simclr.data.formats.dicom_pixels import PixelLayout
from monai_simclr.data.formats.dicom_tags import (
    get_code,
    get_codes,
    get_float,
    get_floats,
    get_int,
    get_items,
    keyword_name,
)
from monai_simclr.data.formats.exam import is_for_processing
from monai_simclr.data.formats.scaling import histogram, look_up, patterns, percentile_range, spread
from monai_simclr.data.radiograph import UNKNOWN, RadiographError, RadiographMeta, ReaderSettings

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_Window = tuple[float, float]


def to_gray(
    header: DicomHeader, layout: PixelLayout, stored: np.ndarray, settings: ReaderSettings, meta: RadiographMeta
) -> np.ndarray:
    """Map an image of stored values to gray in [0, 1], float32; `meta` gets the VOI, the window and the inversion.

    Raises:
        RadiographError: if the attributes do not define a mapping, or every pixel is padding.
    """
    data = header.data
    values = patterns(stored.dtype)
    padding = np.zeros(len(values), dtype=bool)
    if get_floats(data, "PixelPaddingValue"):  # or a range (PS3.3 C.7.5.1.1.2)
        # modulo, because some files write 63536 where signed pixels have -2000
        first = values[get_int(data, "PixelPaddingValue") % len(values)]
        last = values[get_int(data, "PixelPaddingRangeLimit", int(first)) % len(values)]
        padding = (values >= min(first, last)) & (values <= max(first, last))
    if padding.any() and not np.where(padding, 0, histogram(stored)).any():
        raise RadiographError(f"{keyword_name('PixelPaddingValue')} is everywhere; there is no picture")
    values, low, high = _apply_modality(header, layout, values)
    inverted = layout.photometric_interpretation == "MONOCHROME1"  # the lowest value is white
    inverted = inverted or get_code(data, "PresentationLUTShape") == "INVERSE"  # PS3.3 C.11.6.1.2
    policy = settings.voi
    if is_for_processing(data):
        policy = "percentile"
        values, inverted = _linearize_raw(data, values, low, high, inverted)
    chosen = None if policy in ("none", "percentile") else _choose_voi(data, settings)
    voi, window = "percentile", UNKNOWN
    if policy == "none":
        gray, voi = spread(values, low, high), "none"
    elif isinstance(chosen, pydicom.Dataset):
        output, top = _apply_lut(chosen, values, low < 0, header.syntax.is_little_endian)
        gray, voi = output / top, "lut"
    elif chosen is not None:
        gray, voi, window = window_values(values, *chosen, _get_function(data)), "window", chosen
    else:
        gray = spread(values, *percentile_range(values, np.where(padding, 0, histogram(stored))))
    gray = np.clip(1 - gray if inverted else gray, 0, 1)
    gray[padding] = 0
    meta["inverted"], meta["voi"], meta["window"] = inverted, voi, window
    return look_up(gray.astype(np.float32), stored)


def window_values(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Map a window of values to gray in [0, 1] (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: float64, any shape; the result has the same.
        center: of the window.
        width: of the window, 1 or more for LINEAR, above 0 for the others.
        function: "LINEAR", "LINEAR_EXACT" or "SIGMOID".

    Example:
        >>> window_values(np.array([0.0, 1024.0, 2047.5, 4096.0]), 2048, 4096, "LINEAR").round(4).tolist()
        [0.0, 0.2501, 0.5, 1.0]
    """
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:  # LINEAR of width 1: a threshold
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _apply_modality(header: DicomHeader, layout: PixelLayout, inputs: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Stored values to the detector's or the vendor's unit (PS3.3 C.11.1), and the lowest and highest possible."""
    data = header.data
    tables = get_items(data, "ModalityLUTSequence")
    if tables:
        values, top = _apply_lut(tables[0], inputs, layout.signed, header.syntax.is_little_endian)
        return values, 0.0, top
    slope, intercept = get_float(data, "RescaleSlope", 1.0), get_float(data, "RescaleIntercept", 0.0)
    if slope == 0:
        raise RadiographError(f"{keyword_name('RescaleSlope')} is 0, which makes every pixel the same")
    first = -(2 ** (layout.bits_stored - 1)) if layout.signed else 0
    ends = [value * slope + intercept for value in (first, first + 2**layout.bits_stored - 1)]
    if not np.isfinite([*ends, ends[1] - ends[0]]).all() or ends[0] == ends[1]:
        raise RadiographError(f"{keyword_name('RescaleSlope')} and Intercept lead to values that are not finite")
    return inputs * slope + intercept, min(ends), max(ends)


def _apply_lut(
    item: pydicom.Dataset, values: np.ndarray, signed_input: bool, little_endian: bool
) -> tuple[np.ndarray, float]:
    """Values, rounded, through an item of a LUT sequence (PS3.3 C.11.1.1.1); and the largest output it can have."""
    descriptor = get_floats(item, "LUTDescriptor")
    if len(descriptor) != 3 or not np.isfinite(descriptor).all():
        raise RadiographError(f"{keyword_name('LUTDescriptor')} is not three numbers")
    length, first, bits = (int(value) for value in descriptor)
    length = length % 65536 or 65536  # 65535 may be written as -1, and 0 means 65536
    if not 8 <= bits <= 16:
        raise RadiographError(f"{keyword_name('LUTDescriptor')} states {bits} bits; 8 to 16 are possible")
    try:
        content, order = item.get("LUTData"), "<"
        if isinstance(content, bytes):
            order = "<" if little_endian else ">"
        else:
            content = (np.asarray(content, np.int64) % 65536).astype("<u2").tobytes()
    except Exception as error:  # a raw value is converted when it is first accessed, and damaged ones in many ways
        raise RadiographError(f"{keyword_name('LUTData')} is damaged") from error
    packed = bits == 8 and length <= len(content) < 2 * length  # two entries in a word
    if len(content) < 2 * length and not packed:
        raise RadiographError(
            f"{keyword_name('LUTData')} has {len(content)} bytes, too few for the {length} entries of its descriptor"
        )
    entries = np.frombuffer(content, np.uint8 if packed else f"{order}u2", length).astype(np.float64)
    # some writers state 8 bits and store 12: then what is stored counts
    top = max(2.0**bits - 1, 2.0 ** int(entries.max()).bit_length() - 1)
    if signed_input and first > 32767:
        first -= 65536
    return entries[np.clip(np.rint(values) - first, 0, length - 1).astype(np.intp)], top


def _linearize_raw(
    data: pydicom.Dataset, values: np.ndarray, low: float, high: float, inverted: bool
) -> tuple[np.ndarray, bool]:
    """Raw values: the logarithm of what is linear in the X-rays (PS3.3 C.8.11.3.1.2); and whether to invert."""
    if get_code(data, "PixelIntensityRelationship") == "LIN":
        falls = get_int(data, "PixelIntensityRelationshipSign", 1) < 0
        exposure = np.clip(high - values if falls else values - low, 0, None)
        values = -np.log1p(exposure) if falls else np.log1p(exposure)
    sign = get_floats(data, "PixelIntensityRelationshipSign")
    return values, sign[0] > 0 if sign else inverted  # sign 1: larger values met more X-rays, that is, air


def _choose_voi(data: pydicom.Dataset, settings: ReaderSettings) -> pydicom.Dataset | _Window | None:
    """The VOI LUT or the window that the policy chooses (PS3.3 C.11.2); None for percentiles."""
    tables = [item for item in get_items(data, "VOILUTSequence") if "LUTDescriptor" in item and "LUTData" in item]
    windows = list(zip(get_floats(data, "WindowCenter"), get_floats(data, "WindowWidth"), strict=False))
    candidates: list[pydicom.Dataset | _Window]
    if settings.voi == "auto":
        candidates = [*tables, *(window for window in windows if _is_usable(data, window))]
        return candidates[0] if candidates else None
    offered = f"has {len(windows)} windows and {len(tables)} VOI LUTs"
    if settings.voi == "index":
        index, candidates = settings.window_index, [*(windows or tables)]
        problem = f"{offered}, so none is number {index}, counted from 0"
    else:
        index, wanted = 0, settings.window_explanation.strip().upper()
        explained = zip(windows, get_codes(data, "WindowCenterWidthExplanation"), strict=False)
        candidates = [window for window, explanation in explained if explanation == wanted]
        candidates += [table for table in tables if wanted in get_codes(table, "LUTExplanation")]
        problem = (
            f"{offered}, none explained as {wanted!r} in {keyword_name('WindowCenterWidthExplanation')} or "
            f"{keyword_name('LUTExplanation')}"
        )
    if index >= len(candidates):
        raise RadiographError(problem)
    chosen = candidates[index]
    if isinstance(chosen, tuple) and not _is_usable(data, chosen):
        raise RadiographError(f"{keyword_name('WindowWidth')} is {chosen[1]:g}, which shows nothing")
    return chosen


def _is_usable(data: pydicom.Dataset, window: _Window) -> bool:
    """A width is 1 or more for LINEAR (PS3.3 C.11.2.1.2.1), above 0 otherwise."""
    min_width = 1.0 if _get_function(data) == "LINEAR" else float(np.finfo(np.float32).tiny)
    return bool(np.isfinite(window).all()) and window[1] >= min_width


def _get_function(data: pydicom.Dataset) -> str:
    function = (get_codes(data, "VOILUTFunction") or ("",))[0] or "LINEAR"
    if function not in _FUNCTIONS:
        raise RadiographError(f"{keyword_name('VOILUTFunction')} is none of {', '.join(_FUNCTIONS)}")
    return function
