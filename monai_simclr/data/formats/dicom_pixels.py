"""The stored pixels of a DICOM file: read after the header was checked, checked themselves, then decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import data_element_generator
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from monai_simclr.data.formats.codestream import Frame, jpeg2000_frame, jpeg_frame
from monai_simclr.data.formats.dicom_file import DicomHeader
from monai_simclr.data.formats.dicom_header import PixelLayout
from monai_simclr.data.formats.dicom_stream import InflatedStream
from monai_simclr.data.formats.dicom_tags import code, keyword_name
from monai_simclr.data.formats.rle import decode_rle
from monai_simclr.data.radiograph import RadiographError

_JPEG = ("pillow", "pylibjpeg")  # 8 bits
_LOSSLESS = ("gdcm", "pylibjpeg")
_LS = ("pyjpegls", "pylibjpeg", "gdcm")
_2000 = ("pillow", "pylibjpeg")
"""Both are OpenJPEG: 2.5.4 in Pillow 12 and 13; 2.5.2 in pylibjpeg-openjpeg 2.6.0, with CVE-2025-54874, and slower."""
_PLUGINS: dict[UID, tuple[str, ...]] = {
    uid.JPEGBaseline8Bit: _JPEG,
    uid.JPEGExtended12Bit: _JPEG,
    uid.JPEGLossless: _LOSSLESS,
    uid.JPEGLosslessSV1: _LOSSLESS,
    uid.JPEGLSLossless: _LS,
    uid.JPEGLSNearLossless: _LS,
    uid.JPEG2000Lossless: _2000,
    uid.JPEG2000: _2000,
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.HTJ2K: ("pylibjpeg",),
}
"""Of pydicom's decoders, those that we use, the best first: never one after another until one swallows the file."""

_HTJ2K = [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K]
_LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_PROCESSES: dict[UID, tuple[int, ...]] = {
    **dict.fromkeys(_LOSSY, (0xC0, 0xC1, 0xC2)),
    **dict.fromkeys((uid.JPEGLossless, uid.JPEGLosslessSV1), (0xC3,)),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), (0xF7,)),
}
"""Second byte of the marker of a frame, by transfer syntax."""
_RLE_BEST_RATIO = 64  # PS3.5 G.3: two bytes stand for 128 at the most


def decode_pixels(path: Path, header: DicomHeader, layout: PixelLayout) -> np.ndarray:
    """Read and decode the pixels.

    Returns:
        the stored values, uint8, int8, uint16 or int16 ``(rows, columns)``.

    Raises:
        RadiographError: if there are none, they are truncated or damaged, or no decoder for them is installed.
    """
    content, vr = _read_element(path, header, layout.n_bytes)
    plugin, found = "", None
    if header.syntax.is_encapsulated:
        frame = _frame(path, content)
        if header.syntax == uid.RLELossless:
            return _decode_rle(path, frame, layout)
        plugin = _plugin(path, header.syntax)
        found = _check_codestream(path, header.syntax, layout, frame)
        if found.start:  # in a JP2 file, which DICOM does not allow (PS3.5 A.4.4); its boxes are not for a decoder
            content = encapsulate([frame[found.start :]])
    else:
        _check_length(path, len(content), layout.n_bytes)
    try:
        stored, _ = get_decoder(header.syntax).as_array(
            content, index=0, decoding_plugin=plugin, **_options(layout, vr)
        )
    except Exception as error:  # decoders are other people's, and damaged pixels fail in them in many ways
        raise RadiographError(path, f"has damaged pixels: {header.syntax.name} cannot be decoded") from error
    if plugin == "pillow" and found is not None and found.signed and not layout.signed:
        return stored ^ (1 << found.precision - 1)  # Pillow shifts all that is signed; the header's bits are meant
    return stored


def _options(layout: PixelLayout, vr: str) -> dict[str, Any]:
    """The Image Pixel Module as pydicom's decoders take it beside a buffer."""
    return {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": vr,
        "photometric_interpretation": layout.photometric_interpretation,
    }


