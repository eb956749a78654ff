"""Attributes of a DICOM file as checked plain values: a value that cannot be one is refused by its tag."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.multival import MultiValue

from monai_simclr.data.radiograph import RadiographError

_CODE = re.compile(r"[A-Z0-9_. -]{0,16}")  # PS3.5 6.2: Code String, and UIDs of our own messages


def keyword_name(keyword: str) -> str:
    """Give the tag and name of an attribute.

    Example:
        >>> keyword_name("BitsStored")
        '(0028,0101) Bits Stored'
    """
    tag = tag_for_keyword(keyword) or 0
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x}) {dictionary_description(tag)}"


def numbers(path: Path, data: pydicom.Dataset, keyword: str) -> tuple[float, ...]:
    """Give all values of an attribute as floats, which may be NaN or infinite; none when it is missing or empty.

    Raises:
        RadiographError: if a value is no number.
    """
    try:
        value = data.get(keyword)
        found = [] if value is None or value == "" else value if _many(value) else [value]
        return tuple(math.nan if one is None or one == "" else float(one) for one in found)
    except Exception as error:  # pydicom converts a raw value when it is first looked at, and damaged ones in many ways
        raise RadiographError(path, f"{keyword_name(keyword)} is no number") from error


def number(path: Path, data: pydicom.Dataset, keyword: str, default: float) -> float:
    """Give the first value of an attribute, finite; `default` when it is missing or empty.

    Raises:
        RadiographError: if it is no finite number.
    """
    found = numbers(path, data, keyword)
    value = found[0] if found else default
    if not math.isfinite(value):
        raise RadiographError(path, f"{keyword_name(keyword)} is no finite number")
    return value


def whole(path: Path, data: pydicom.Dataset, keyword: str, default: int = 0) -> int:
    """Give the first value of an attribute as an integer; `default` when it is missing or empty.

    Raises:
        RadiographError: if it is no whole number.
    """
    value = number(path, data, keyword, default)
    if value != int(value):
        raise RadiographError(path, f"{keyword_name(keyword)} is {value:g}; a whole number is needed")
    return int(value)


def texts(data: pydicom.Dataset, keyword: str) -> tuple[str, ...]:
    """Give all values of an attribute as stripped text in capitals; none when it is missing or cannot be read."""
    return tuple(one.upper() for one in _texts(data, keyword))


def text(data: pydicom.Dataset, keyword: str) -> str:
    """Give an attribute as stripped text as it is written, several values parted as in the file; "" as in `texts`.

    Example:
        >>> data = pydicom.Dataset()
        >>> data.PatientID = " p 1 "
        >>> text(data, "PatientID"), text(data, "StudyInstanceUID")
        ('p 1', '')
    """
    return "\\".join(_texts(data, keyword))


def _texts(data: pydicom.Dataset, keyword: str) -> tuple[str, ...]:
    try:
        value = data.get(keyword)
        found = [] if value is None else value if _many(value) else [value]
        return tuple(str(one).strip(" \0\t\r\n\f\v") for one in found)
    except Exception:  # as in `numbers`; a text that cannot be decoded is as good as none
        return ()


def code(data: pydicom.Dataset, keyword: str) -> str:
    """Give an attribute's first value if it looks like a code string (so that messages can never carry a name).

    Example:
        >>> data = pydicom.Dataset()
        >>> data.Modality, data.PatientName = "CR", "Doe^Jane"
        >>> code(data, "Modality"), code(data, "PatientName")
        ('CR', '?')
    """
    found = texts(data, keyword)
    return (found[0] if _CODE.fullmatch(found[0]) else "?") if found else ""


def items(path: Path, data: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """Give the items of a sequence; none when it is missing.

    Raises:
        RadiographError: if it is no sequence.
    """
    try:
        value = data.get(keyword)
        found = list(value) if value is not None else []
    except Exception as error:  # as in `numbers`
        raise RadiographError(path, f"{keyword_name(keyword)} is damaged") from error
    if not all(isinstance(item, pydicom.Dataset) for item in found):
        raise RadiographError(path, f"{keyword_name(keyword)} is no sequence of items")
    return found


def tolerant_items(data: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """Give the items of a sequence that only describes; none when it is missing or damaged."""
    try:
        return items(Path(), data, keyword)
    except RadiographError:
        return []


def _many(value: Any) -> bool:
    return isinstance(value, MultiValue | list | tuple) and isinstance(value, Iterable)
