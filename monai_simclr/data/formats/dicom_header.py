"""Open a DICOM file safely: from a regular file, within limits whatever it promises, failing in one kind of error.

This is the only place that parses a header: for the reader, the index, the audit, inference and its DICOM results.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_dataset, read_sequence
from pydicom.uid import UID, AllTransferSyntaxes, DeflatedExplicitVRLittleEndian

from monai_simclr.data.formats.dicom_tags import get_text, keyword_name
from monai_simclr.data.formats.inflate import InflatedStream
from monai_simclr.data.radiograph import DEFAULT_SETTINGS, RadiographError
from monai_simclr.runtime.files import open_regular

_MAX_READS = 50_000  # a radiograph's header takes one to three thousand; this is half a second
_MAX_BYTES = 32 * 2**20
_MAX_VALUE = 4 * 2**20  # sixteen tables of 65,536 entries take two
_MAX_DEPTH = 16  # of sequences within sequences
_MAX_INFLATED = 64 * 2**20  # before the pixels
_LONG = 2**20  # bytes of a value that a whole header omits: overlays, vendors' private pictures
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double float, integer
_USED = """
SOPClassUID SOPInstanceUID StudyInstanceUID Modality PresentationIntentType DirectoryRecordSequence
PatientID IssuerOfPatientID PatientSex PatientAge Manufacturer ManufacturerModelName BurnedInAnnotation
ViewPosition ViewCodeSequence PatientOrientation BodyPartExamined AnatomicRegionSequence ProtocolName StudyDescription
SeriesDescription AcquisitionDeviceProcessingDescription PerformedProcedureStepDescription
Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit
PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit PresentationLUTShape PixelIntensityRelationship
PixelIntensityRelationshipSign RescaleSlope RescaleIntercept ModalityLUTSequence VOILUTSequence VOILUTFunction
WindowCenter WindowWidth WindowCenterWidthExplanation PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing
"""
_USED_TAGS = [tag for tag in map(tag_for_keyword, _USED.split()) if tag is not None]
"""All attributes that this package uses; no others are read, since vendors' private data can be large."""


class NotDicomError(RadiographError):
    """A file that is not DICOM Part 10, whatever else it may be."""


@dataclass(frozen=True)
class DicomHeader:
    """A data set up to its pixels."""

    data: pydicom.Dataset  # the attributes before the pixels
    syntax: UID
    stream: BinaryIO  # positioned at the pixel data element


_recording: ContextVar[list[pydicom.Dataset] | None] = ContextVar("recording", default=None)


@contextmanager
def record_headers() -> Iterator[list[pydicom.Dataset]]:
    """Collect every header that is opened inside the block, so that a caller of the reader need not parse it again.

    The list stays empty when a file is not DICOM, or is refused before its header is known.

    Example:
        >>> from monai_simclr.data import read_radiograph
        >>> from monai_simclr.data.phantoms import write_dicom_phantoms
        >>> with record_headers() as headers:
        ...     image, _ = read_radiograph(write_dicom_phantoms("recorded", n_patients=1) / "PHANTOM-00000001/000.dcm")
        >>> [str(data.PatientID) for data in headers]
        ['PHANTOM-00000001']
    """
    headers: list[pydicom.Dataset] = []
    token = _recording.set(headers)
    try:
        yield headers
    finally:
        _recording.reset(token)


def read_header(path: str | Path, whole: bool = False) -> tuple[pydicom.Dataset, UID]:
    """Read the header of a DICOM Part 10 file and nothing else: at most 32 MiB of it, whatever the file promises.

    pydicom warns about odd values when they are accessed: do that, and call this, inside `quiet_libraries`.

    Args:
        path: of the file.
        whole: all attributes except values over 1 MiB; otherwise only those that this package uses.

    Returns:
        The attributes before the pixels, and the transfer syntax. SOP class and instance come from the File Meta
        Information where the data set lacks them.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it is not a regular file, or cannot be read.
        NotDicomError: if it is not DICOM.
        RadiographError: if its header is damaged, or takes more than a radiograph's can.
    """
    with open_regular(path) as file:
        try:
            header = open_dicom(file, DEFAULT_SETTINGS.max_bytes, whole)
        except RadiographError as error:
            error.path = str(path)
            raise
    return header.data, header.syntax