def _read_element(path: Path, header: DicomHeader, n_bytes: int) -> tuple[bytes, str]:
    stream = header.stream
    if isinstance(stream, InflatedStream):
        stream.expect(n_bytes)
    start = stream.read(6)
    stream.seek(-len(start), 1)
    if len(start) < 6:
        raise RadiographError(path, f"has no pixels ({keyword_name('Modality')} is {code(header.data, 'Modality')!r})")
    # an implicit length is even, so its first byte is never the "O" of OB and OW
    implicit = start[4:5] != b"O" and header.syntax.is_implicit_VR
    try:
        element = next(data_element_generator(stream, implicit, header.syntax.is_little_endian))
    except RadiographError:
        raise
    except Exception as error:  # an element without an end, or with an impossible one
        raise RadiographError(path, "is truncated: its pixel data have no end") from error
    if isinstance(stream, InflatedStream):
        stream.finish()
    if element.tag != 0x7FE00010:
        raise RadiographError(
            path, f"has pixels of fractions ({keyword_name('FloatPixelData')}); whole numbers are read"
        )
    return bytes(element.value or b""), str(element.VR or "OW")


def _frame(path: Path, content: bytes) -> bytes:
    """The frame in its fragments (PS3.5 A.4)."""
    try:
        return get_frame(content, 0, number_of_frames=1)
    except Exception as error:
        raise RadiographError(path, "has damaged pixels: the encapsulated fragments do not fit together") from error


def _decode_rle(path: Path, frame: bytes, layout: PixelLayout) -> np.ndarray:
    _check_length(path, len(frame) * _RLE_BEST_RATIO, layout.n_bytes)
    n_bytes = layout.bits_allocated // 8
    try:
        pixels = decode_rle(frame, layout.rows * layout.columns, n_bytes)
    except ValueError as error:
        raise RadiographError(path, f"has damaged pixels: the RLE frame {error}") from error
    values = pixels.reshape(layout.rows, -1).view(f"<{'i' if layout.signed else 'u'}{n_bytes}")
    unused = layout.bits_allocated - layout.bits_stored  # PS3.5 8.1.1: their content is not defined
    return values << unused >> unused


def _check_codestream(path: Path, syntax: UID, layout: PixelLayout, frame: bytes) -> Frame:
    try:
        found = (jpeg2000_frame if syntax in uid.JPEG2000TransferSyntaxes + _HTJ2K else jpeg_frame)(frame)
    except ValueError as error:
        raise RadiographError(path, f"has damaged pixels: the {syntax.name} codestream {error}") from error
    _check_frame(path, syntax, layout, found)
    return found


def _check_length(path: Path, found: int, needed: int) -> None:
    if found < needed:
        raise RadiographError(
            path, f"is truncated: its pixel data can hold {found} bytes, the header speaks of {needed}"
        )


def _plugin(path: Path, syntax: UID) -> str:
    """The first of our decoders that is installed."""
    if syntax not in _PLUGINS:
        raise RadiographError(
            path,
            f"{keyword_name('TransferSyntaxUID')} is {syntax.name} ({syntax}), which is not read; decompress it first",
        )
    available = get_decoder(syntax).available_plugins
    for name in _PLUGINS[syntax]:
        if name in available:
            return name
    raise RadiographError(
        path,
        f"{keyword_name('TransferSyntaxUID')} is {syntax.name} ({syntax}), whose decoder is not installed; "
        'pip install "monai-simclr[dicom]"',
    )


def _check_frame(path: Path, syntax: UID, layout: PixelLayout, found: Frame) -> None:
    """Hold the codestream against the header: decoders allocate what the one says and copy what the other says."""
    said = (found.rows, found.columns, found.samples)
    if said != (layout.rows, layout.columns, 1):
        raise RadiographError(
            path,
            f"has damaged pixels: the codestream is {found.rows} x {found.columns} with {found.samples} samples a "
            f"pixel, the header speaks of {layout.rows} x {layout.columns} with 1",
        )
    process = _PROCESSES.get(syntax)
    if process is not None and found.process not in process:
        raise RadiographError(path, f"has damaged pixels: the codestream is not {syntax.name}")
    if syntax in _LOSSY and found.precision != 8:
        raise RadiographError(
            path,
            f"{keyword_name('TransferSyntaxUID')} is {syntax.name} ({syntax}) with {found.precision} bits, which no "
            "free decoder reads; decompress it first, for instance with dcmtk's dcmdjpeg",
        )
    if not 2 <= found.precision <= layout.bits_allocated:
        raise RadiographError(
            path,
            f"has damaged pixels: the codestream has {found.precision} bits, {keyword_name('BitsAllocated')} is "
            f"{layout.bits_allocated}",
        )
