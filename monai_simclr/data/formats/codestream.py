"""The first bytes of JPEG, JPEG-LS and JPEG 2000 codestreams: their size is known before a decoder allocates it."""

from __future__ import annotations

from dataclasses import dataclass

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "


@dataclass(frozen=True)
class Frame:
    """What a codestream says of its frame.

    Attributes:
        process: second byte of the marker that said it: 0xC0 to 0xCF for JPEG, 0xF7 for JPEG-LS, 0x51 for JPEG 2000.
        rows: its height in pixels.
        columns: its width in pixels.
        precision: bits of a sample.
        samples: components.
        start: where the codestream starts in the bytes that were given.
        signed: whether its samples can be negative.
    """

    process: int
    rows: int
    columns: int
    precision: int
    samples: int
    start: int = 0
    signed: bool = False


def jpeg_frame(content: bytes) -> Frame:
    """Read the frame header of a JPEG (ISO 10918-1, B.2.2) or JPEG-LS (ISO 14495-1, C.2.2) codestream.

    Raises:
        ValueError: if there is none, or no end-of-image marker.

    Example:
        >>> jpeg_frame(bytes.fromhex("ffd8 ffc0 000b 08 0002 0003 01 011100 ffd9"))
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
        if kind in (0xF7, *range(0xC0, 0xD0)) and kind not in (0xC4, 0xC8, 0xCC):  # DHT, JPG, DAC are no frames
            head = content[at + 4 : at + 10]
            return Frame(kind, int.from_bytes(head[1:3], "big"), int.from_bytes(head[3:5], "big"), head[0], head[5])
        if kind in (0xDA, 0xD9) or length < 2:
            break
        at += 2 + length
    raise ValueError("has no frame header")


def jpeg2000_frame(content: bytes) -> Frame:
    """Read the SIZ marker of a JPEG 2000 codestream (ISO 15444-1, A.5.1), in a JP2 file or alone.

    Raises:
        ValueError: if there is none, its tiles are absurd, or there is no end-of-codestream marker.
    """
    start = _codestream_in_jp2(content) if content.startswith(_JP2_SIGNATURE) else 0
    if content[start : start + 4] != b"\xff\x4f\xff\x51" or len(content) < start + 43:
        raise ValueError("has no start of codestream FF4F FF51")
    _check_end(content)
    x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0 = (
        int.from_bytes(content[start + 8 + 4 * k : start + 12 + 4 * k], "big") for k in range(8)
    )
    if not (x0 < x1 and y0 < y1 and tile_x and tile_y and tile_x0 <= x0 and tile_y0 <= y0):
        raise ValueError("has an impossible image or tile size")
    tiles = -(-(x1 - tile_x0) // tile_x) * -(-(y1 - tile_y0) // tile_y)
    if tiles > 65535:
        raise ValueError(f"has {tiles} tiles; 65535 are possible")
    samples = int.from_bytes(content[start + 40 : start + 42], "big")
    precision, signed = (content[start + 42] & 0x7F) + 1, content[start + 42] > 0x7F
    return Frame(0x51, y1 - y0, x1 - x0, precision, samples, start, signed)


def _codestream_in_jp2(content: bytes) -> int:
    at = 0
    while at + 8 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        if kind == b"jp2c":
            return at + 8
        if length < 8:  # 0 means "to the end" and is for the last box only; a reader that adds it never ends
            break
        at += length
    raise ValueError("has no codestream box jp2c")


def _check_end(content: bytes) -> None:
    # PS3.5 A.4: padded to an even length; with 00 by most, with FF by some
    if not content.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):
        raise ValueError("is truncated: it has no end marker FFD9")
