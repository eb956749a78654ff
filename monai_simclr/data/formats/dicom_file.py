"""The one way to a DICOM header: from a regular file, within limits, failing in one kind of error."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_dataset, read_sequence
from pydicom.uid import UID, AllTransferSyntaxes, DeflatedExplicitVRLittleEndian

from monai_simclr.data.formats.dicom_exam import EXAM_TAGS
from monai_simclr.data.formats.dicom_stream import Budget, InflatedStream, MeteredStream
from monai_simclr.data.formats.dicom_tags import keyword_name, text
from monai_simclr.data.radiograph import DEFAULT_SETTINGS, RadiographError
from monai_simclr.runtime.files import open_regular

_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double float, integer
_DEEPEST = 16  # sequences within sequences
_LONG = 2**20  # bytes of a value that a whole header leaves out: overlays, vendors' private pictures
_KNOWN = (
    *EXAM_TAGS,
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "Modality",
    "PresentationIntentType",
    "DirectoryRecordSequence",
    "PatientID",
    "IssuerOfPatientID",
    "PatientSex",
    "PatientAge",
    "Manufacturer",
    "ManufacturerModelName",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PresentationLUTShape",
    "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "BurnedInAnnotation",
)
"""All that anything here asks of a radiograph, so that nothing else is read: vendors' private data can be large."""


@dataclass(frozen=True)
class DicomHeader:
    """A data set up to its pixels, which are the next that `stream` gives.

    Attributes:
        data: the attributes before the pixels.
        syntax: the transfer syntax; of a deflated file, that of what was inflated.
        stream: positioned at the pixel data element.
    """

    data: pydicom.Dataset
    syntax: UID
    stream: BinaryIO


def read_header(path: str | Path, whole: bool = False) -> tuple[pydicom.Dataset, UID]:
    """Read the header of a DICOM Part 10 file and nothing else: at most 32 MiB of it, whatever the file promises.

    pydicom warns of odd values when they are looked at: call it, and look, inside `quiet_libraries`.

    Args:
        path: of the file.
        whole: all attributes, but for values over 1 MiB; else those that are asked of a radiograph somewhere here.

    Returns:
        the attributes before the pixels, and the transfer syntax. A class and an instance that the data set lacks are
        those of the File Meta Information.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it is not a regular file, or cannot be read.
        RadiographError: if it is not DICOM, its header is damaged, or takes more than a radiograph's can.
    """
    with open_regular(path) as file:
        header = open_dicom(Path(path), file, DEFAULT_SETTINGS.max_bytes, whole)
    return header.data, header.syntax


def open_dicom(path: Path, file: BinaryIO, max_bytes: int, whole: bool = False) -> DicomHeader:
    """Read everything before the pixels from an open Part 10 file. A deflated data set is inflated as far as needed.

    Args:
        path: of the file, for the errors.
        file: the file.
        max_bytes: that a deflated data set may inflate to.
        whole: see `read_header`.

    Raises:
        RadiographError: if it is not DICOM, the header is damaged or takes too much, the transfer syntax is unknown, or
            it inflates beyond `max_bytes`.
    """
    budget = Budget(path)
    file.seek(0)
    if file.read(132)[128:] != b"DICM":
        raise RadiographError(path, "is not DICOM (PS3.10 section 7.1)")
    syntax, meta = _file_meta(path, MeteredStream(file, budget))
    stream = file if syntax != DeflatedExplicitVRLittleEndian else InflatedStream(path, file, max_bytes)
    try:
        data = _data_set(MeteredStream(stream, budget), syntax, whole)
        _settle(data, budget)
    except (RadiographError, MemoryError):
        raise
    except Exception as error:  # a damaged header fails in pydicom in many ways
        raise RadiographError(path, "has a damaged header: its attributes cannot be told apart") from error
    _complete(data, meta)
    return DicomHeader(data, syntax, cast(BinaryIO, stream))


def _file_meta(path: Path, stream: MeteredStream) -> tuple[UID, pydicom.Dataset]:
    """The File Meta Information; the stream is then where the data set begins."""
    start = stream.tell()
    try:
        meta = read_dataset(cast(BinaryIO, stream), False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        uid, group_length = str(meta.get("TransferSyntaxUID", "")), int(meta.get("FileMetaInformationGroupLength", 0))
    except (RadiographError, MemoryError):
        raise
    except Exception as error:  # as above
        raise RadiographError(path, "has a damaged File Meta Information (PS3.10 section 7.1)") from error
    if not uid:
        raise RadiographError(path, f"has no {keyword_name('TransferSyntaxUID')}, so how it is encoded is unknown")
    syntax = UID(uid)
    if syntax not in AllTransferSyntaxes:
        raise RadiographError(path, f"{keyword_name('TransferSyntaxUID')} is none of the DICOM standard")
    if syntax == DeflatedExplicitVRLittleEndian and group_length > 0:  # what is deflated can look like one more of them
        stream.seek(start + 12 + group_length)  # the group length itself, and what it counts
    return syntax, meta


def _data_set(stream: MeteredStream, syntax: UID, whole: bool) -> pydicom.Dataset:
    wanted = None if whole else [tag for tag in map(tag_for_keyword, _KNOWN) if tag is not None]
    deflated = syntax == DeflatedExplicitVRLittleEndian
    data = read_dataset(
        cast(BinaryIO, stream),
        syntax.is_implicit_VR and not deflated,
        syntax.is_little_endian,
        stop_when=lambda tag, vr, length: tag in _PIXELS,
        defer_size=_LONG if whole else None,
        specific_tags=wanted,
    )
    for element in [element for element in data.values() if _is_left_out(element)]:
        data.pop(element.tag)  # `del` would read it first
    return data


def _is_left_out(element: object) -> bool:
    return isinstance(element, RawDataElement) and element.value is None and element.length > _LONG


def _settle(data: pydicom.Dataset, budget: Budget, depth: int = 0) -> None:
    """Parse the sequences, which pydicom leaves until they are looked at, from what is left of the budget."""
    if depth > _DEEPEST:
        raise RadiographError(budget.path, f"has a damaged header: sequences in one another, over {_DEEPEST} deep")
    for element in list(data.values()):
        if isinstance(element, RawDataElement):
            if not _is_sequence(element):
                continue
            element = data[element.tag] = DataElement(element.tag, "SQ", _items(element, data, budget))
        if element.VR == "SQ":
            for item in element.value:
                _settle(item, budget, depth + 1)


def _is_sequence(element: RawDataElement) -> bool:
    if element.VR in (None, "UN"):
        return dictionary_has_tag(element.tag) and dictionary_VR(element.tag) == "SQ"
    return element.VR == "SQ"


def _items(element: RawDataElement, data: pydicom.Dataset, budget: Budget) -> pydicom.Sequence:
    content = element.value or b""
    stream = cast(BinaryIO, MeteredStream(io.BytesIO(content), budget))
    encoding = data._character_set
    return read_sequence(stream, element.is_implicit_VR, element.is_little_endian, len(content), encoding)


def _complete(data: pydicom.Dataset, meta: pydicom.Dataset) -> None:
    """Class and instance of the data set, where it has none that can be read, from the file's own meta information."""
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        stored = text(meta, f"MediaStorage{keyword}")
        if stored and not text(data, keyword):
            data[keyword] = DataElement(tag_for_keyword(keyword) or 0, "UI", stored)
