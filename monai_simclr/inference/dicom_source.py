"""What DICOM results copy from a radiograph: patient, study and references, however sparse or odd its header.

Radiographs in use lack attributes that the standard requires, and hold values that it forbids. A result must be valid
all the same: what is missing or invalid is left empty, which the standard reads as unknown (type 2, PS3.5 7.4.3).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pydicom
from pydicom.multival import MultiValue
from pydicom.uid import generate_uid

from monai_simclr.data.formats.dicom_file import read_header
from monai_simclr.data.formats.dicom_tags import keyword_name
from monai_simclr.runtime.files import open_regular


class HeaderError(ValueError):
    """A header that no result can refer to; `problem` is the message, without any value of the header."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def read_source_header(path: str | Path) -> pydicom.Dataset | None:
    """Read the whole header of a DICOM file; None for a file of another format."""
    with open_regular(path) as file:
        if file.read(132)[128:] != b"DICM":
            return None
    return read_header(path, whole=True)[0]


def source_dataset(radiograph: pydicom.Dataset) -> pydicom.Dataset:
    """The identity of a radiograph, valid for a result that belongs to its study.

    Args:
        radiograph: its header, with the file meta information where there is one.

    Returns:
        A new dataset in UTF-8 with UIDs of class, instance, series and study, and the attributes of patient and study
        that are required (empty where unknown) or useful (only where valid). SOP class and instance come from the file
        meta information where the header lacks them; the UIDs of study and series, from that of the instance.

    Raises:
        HeaderError: if the header identifies neither the image nor its class, so that nothing could refer to it.
    """
    source = pydicom.Dataset()
    source.SpecificCharacterSet = "ISO_IR 192"
    meta = getattr(radiograph, "file_meta", None) or pydicom.Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        uid = _plain(radiograph, keyword) or _plain(meta, f"MediaStorage{keyword}")
        if not uid:
            raise HeaderError(f"{keyword_name(keyword)} is missing, so that nothing could refer to the image")
        setattr(source, keyword, uid)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        derived = generate_uid(entropy_srcs=[source.SOPInstanceUID, keyword])
        setattr(source, keyword, _plain(radiograph, keyword) or derived)
    for keyword, check in {**_REQUIRED, **_USEFUL}.items():
        value = check(_plain(radiograph, keyword))
        if value or keyword in _REQUIRED:
            setattr(source, keyword, value)
    return source


def _plain(data: pydicom.Dataset, keyword: str) -> str:
    """One value as text; empty when it is missing, has several values, or cannot be decoded."""
    try:
        value = data.get(keyword)
        text = "" if value is None or isinstance(value, MultiValue) else str(value).strip(" \0")
    except Exception:  # pydicom converts a raw value when it is first looked at, and damaged ones fail in many ways
        return ""
    return text if text.isprintable() and "\ufffd" not in text else ""


def _matching(pattern: str) -> Callable[[str], str]:
    return lambda text: text if re.fullmatch(pattern, text) else ""


def _name(text: str) -> str:
    """Up to three groups of 64 characters, each of up to five parts (PS3.5 6.2)."""
    groups = text.split("=")
    fits = len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    return text if fits and "\\" not in text else ""


def _date(text: str) -> str:
    match = re.fullmatch(r"(\d{4})(\.?)(\d{2})\2(\d{2})", text)  # with dots as ACR-NEMA wrote them (PS3.5 6.2, DA)
    try:
        date = datetime.date(*(int(match[k]) for k in (1, 3, 4))) if match else datetime.date.min
    except ValueError:
        return ""
    return date.strftime("%Y%m%d") if date.year >= 1000 else ""


def _time(text: str) -> str:
    valid = re.fullmatch(r"([01]\d|2[0-3])(?:(:?)[0-5]\d(?:\2[0-5]\d(?:\.\d{1,6})?)?)?", text)
    return text.replace(":", "") if valid else ""


_REQUIRED: Mapping[str, Callable[[str], str]] = {
    "PatientName": _name,
    "PatientID": _matching(r"[^\\]{,64}"),
    "PatientBirthDate": _date,
    "PatientSex": _matching("[MFO]"),
    "StudyDate": _date,
    "StudyTime": _time,
    "ReferringPhysicianName": _name,
    "StudyID": _matching(r"[^\\]{,16}"),
    "AccessionNumber": _matching(r"[^\\]{,16}"),
}
"""Type 2 of the modules Patient and General Study (PS3.3 C.7.1.1, C.7.2.1)."""

_USEFUL: Mapping[str, Callable[[str], str]] = {
    "IssuerOfPatientID": _matching(r"[^\\]{,64}"),
    "StudyDescription": _matching(r"[^\\]{,64}"),
    "PatientAge": _matching(r"\d{3}[DWMY]"),
}
