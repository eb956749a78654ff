"""Decode the pixels of a DICOM file, checked against its header first: decoders allocate what a codestream states.

One decoder is chosen for a transfer syntax; they are not tried one after another until one accepts a damaged file.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import data_element_generator
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from monai_simclr.data.formats.dicom_header import DicomHeader
from monai_simclr.data.formats.dicom_tags import get_code, keyword_name
from monai_simclr.data.formats.halved import count_halvings, decode_jpeg2000, draft_jpeg, jpeg2000_resolutions
from monai_simclr.data.formats.inflate import InflatedStream
from monai_simclr.data.radiograph import RadiographError

# Pillow and pylibjpeg both use OpenJPEG: 2.5.4 in Pillow 12 and 13; 2.5.2, slower and with CVE-2025-54874, in
# pylibjpeg-openjpeg 2.6.0
DECODERS: dict[UID, tuple[str, ...]] = {
    **dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit), ("pillow", "pylibjpeg")),
    **dict.fromkeys((uid.JPEGLossless, uid.JPEGLosslessSV1), ("gdcm", "pylibjpeg")),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), ("pyjpegls", "pylibjpeg", "gdcm")),
    **dict.fromkeys((uid.JPEG2000Lossless, uid.JPEG2000), ("pillow", "pylibjpeg")),
    **dict.fromkeys((uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K), ("pylibjpeg",)),
}
"""Of pydicom's decoders, those that we use, the best first."""

_LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_PROCESSES: dict[UID, tuple[int, ...]] = {
    **dict.fromkeys(_LOSSY, (0xC0, 0xC1, 0xC2)),
    **dict.fromkeys((uid.JPEGLossless, uid.JPEGLosslessSV1), (0xC3,)),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), (0xF7,)),
}
"""`Frame.process` by transfer syntax; all others are JPEG 2000."""
_AFTER_PIXELS = 2**20  # bytes that may follow: padding, signatures
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_RLE_HEADER, _RLE_BEST_RATIO = 64, 64  # bytes; and PS3.5 G.3: two bytes stand for at most 128


