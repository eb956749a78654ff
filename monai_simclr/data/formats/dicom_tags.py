"""Attributes of a DICOM file as checked plain values.

The functions raise `RadiographError`, by the tag, if a value has the wrong type; missing and empty values are none, or
the default. Texts only describe: damaged ones count as missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.multival import MultiValue

from monai_simclr.data.radiograph import RadiographError

_CODE = re.compile(r"[A-Z0-9_. -]{0,16}")  # PS3.5 6.2: Code String, and UIDs of our own messages


def keyword_name(keyword: str) -> str:
    """Return the tag and name of an attribute.

    Example:
        >>> keyword_name("BitsStored")
        '(0028,0101) Bits Stored'
    """
    tag = tag_for_keyword(keyword) or 0
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x}) {dictionary_description(tag)}"


def _get_values(data: pydicom.Dataset, keyword: str) -> Sequence[Any]:
    """All values; pydicom converts a raw value when it is first accessed, and raises many kinds on damaged ones."""
    value = data.get(keyword)
    if value is None or value == "":
        return ()
    return value if isinstance(value, MultiValue | list | tuple) else (value,)


def get_floats(data: pydicom.Dataset, keyword: str) -> tuple[float, ...]:
    """Return all values of an attribute, which may be NaN or infinite."""
    try:
        return tuple(math.nan if value in (None, "") else float(value) for value in _get_values(data, keyword))
    except Exception as error:
        raise RadiographError(f"{keyword_name(keyword)} is not a number") from error


def get_float(data: pydicom.Dataset, keyword: str, default: float) -> float:
    """Return the first value of an attribute, which must be finite."""
    value = (get_floats(data, keyword) or (default,))[0]
    if not math.isfinite(value):
        raise RadiographError(f"{keyword_name(keyword)} is not a finite number")
    return value


def get_int(data: pydicom.Dataset, keyword: str, default: int = 0) -> int:
    """Return the first value of an attribute, which must be a whole number."""
    value = get_float(data, keyword, default)
    if value != int(value):
        raise RadiographError(f"{keyword_name(keyword)} is {value:g}; a whole number is needed")
    return int(value)


def get_texts(data: pydicom.Dataset, keyword: str) -> tuple[str, ...]:
    """Return all values of an attribute as stripped text."""
    try:
        return tuple(str(value).strip(" \0\t\r\n\f\v") for value in _get_values(data, keyword))
    except Exception:
        return ()


def get_text(data: pydicom.Dataset, keyword: str) -> str:
    """Return an attribute as stripped text, several values separated by a backslash as in the file.

    Example:
        >>> data = pydicom.Dataset()
        >>> data.PatientID = " p 1 "
        >>> get_text(data, "PatientID"), get_text(data, "StudyInstanceUID")
        ('p 1', '')
    """
    return "\\".join(get_texts(data, keyword))


def patient_name(issuer: str, patient: str) -> str:
    """What a patient is called in an index and in hashes: the id, after its issuer since hospitals number alike.

    Args:
        issuer: (0010,0021) Issuer of Patient ID; "" where it is not given.
        patient: (0010,0020) Patient ID; "" where it is not given.

    Example:
        >>> patient_name("north", "7"), patient_name("", "7"), patient_name("north", "")
        ('north:7', '7', '')
    """
    return f"{issuer}:{patient}" if issuer and patient else patient


def get_codes(data: pydicom.Dataset, keyword: str) -> tuple[str, ...]:
    """Return all values of an attribute as stripped text in capitals."""
    return tuple(value.upper() for value in get_texts(data, keyword))


def get_code(data: pydicom.Dataset, keyword: str) -> str:
    """Return an attribute's first value if it looks like a code string, so that no message can contain a name.

    Example:
        >>> data = pydicom.Dataset()
        >>> data.Modality, data.PatientName = "CR", "Doe^Jane"
        >>> get_code(data, "Modality"), get_code(data, "PatientName")
        ('CR', '?')
    """
    value = (get_codes(data, keyword) or ("",))[0]
    return value if _CODE.fullmatch(value) else "?"


def get_items(data: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """Return the items of a sequence."""
    try:
        items = list(data.get(keyword) or ())
    except Exception as error:  # see `_get_values`
        raise RadiographError(f"{keyword_name(keyword)} is damaged") from error
    if not all(isinstance(item, pydicom.Dataset) for item in items):
        raise RadiographError(f"{keyword_name(keyword)} is not a sequence of items")
    return items


def tolerant_items(data: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """Return the items of a sequence that only describes; none when it is damaged."""
    try:
        return get_items(data, keyword)
    except RadiographError:
        return []