def open_dicom(file: BinaryIO, max_bytes: int, whole: bool = False) -> DicomHeader:
    """Parse everything before the pixels of an open Part 10 file, as `read_header` does.

    A deflated data set is inflated as far as needed, and to at most `max_bytes`.
    """
    file.seek(0)
    if file.read(132)[128:] != b"DICM":
        raise NotDicomError("is not DICOM (PS3.10 section 7.1)")
    budget, problem = _Budget(), "has a damaged File Meta Information (PS3.10 section 7.1)"
    try:
        syntax, meta = _read_file_meta(_MeteredStream(file, budget))
        problem = "has a damaged header: its attributes cannot be parsed"
        stream: BinaryIO | InflatedStream = file
        if syntax == DeflatedExplicitVRLittleEndian:
            stream = InflatedStream(file, max_bytes)
            stream.expect(_MAX_INFLATED, "bytes before its pixels")
        data = _read_data_set(_MeteredStream(stream, budget), syntax, whole)
        _parse_sequences(data, budget)
    except (RadiographError, MemoryError):
        raise
    except Exception as error:  # a damaged header fails in pydicom in many ways
        raise RadiographError(problem) from error
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        stored = get_text(meta, f"MediaStorage{keyword}")
        if stored and not get_text(data, keyword):
            data[keyword] = DataElement(tag_for_keyword(keyword) or 0, "UI", stored)
    recording = _recording.get()
    if recording is not None:
        recording.append(data)
    return DicomHeader(data, syntax, cast(BinaryIO, stream))


def _read_file_meta(stream: _MeteredStream) -> tuple[UID, pydicom.Dataset]:
    """The File Meta Information; the stream is then where the data set begins."""
    start = stream.tell()
    meta = read_dataset(cast(BinaryIO, stream), False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    uid, group_length = str(meta.get("TransferSyntaxUID", "")), int(meta.get("FileMetaInformationGroupLength", 0))
    if not uid:
        raise RadiographError(f"has no {keyword_name('TransferSyntaxUID')}, so its encoding is unknown")
    syntax = UID(uid)
    if syntax not in AllTransferSyntaxes:
        raise RadiographError(f"{keyword_name('TransferSyntaxUID')} is not one of the DICOM standard")
    if syntax == DeflatedExplicitVRLittleEndian and group_length > 0:  # deflated bytes can look like another element
        stream.seek(start + 12 + group_length)  # the group length itself, and what it counts
    return syntax, meta


def _read_data_set(stream: _MeteredStream, syntax: UID, whole: bool) -> pydicom.Dataset:
    data = read_dataset(
        cast(BinaryIO, stream),
        syntax.is_implicit_VR and syntax != DeflatedExplicitVRLittleEndian,
        syntax.is_little_endian,
        stop_when=lambda tag, vr, length: tag in _PIXELS,
        defer_size=_LONG if whole else None,
        specific_tags=None if whole else _USED_TAGS,
    )
    for element in list(data.values()):
        if isinstance(element, RawDataElement) and element.value is None and element.length > _LONG:  # deferred
            data.pop(element.tag)  # `del` would read it first
    return data


def _parse_sequences(data: pydicom.Dataset, budget: _Budget, depth: int = 0) -> None:
    """Parse the sequences, which pydicom defers until they are accessed, within what is left of the budget."""
    if depth > _MAX_DEPTH:
        raise RadiographError(f"has a damaged header: nested sequences, over {_MAX_DEPTH} deep")
    for element in list(data.values()):
        if isinstance(element, RawDataElement):
            vr = element.VR
            if vr in (None, "UN") and dictionary_has_tag(element.tag):
                vr = dictionary_VR(element.tag)
            if vr != "SQ":
                continue
            content = element.value or b""
            stream = cast(BinaryIO, _MeteredStream(io.BytesIO(content), budget))
            order = element.is_implicit_VR, element.is_little_endian
            items = read_sequence(stream, *order, len(content), data._character_set)
            element = data[element.tag] = DataElement(element.tag, "SQ", items)
        if element.VR == "SQ":
            for item in element.value:
                _parse_sequences(item, budget, depth + 1)


class _Budget:
    """What the parsing of one header may take: reads, which stand for attributes, items and time; and bytes.

    Reads are counted and not seconds, so that a file is read or refused alike on a fast machine and on a busy one.
    """

    def __init__(self) -> None:
        self.reads, self.bytes = _MAX_READS, _MAX_BYTES

    def spend(self, n_bytes: int) -> None:
        if not 0 <= n_bytes <= _MAX_VALUE:
            raise RadiographError(f"has a damaged header: an attribute before the pixels claims {n_bytes} bytes")
        self.reads, self.bytes = self.reads - 1, self.bytes - n_bytes
        if self.reads < 0 or self.bytes < 0:
            limit = f"{_MAX_READS} reads" if self.reads < 0 else f"{_MAX_BYTES} bytes"
            raise RadiographError(f"has a header that takes more than {limit}; no radiograph's does")


class _MeteredStream:
    """A stream that takes every read from a budget: what pydicom needs of a file, that is, read, seek and tell."""

    def __init__(self, stream: BinaryIO | InflatedStream, budget: _Budget) -> None:
        self.stream, self.budget = stream, budget
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        self.budget.spend(size)
        return self.stream.read(size)
