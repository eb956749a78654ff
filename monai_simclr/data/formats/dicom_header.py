"""What a DICOM file says of itself, and every reason to refuse it that can be known before its pixels are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydicom

from monai_simclr.data.formats.dicom_file import DicomHeader
from monai_simclr.data.formats.dicom_tags import code, keyword_name, numbers, texts, whole
from monai_simclr.data.radiograph import RadiographError, ReaderSettings, check_pixels, check_shape

_MODALITIES = ("CR", "DX", "RG", "PX")
_UNTOLD = ("", "OT", "SC")
"""What stands in Modality where it is taken away or unknown: then the class says what the file is."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # PS3.4 B.5; .7.1 to .7.4 have many frames
_CR = "1.2.840.10008.5.1.4.1.1.1"
_DX = "1.2.840.10008.5.1.4.1.1.1.1"
_DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"


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
        raise RadiographError(
            path, f"has no pixels: {keyword_name('Rows')} is {rows} and {keyword_name('Columns')} is {columns}"
        )
    check_pixels(path, rows, columns, settings)
    layout = _layout(path, data, rows, columns)
    check_shape(path, rows, columns, settings)
    return layout


def is_radiograph(data: pydicom.Dataset) -> bool:
    """Say whether a header is a radiograph's, by Modality, or by SOP Class where there is no telling Modality.

    VinDr-CXR's files have none, and their class in the File Meta Information only.
    """
    modality, sop_class = code(data, "Modality"), _sop_class(data)
    by_class = sop_class in (_CR, _DX, _DX_FOR_PROCESSING) or sop_class.startswith(_SECONDARY_CAPTURE)
    return modality in _MODALITIES or (modality in _UNTOLD and by_class)


def is_for_processing(data: pydicom.Dataset) -> bool:
    """Say whether an image is raw detector values: DICOM PS3.3 C.8.11.1.1.1, For Processing."""
    intent = code(data, "PresentationIntentType")
    return intent == "FOR PROCESSING" or _sop_class(data) == _DX_FOR_PROCESSING


def _check_kind(path: Path, data: pydicom.Dataset, settings: ReaderSettings) -> None:
    if "DirectoryRecordSequence" in data:
        raise RadiographError(path, "is a DICOMDIR, an index of other files; give it those files")
    if not is_radiograph(data):
        raise RadiographError(
            path,
            f"{keyword_name('Modality')} is {code(data, 'Modality')!r}; a radiograph (CR, DX, RG, PX, "
            "or a Secondary Capture of no other modality) is needed",
        )
    if is_for_processing(data) and not settings.render_for_processing:
        raise RadiographError(
            path,
            f"{keyword_name('PresentationIntentType')} is FOR PROCESSING: raw detector values, not shown to people; "
            "look for the FOR PRESENTATION image, or set render_for_processing",
        )


def _check_one_gray_frame(path: Path, data: pydicom.Dataset) -> None:
    frames, samples = whole(path, data, "NumberOfFrames", 1), whole(path, data, "SamplesPerPixel", 1)
    if frames not in (0, 1):  # some writers count the further ones
        raise RadiographError(path, f"{keyword_name('NumberOfFrames')} is {frames}; a radiograph has one")
    if samples != 1:
        raise RadiographError(
            path, f"{keyword_name('SamplesPerPixel')} is {samples}: a colour picture; a radiograph is gray"
        )
    photometric = code(data, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") and numbers(path, data, "Rows"):
        raise RadiographError(
            path,
            f"{keyword_name('PhotometricInterpretation')} is {photometric!r}; MONOCHROME1 or MONOCHROME2 is needed",
        )


def _layout(path: Path, data: pydicom.Dataset, rows: int, columns: int) -> PixelLayout:
    for keyword in ("BitsAllocated", "BitsStored", "PixelRepresentation"):
        if not numbers(path, data, keyword):
            raise RadiographError(path, f"{keyword_name(keyword)} is missing, so the pixels have no meaning")
    allocated, stored = whole(path, data, "BitsAllocated"), whole(path, data, "BitsStored")
    if allocated not in (8, 16) or not 8 <= stored <= allocated:
        raise RadiographError(
            path,
            f"{keyword_name('BitsAllocated')} is {allocated} and {keyword_name('BitsStored')} is {stored}; "
            "8 to 16 bits in 8 or 16 are read",
        )
    high = whole(path, data, "HighBit", stored - 1)
    if high != stored - 1:
        raise RadiographError(
            path,
            f"{keyword_name('HighBit')} is {high}, not one less than {keyword_name('BitsStored')}={stored} "
            "(PS3.5 section 8.1.1), so it is unknown which bits are the pixel",
        )
    signed = whole(path, data, "PixelRepresentation")
    if signed not in (0, 1):
        raise RadiographError(path, f"{keyword_name('PixelRepresentation')} is {signed}; 0 or 1 is needed")
    return PixelLayout(rows, columns, allocated, stored, bool(signed), code(data, "PhotometricInterpretation"))


def _sop_class(data: pydicom.Dataset) -> str:
    return "".join(texts(data, "SOPClassUID")[:1])
