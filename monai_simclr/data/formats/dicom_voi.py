"""Which values of interest a DICOM file is shown with: VOI LUT, window, percentiles or all (PS3.3 C.11.2)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom

from monai_simclr.data.formats.dicom_file import DicomHeader
from monai_simclr.data.formats.dicom_luts import lookup_table, window_values
from monai_simclr.data.formats.dicom_tags import items, keyword_name, numbers, texts
from monai_simclr.data.formats.scaling import percentile_range, spread
from monai_simclr.data.radiograph import UNKNOWN, RadiographError, ReaderSettings

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


class ValueRange(NamedTuple):
    """What values can be at the least and at the most, whatever the image."""

    low: float
    high: float


class Shown(NamedTuple):
    """Gray in [0, 1] for each value, and what chose it; see `RadiographMeta`."""

    gray: np.ndarray
    voi: str
    window: tuple[float, float]


class _Choice(NamedTuple):
    """A VOI LUT or a window of the file."""

    table: pydicom.Dataset | None = None
    window: tuple[float, float] | None = None


def show_values(
    path: Path,
    header: DicomHeader,
    values: np.ndarray,
    known: ValueRange,
    counts: np.ndarray,
    settings: ReaderSettings,
) -> Shown:
    """Show the values that the policy of `settings` chooses.

    Args:
        path: the file, for the error.
        header: its attributes.
        values: float64, each value that a pixel can have after the modality LUT.
        known: the range of those that the stored bits can have.
        counts: pixels of each value, without padding.
        settings: see `ReaderSettings.voi`.

    Raises:
        RadiographError: if the file does not have what the policy asks for, or has it damaged.
    """
    if settings.voi == "none":
        return Shown(spread(values, *known), "none", UNKNOWN)
    choice = None if settings.voi == "percentile" else _chosen(path, header.data, settings)
    if choice is None:
        return Shown(spread(values, *percentile_range(values, counts)), "percentile", UNKNOWN)
    if choice.table is not None:
        table = lookup_table(path, choice.table, known.low < 0, header.syntax.is_little_endian)
        return Shown(table(values) / table.top, "lut", UNKNOWN)
    assert choice.window is not None
    center, width = choice.window
    return Shown(window_values(values, center, width, _function(path, header.data)), "window", choice.window)


def _chosen(path: Path, data: pydicom.Dataset, settings: ReaderSettings) -> _Choice | None:
    if settings.voi == "auto":
        tables = _tables(path, data)
        usable = [window for window in _windows(path, data) if _is_usable(path, data, window)]
        return _Choice(table=tables[0]) if tables else _Choice(window=usable[0]) if usable else None
    if settings.voi == "index":
        return _at(path, data, settings.window_index)
    return _explained(path, data, settings.window_explanation.strip().upper())


def _at(path: Path, data: pydicom.Dataset, index: int) -> _Choice:
    windows, tables = _windows(path, data), _tables(path, data)
    if index >= len(windows or tables):
        raise RadiographError(
            path, f"has {len(windows)} windows and {len(tables)} VOI LUTs, so none is number {index}, counted from 0"
        )
    return _checked(path, data, windows[index]) if windows else _Choice(table=tables[index])


def _explained(path: Path, data: pydicom.Dataset, explanation: str) -> _Choice:
    windows, tables = _windows(path, data), _tables(path, data)
    for window, said in zip(windows, texts(data, "WindowCenterWidthExplanation"), strict=False):
        if said == explanation:
            return _checked(path, data, window)
    for table in tables:
        if explanation in texts(table, "LUTExplanation"):
            return _Choice(table=table)
    raise RadiographError(
        path,
        f"has {len(windows)} windows and {len(tables)} VOI LUTs, none explained as {explanation!r} in "
        f"{keyword_name('WindowCenterWidthExplanation')} or {keyword_name('LUTExplanation')}",
    )


def _checked(path: Path, data: pydicom.Dataset, window: tuple[float, float]) -> _Choice:
    if not _is_usable(path, data, window):
        raise RadiographError(path, f"{keyword_name('WindowWidth')} is {window[1]:g}, which shows nothing")
    return _Choice(window=window)


def _tables(path: Path, data: pydicom.Dataset) -> list[pydicom.Dataset]:
    return [item for item in items(path, data, "VOILUTSequence") if "LUTDescriptor" in item and "LUTData" in item]


def _windows(path: Path, data: pydicom.Dataset) -> list[tuple[float, float]]:
    centers, widths = numbers(path, data, "WindowCenter"), numbers(path, data, "WindowWidth")
    return list(zip(centers, widths, strict=False))


def _is_usable(path: Path, data: pydicom.Dataset, window: tuple[float, float]) -> bool:
    """A width is 1 or more for LINEAR (PS3.3 C.11.2.1.2.1), above 0 otherwise."""
    least = 1.0 if _function(path, data) == "LINEAR" else float(np.finfo(np.float32).tiny)
    return math.isfinite(window[0]) and math.isfinite(window[1]) and window[1] >= least


def _function(path: Path, data: pydicom.Dataset) -> str:
    said = texts(data, "VOILUTFunction")
    function = said[0] if said and said[0] else "LINEAR"
    if function not in _FUNCTIONS:
        raise RadiographError(path, f"{keyword_name('VOILUTFunction')} is none of {', '.join(_FUNCTIONS)}")
    return function
