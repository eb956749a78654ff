"""What a DICOM file says of itself, and every reason to refuse it that can be known before its pixels are decoded."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import UID, AllTransferSyntaxes, DeflatedExplicitVRLittleEndian

from monai_simclr.data.formats.dicom_tags import code, name_of, numbers, texts, whole
from monai_simclr.data.radiograph import RadiographError, ReaderSettings

__all__ = ["DicomHeader", "PixelLayout", "check_header", "open_dicom"]

_MODALITIES = ("CR", "DX", "RG", "PX")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # PS3.4 B.5; .7.1 to .7.4 have many frames
_DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_DICOMDIR = "1.2.840.10008.1.3.10"
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double float, integer


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


@dataclass(frozen=True)
class PixelLayout:
    """The Image Pixel Module of a radiograph (PS3.3 C.7.6.3), checked: one frame, one sample a pixel."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric_interpretation: str

    @property
    def n_bytes(self) -> int:
        """Bytes of the pixels when they are decoded."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def stored_range(self) -> tuple[int, int]:
        """Smallest and largest value that the stored bits can have."""
        if self.signed:
            return -(2 ** (self.bits_stored - 1)), 2 ** (self.bits_stored - 1) - 1
        return 0, 2**self.bits_stored - 1


def open_dicom(path: Path, file: BinaryIO, max_bytes: int) -> DicomHeader:
    """Read everything before the pixels from an open Part 10 file. A deflated data set is inflated, up to a limit.

    Raises:
        RadiographError: if the header is damaged, the transfer syntax is unknown, or it inflates beyond `max_bytes`.
    """
    syntax, group_length = _file_meta(path)
    try:
        if syntax != DeflatedExplicitVRLittleEndian:
            return DicomHeader(pydicom.dcmread(file, stop_before_pixels=True), syntax, file)
        file.seek(132 + 12 + group_length)  # preamble, "DICM", the group length itself, and what it counts
        stream = _inflated(path, file, max_bytes)
        data = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag in _PIXELS)
        return DicomHeader(data, syntax, stream)
    except RadiographError:
        raise
    except Exception as error:  # a damaged header fails in pydicom in many ways
        raise RadiographError(path, "has a damaged header: its attributes cannot be told apart") from error


def _file_meta(path: Path) -> tuple[UID, int]:
    try:
        meta = read_file_meta_info(path)
        uid, group_length = str(meta.get("TransferSyntaxUID", "")), meta.get("FileMetaInformationGroupLength", 0)
        group_length = int(group_length)
    except Exception as error:  # as above
        raise RadiographError(path, "has a damaged File Meta Information (PS3.10 section 7.1)") from error
    if not uid:
        raise RadiographError(path, f"has no {name_of('TransferSyntaxUID')}, so how it is encoded is unknown")
    syntax = UID(uid)
    if syntax not in AllTransferSyntaxes:
        raise RadiographError(path, f"{name_of('TransferSyntaxUID')} is none of the DICOM standard")
    return syntax, group_length


def _inflated(path: Path, file: BinaryIO, max_bytes: int) -> BinaryIO:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # PS3.5 A.5: a raw deflate stream
    try:
        content = inflater.decompress(file.read(), max_bytes)
    except zlib.error as error:
        raise RadiographError(path, "is deflated and damaged: it cannot be inflated") from error
    if inflater.unconsumed_tail:
        raise RadiographError(path, f"inflates to more than max_bytes={max_bytes}")
    if not inflater.eof:
        raise RadiographError(path, "is truncated: the deflated data set has no end")
    return cast(BinaryIO, BytesIO(content))


def check_header(path: Path, header: DicomHeader, settings: ReaderSettings) -> PixelLayout:
    """Refuse everything but one gray radiograph of a sensible size, by the tag that says so.

    Raises:
        RadiographError: if it is anything else.
    """
    data = header.data
    _check_kind(path, data, settings)
    _check_one_gray_frame(path, data)
    rows, columns = whole(path, data, "Rows"), whole(path, data, "Columns")
    if rows < 1 or columns < 1:
        raise RadiographError(path, f"has no pixels: {name_of('Rows')} is {rows} and {name_of('Columns')} is {columns}")
    if rows * columns > settings.max_pixels:
        raise RadiographError(
            path, f"has {rows} x {columns} pixels by its header, more than max_pixels={settings.max_pixels}"
        )
    return _layout(path, data, rows, columns)


def is_for_processing(data: pydicom.Dataset) -> bool:
    """Say whether an image is raw detector values: DICOM PS3.3 C.8.11.1.1.1, For Processing."""
    intent = code(data, "PresentationIntentType")
    return intent == "FOR PROCESSING" or _sop_class(data) == _DX_FOR_PROCESSING


def _check_kind(path: Path, data: pydicom.Dataset, settings: ReaderSettings) -> None:
    if "DirectoryRecordSequence" in data:
        raise RadiographError(path, "is a DICOMDIR, an index of other files; give it those files")
    modality = code(data, "Modality")
    captured = _sop_class(data).startswith(_SECONDARY_CAPTURE)
    if modality not in (*_MODALITIES, *(("", "OT", "SC") if captured else ())):
        raise RadiographError(
            path,
            f"{name_of('Modality')} is {modality!r}; a radiograph (CR, DX, RG, PX, "
            "or a Secondary Capture of no other modality) is needed",
        )
    if is_for_processing(data) and not settings.render_for_processing:
        raise RadiographError(
            path,
            f"{name_of('PresentationIntentType')} is FOR PROCESSING: raw detector values, not shown to people; "
            "look for the FOR PRESENTATION image, or set render_for_processing",
        )


def _check_one_gray_frame(path: Path, data: pydicom.Dataset) -> None:
    frames, samples = whole(path, data, "NumberOfFrames", 1), whole(path, data, "SamplesPerPixel", 1)
    if frames != 1:
        raise RadiographError(path, f"{name_of('NumberOfFrames')} is {frames}; a radiograph has one")
    if samples != 1:
        raise RadiographError(
            path, f"{name_of('SamplesPerPixel')} is {samples}: a colour picture; a radiograph is gray"
        )
    photometric = code(data, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") and numbers(path, data, "Rows"):
        raise RadiographError(
            path, f"{name_of('PhotometricInterpretation')} is {photometric!r}; MONOCHROME1 or MONOCHROME2 is needed"
        )


def _layout(path: Path, data: pydicom.Dataset, rows: int, columns: int) -> PixelLayout:
    for keyword in ("BitsAllocated", "BitsStored", "PixelRepresentation"):
        if not numbers(path, data, keyword):
            raise RadiographError(path, f"{name_of(keyword)} is missing, so the pixels have no meaning")
    allocated, stored = whole(path, data, "BitsAllocated"), whole(path, data, "BitsStored")
    if allocated not in (8, 16) or not 8 <= stored <= allocated:
        raise RadiographError(
            path,
            f"{name_of('BitsAllocated')} is {allocated} and {name_of('BitsStored')} is {stored}; "
            "8 to 16 bits in 8 or 16 are read",
        )
    high = whole(path, data, "HighBit", stored - 1)
    if high != stored - 1:
        raise RadiographError(
            path,
            f"{name_of('HighBit')} is {high}, not one less than {name_of('BitsStored')}={stored} "
            "(PS3.5 section 8.1.1), so it is unknown which bits are the pixel",
        )
    signed = whole(path, data, "PixelRepresentation")
    if signed not in (0, 1):
        raise RadiographError(path, f"{name_of('PixelRepresentation')} is {signed}; 0 or 1 is needed")
    return PixelLayout(rows, columns, allocated, stored, bool(signed), code(data, "PhotometricInterpretation"))


def _sop_class(data: pydicom.Dataset) -> str:
    return "".join(texts(data, "SOPClassUID")[:1])