@dataclass(frozen=True)
class PixelLayout:
    """The Image Pixel Module of a radiograph (PS3.3 C.7.6.3), checked: one frame, one sample per pixel."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric_interpretation: str

    @property
    def n_bytes(self) -> int:
        """Bytes of the decoded pixels."""
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True)
class Frame:
    """The size of an image as a codestream states it."""

    process: int  # second byte of the marker that states it: 0xC0 to 0xCF JPEG, 0xF7 JPEG-LS, 0x51 JPEG 2000
    rows: int
    columns: int
    precision: int  # bits of a sample
    samples: int  # components
    start: int = 0  # offset of the codestream in the bytes
    signed: bool = False  # whether samples can be negative


def decode_pixels(header: DicomHeader, layout: PixelLayout, side: int | None = None) -> np.ndarray:
    """Read and decode the stored values, uint8, int8, uint16 or int16 ``(rows, columns)``.

    Args:
        header: of the file.
        layout: of its pixels.
        side: pixels that the shorter side must keep, where JPEG 2000 and JPEG may be decoded at a lower resolution (see
            `halved.in_place`); None for all.

    Raises:
        RadiographError: if there are none, they are truncated or damaged, or no decoder for them is installed.
    """
    syntax, plugin = header.syntax, ""
    content, vr = _read_element(header, layout.n_bytes)
    if syntax.is_encapsulated:
        try:
            frame = get_frame(content, 0, number_of_frames=1)  # in its fragments (PS3.5 A.4)
        except Exception as error:
            raise RadiographError("has damaged pixels: the encapsulated fragments do not fit together") from error
        if syntax == uid.RLELossless:
            return _decode_rle(frame, layout)
        plugin = choose_decoder(syntax)
        codestream = _check_codestream(syntax, layout, frame)
        if plugin == "pillow":
            try:
                stored = _decode_by_pillow(frame[codestream.start :], codestream, layout, side)
            except Exception as error:  # as below
                raise RadiographError(f"has damaged pixels: {syntax.name} cannot be decoded") from error
            if stored is not None:
                return stored
        if codestream.start:  # in a JP2 file, which DICOM does not allow (PS3.5 A.4.4); its boxes are not for a decoder
            content = encapsulate([frame[codestream.start :]])
    else:
        _check_length(len(content), layout.n_bytes)
    options: dict[str, Any] = {
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
    try:
        stored, _ = get_decoder(syntax).as_array(content, index=0, decoding_plugin=plugin, **options)
    except Exception as error:  # decoders are third-party, and damaged pixels fail in them in many ways
        raise RadiographError(f"has damaged pixels: {syntax.name} cannot be decoded") from error
    return stored


def _decode_by_pillow(content: bytes, frame: Frame, layout: PixelLayout, side: int | None) -> np.ndarray | None:
    """JPEG 2000, and JPEG where it may be smaller; None for what is left to pydicom."""
    halvings = count_halvings(layout.rows, layout.columns, side)
    if frame.process in _PROCESSES[uid.JPEGBaseline8Bit]:
        if not halvings or (layout.bits_allocated, layout.bits_stored, layout.signed) != (8, 8, False):
            return None
        picture = Image.open(BytesIO(content), formats=("JPEG",))
        draft_jpeg(picture, halvings)
        return np.asarray(picture)
    bits = decode_jpeg2000(content, min(halvings, jpeg2000_resolutions(content)) if halvings else 0)
    if frame.signed:  # Pillow shifts all that is signed; the header's bits are meant, whatever the codestream states
        bits = bits ^ (1 << 8 * bits.itemsize - 1)
    return bits.view(f"{'i' if layout.signed else 'u'}{bits.itemsize}") >> (8 * bits.itemsize - frame.precision)


def choose_decoder(syntax: UID) -> str:
    """Return the first of `DECODERS` that is installed; `RadiographError` if none is."""
    known = f"{keyword_name('TransferSyntaxUID')} is {syntax.name} ({syntax})"
    if syntax not in DECODERS:
        raise RadiographError(f"{known}, which is not read; decompress it first")
    available = get_decoder(syntax).available_plugins
    plugin = next((name for name in DECODERS[syntax] if name in available), "")
    if not plugin:
        raise RadiographError(f'{known}, whose decoder is not installed; pip install "monai-simclr[dicom]"')
    return plugin


def _read_element(header: DicomHeader, n_bytes: int) -> tuple[bytes, str]:
    """Content and VR of the pixel data element."""
    stream = header.stream
    if isinstance(stream, InflatedStream):
        stream.expect(n_bytes + _AFTER_PIXELS, "bytes, more than its header states")
    start = stream.read(6)
    stream.seek(-len(start), 1)
    if len(start) < 6:
        raise RadiographError(f"has no pixels ({keyword_name('Modality')} is {get_code(header.data, 'Modality')!r})")
    # an implicit length is even, so its first byte is never the "O" of OB and OW
    implicit = start[4:5] != b"O" and header.syntax.is_implicit_VR
    try:
        element = next(data_element_generator(stream, implicit, header.syntax.is_little_endian))
    except RadiographError:
        raise
    except Exception as error:  # an element without an end, or with an impossible one
        raise RadiographError("is truncated: its pixel data have no end") from error
    if isinstance(stream, InflatedStream):
        stream.finish()
    if element.tag != 0x7FE00010:
        raise RadiographError(f"has pixels of fractions ({keyword_name('FloatPixelData')}); whole numbers are read")
    return bytes(element.value or b""), str(element.VR or "OW")


def _check_length(n_bytes: int, needed: int) -> None:
    if n_bytes < needed:
        raise RadiographError(f"is truncated: its pixel data can hold {n_bytes} bytes, the header states {needed}")


def _check_codestream(syntax: UID, layout: PixelLayout, content: bytes) -> Frame:
    """Compare a codestream to the header: decoders allocate what the one states and copy what the other states."""
    is_jpeg = syntax in _PROCESSES
    try:
        frame = parse_jpeg(content) if is_jpeg else parse_jpeg2000(content)
    except ValueError as error:
        raise RadiographError(f"has damaged pixels: the {syntax.name} codestream {error}") from error
    if (frame.rows, frame.columns, frame.samples) != (layout.rows, layout.columns, 1):
        raise RadiographError(
            f"has damaged pixels: the codestream is {frame.rows} x {frame.columns} with {frame.samples} samples per "
            f"pixel, the header states {layout.rows} x {layout.columns} with 1"
        )
    if is_jpeg and frame.process not in _PROCESSES[syntax]:
        raise RadiographError(f"has damaged pixels: the codestream is not {syntax.name}")
    if syntax in _LOSSY and frame.precision != 8:
        raise RadiographError(
            f"{keyword_name('TransferSyntaxUID')} is {syntax.name} ({syntax}) with {frame.precision} bits, which no "
            "free decoder reads; decompress it first, for instance with dcmtk's dcmdjpeg"
        )
    if not 2 <= frame.precision <= layout.bits_allocated:
        raise RadiographError(
            f"has damaged pixels: the codestream has {frame.precision} bits, {keyword_name('BitsAllocated')} is "
            f"{layout.bits_allocated}"
        )
    return frame


def parse_jpeg(content: bytes) -> Frame:
    """Read the frame header of a JPEG (ISO 10918-1, B.2.2) or JPEG-LS (ISO 14495-1, C.2.2) codestream.

    Raises:
        ValueError: if there is none, or no end-of-image marker.

    Example:
        >>> parse_jpeg(bytes.fromhex("ffd8 ffc0 000b 08 0002 0003 01 011100 ffd9"))
        Frame(process=192, rows=2, columns=3, precision=8, samples=1, start=0, signed=False)
    """
    if not content.startswith(b"\xff\xd8"):
        raise ValueError("has no start-of-image marker FFD8")
    _check_end(content)
    at = 2
    while at + 10 <= len(content):
        if content[at] != 0xFF:
            raise ValueError(f"has no marker at byte {at}, where one must be")
        kind, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if kind == 0xFF:  # a fill byte
            at += 1
            continue
        if kind in (0xF7, *range(0xC0, 0xD0)) and kind not in (0xC4, 0xC8, 0xCC):  # DHT, JPG, DAC are not frames
            head = content[at + 4 : at + 10]
            return Frame(kind, int.from_bytes(head[1:3], "big"), int.from_bytes(head[3:5], "big"), head[0], head[5])
        if kind in (0xDA, 0xD9) or length < 2:
            break
        at += 2 + length
    raise ValueError("has no frame header")


def parse_jpeg2000(content: bytes) -> Frame:
    """Read the SIZ marker of a JPEG 2000 codestream (ISO 15444-1, A.5.1), in a JP2 file or alone.

    Raises:
        ValueError: if there is none, its tiles are impossible, or there is no end-of-codestream marker.
    """
    start = 0
    if content.startswith(_JP2_SIGNATURE):  # boxes of length, kind, content
        while content[start + 4 : start + 8] != b"jp2c":
            length = int.from_bytes(content[start : start + 4], "big")
            if length < 8:  # 0 means "to the end" and is for the last box only; a reader that adds it never ends
                raise ValueError("has no codestream box jp2c")
            start += length
        start += 8
    if content[start : start + 4] != b"\xff\x4f\xff\x51" or len(content) < start + 43:
        raise ValueError("has no start of codestream FF4F FF51")
    _check_end(content)
    x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0 = np.frombuffer(content, ">u4", 8, start + 8).tolist()
    if not (x0 < x1 and y0 < y1 and tile_x and tile_y and tile_x0 <= x0 and tile_y0 <= y0):
        raise ValueError("has an impossible image or tile size")
    tiles = -(-(x1 - tile_x0) // tile_x) * -(-(y1 - tile_y0) // tile_y)
    if tiles > 65535:
        raise ValueError(f"has {tiles} tiles; 65535 are possible")
    samples, sign_and_bits = int.from_bytes(content[start + 40 : start + 42], "big"), content[start + 42]
    return Frame(0x51, y1 - y0, x1 - x0, (sign_and_bits & 0x7F) + 1, samples, start, sign_and_bits > 0x7F)


def _check_end(content: bytes) -> None:
    # PS3.5 A.4: padded to an even length; with 00 by most, with FF by some
    if not content.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):
        raise ValueError("is truncated: it has no end marker FFD9")


def _decode_rle(content: bytes, layout: PixelLayout) -> np.ndarray:
    """Run lengths (PS3.5 Annex G): a header of offsets, then a segment for each byte of a pixel, the highest first.

    pydicom's own decoder expands whatever it is given, up to 64 times, before it looks at the size.
    """
    _check_length(len(content) * _RLE_BEST_RATIO, layout.n_bytes)
    n_bytes, n_pixels = layout.bits_allocated // 8, layout.rows * layout.columns
    if len(content) < _RLE_HEADER:
        raise RadiographError(f"has damaged pixels: the RLE frame has {len(content)} bytes, less than its header")
    n_segments, *offsets = np.frombuffer(content[:_RLE_HEADER], dtype="<u4").tolist()
    if n_segments != n_bytes:
        raise RadiographError(f"has damaged pixels: the RLE frame has {n_segments} segments, {n_bytes} are needed")
    ends = [*offsets[:n_bytes], len(content)]
    if ends[0] < _RLE_HEADER or any(after < before for before, after in pairwise(ends)):
        raise RadiographError("has damaged pixels: the RLE frame has segments that overlap")
    pixels = np.empty((n_pixels, n_bytes), dtype=np.uint8)
    for k, (at, end) in enumerate(pairwise(ends)):
        segment = bytearray()
        while at + 1 < end and len(segment) < n_pixels:
            run = content[at]
            if run < 128:  # run + 1 bytes as they are
                segment += content[at + 1 : min(at + 2 + run, end)]
                at += 2 + run
            elif run > 128:  # the next byte, 257 - run times
                segment += content[at + 1 : at + 2] * (257 - run)
                at += 2
            else:
                at += 1
        if len(segment) < n_pixels:
            held = f"segment {k + 1} holds {len(segment)} of {n_pixels} bytes"
            raise RadiographError(f"has damaged pixels: the RLE frame is truncated: {held}")
        pixels[:, n_bytes - 1 - k] = np.frombuffer(segment, dtype=np.uint8, count=n_pixels)
    values = pixels.reshape(layout.rows, -1).view(f"<{'i' if layout.signed else 'u'}{n_bytes}")
    unused = layout.bits_allocated - layout.bits_stored  # PS3.5 8.1.1: their content is not defined
    return values << unused >> unused
