"""What DICOM results take over from a radiograph: patient, study and references, however sparse or odd its header.

Radiographs in use lack attributes that the standard requires, and hold values that it forbids. A result must be valid
all the same: what is missing or invalid is left empty, which the standard reads as unknown (type 2, PS3.5 7.4.3).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping

import pydicom
from pydicom.multival import MultiValue
from pydicom.uid import generate_uid

from monai_simclr.data.formats.dicom_tags import keyword_name

_DATE = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})")  # with dots as ACR-NEMA wrote them (PS3.5 6.2, note to DA)
_TIME = re.compile(r"([01]\d|2[0-3])(?:(:?)[0-5]\d(?:\2[0-5]\d(?:\.\d{1,6})?)?)?")


class HeaderError(ValueError):
    """A header that no result can belong to; `problem` is the sentence, without any value of the header."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def source_dataset(radiograph: pydicom.Dataset) -> pydicom.Dataset:
    """The identity of a radiograph, valid for a result that belongs to its study.

    Args:
        radiograph: its header, with the file meta information where there is one.

    Returns:
        A new dataset in UTF-8 with UIDs of class, instance, series and study, and the attributes of patient and study
        that are required (empty where unknown) or useful (only where valid). SOP class and instance come from the file
        meta information where the header lacks them; the UIDs of study and series, from that of the instance.

    Raises:
        HeaderError: if the file says neither which image nor of which class it is: nothing could refer to it.
    """
    made = pydicom.Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    meta = getattr(radiograph, "file_meta", None) or pydicom.Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        uid = _plain(radiograph, keyword) or _plain(meta, f"MediaStorage{keyword}")
        if not uid:
            raise HeaderError(f"{keyword_name(keyword)} is missing, so that nothing could refer to the image")
        setattr(made, keyword, uid)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        derived = generate_uid(entropy_srcs=[made.SOPInstanceUID, keyword])
        setattr(made, keyword, _plain(radiograph, keyword) or derived)
    for keyword, check in _REQUIRED.items():
        setattr(made, keyword, check(_plain(radiograph, keyword)))
    for keyword, check in _USEFUL.items():
        if check(_plain(radiograph, keyword)):
            setattr(made, keyword, check(_plain(radiograph, keyword)))
    return made


def _plain(data: pydicom.Dataset, keyword: str) -> str:
    """One value as text; nothing when it is missing, several, or cannot be decoded."""
    try:
        value = data.get(keyword)
        text = "" if value is None or isinstance(value, MultiValue) else str(value).strip(" \0")
    except Exception:  # pydicom converts a raw value when it is first looked at, and damaged ones in many ways
        return ""
    return text if text.isprintable() and "\ufffd" not in text else ""


def _at_most(length: int) -> Callable[[str], str]:
    return lambda text: text if len(text) <= length and "\\" not in text else ""


def _one_of(*known: str) -> Callable[[str], str]:
    return lambda text: text if text in known else ""


def _name(text: str) -> str:
    """Up to three groups of 64 characters, each of up to five parts (PS3.5 6.2)."""
    groups = text.split("=")
    fits = len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    return text if fits and "\\" not in text else ""


def _date(text: str) -> str:
    found = _DATE.fullmatch(text)
    if not found:
        return ""
    year, month, day = (int(found[k]) for k in (1, 3, 4))
    try:
        return datetime.date(year, month, day).strftime("%Y%m%d") if year >= 1000 else ""
    except ValueError:
        return ""


def _time(text: str) -> str:
    return text.replace(":", "") if _TIME.fullmatch(text) else ""


def _age(text: str) -> str:
    return text if re.fullmatch(r"\d{3}[DWMY]", text) else ""


_REQUIRED: Mapping[str, Callable[[str], str]] = {
    "PatientName": _name,
    "PatientID": _at_most(64),
    "PatientBirthDate": _date,
    "PatientSex": _one_of("M", "F", "O"),
    "StudyDate": _date,
    "StudyTime": _time,
    "ReferringPhysicianName": _name,
    "StudyID": _at_most(16),
    "AccessionNumber": _at_most(16),
}
"""Type 2 of the modules Patient and General Study (PS3.3 C.7.1.1, C.7.2.1)."""

_USEFUL: Mapping[str, Callable[[str], str]] = {
    "IssuerOfPatientID": _at_most(64),
    "StudyDescription": _at_most(64),
    "PatientAge": _age,
}
