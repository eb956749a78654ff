"""PNG, JPEG and TIFF to canonical images."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from monai_simclr.data.formats.halved import count_halvings, draft_jpeg, in_place
from monai_simclr.data.formats.scaling import check_contrast, histogram, look_up, percentile_range, spread, turn
from monai_simclr.data.radiograph import RadiographError, RadiographMeta, ReaderSettings, check_size, init_meta

_FORMATS = ("PNG", "JPEG", "TIFF")  # Pillow knows forty more, and every one of them is a parser to attack
_GRAY, _DEEP, _COLOR = ("L",), ("I;16", "I;16L", "I;16B", "I;16N"), ("RGB", "RGBA", "RGBX", "LA", "P", "PA")
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 274, 258, 262  # TIFF 6.0 section 8, and EXIF
_EXIF_TURNS = {
    2: "mirrored",
    3: "flipped mirrored",
    4: "flipped",
    5: "transposed",
    6: "transposed mirrored",
    7: "transposed flipped mirrored",
    8: "transposed flipped",
}
_MAX_DIFFERENCE = 2  # gray levels of 255 by which JPEG may separate equal channels
_PNG_HARMLESS = {b"IHDR", b"IDAT", b"IEND", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"tIME", b"bKGD", b"sBIT"}
"""Chunks that change neither gray levels nor orientation as Pillow shows them (PNG, third edition, section 11)."""


def read_picture(
    file: BinaryIO, settings: ReaderSettings, side: int | None, padded: bool = False
) -> tuple[np.ndarray, RadiographMeta]:
    """Read a PNG, JPEG or TIFF with one gray picture of 8 or 16 bits (TIFF: also 12), as `read_radiograph` does.

    It is scaled by what its type can hold, whatever is in it (or by percentiles, if `settings` say so). Equal channels
    are gray, a palette is read as it is displayed, EXIF's orientation is applied. Pixels that an alpha channel or a
    palette makes transparent lie on black; the one gray level or color that a PNG without them may call transparent
    (tRNS) stays as it is.
    """
    # asked for max_bytes, Python would allocate them: that takes half a millisecond
    content = file.read(min(os.fstat(file.fileno()).st_size, settings.max_bytes))
    # given the name, Pillow 13.0 maps uncompressed TIFF into memory and scrambles those that are to be transposed
    picture = _open(BytesIO(content))
    check_size(picture.height, picture.width, settings)
    frames = _count_frames(picture)
    if frames != 1:
        raise RadiographError(f"has {frames} pictures in it; a radiograph has one")
    mode, tiles = picture.mode, "".join(str(tile.args) for tile in picture.tile)
    if mode not in (*_GRAY, *_DEEP, *_COLOR):
        raise RadiographError(f"has pixels of the kind {mode!r}; 8 or 16 bits of gray are needed")
    meta, shape = init_meta(str(picture.format)), (picture.height, picture.width)
    if picture.format == "JPEG" and (halvings := count_halvings(*shape, side)):
        draft_jpeg(picture, halvings)
    stored = read_plain_png(content) if picture.format == "PNG" else None
    if stored is None:
        meta["orientation"] = _load(picture)
        if ";16" in tiles and mode in _COLOR:  # Pillow reduces them to 8 bits; it has decoded them, so they are valid
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != (picture.height, picture.width):
                raise RadiographError("has pixels of 16 bits and a kind that is not read; save it as gray")
            stored = _merge_channels(np.atleast_3d(pixels))
        elif mode in _COLOR:
            transparent = "transparency" in picture.info or mode == "PA"
            shown = picture.convert("RGBA" if transparent else "RGB") if mode in ("P", "PA") else picture
            stored = _merge_channels(np.asarray(shown))
        else:
            stored = np.asarray(picture, dtype=np.uint16 if mode in _DEEP else np.uint8)
    meta["inverted"] = _get_tag(picture, _PHOTOMETRIC, 1) == 0
    check_contrast(stored)
    values = np.arange(256**stored.itemsize, dtype=np.float64)
    if settings.voi == "percentile":
        meta["voi"] = "percentile"
        table = spread(values, *percentile_range(values, histogram(stored)))
    else:
        bits = _get_tag(picture, _BITS_PER_SAMPLE, 16) if mode in _DEEP else 8 * stored.itemsize
        table = np.clip(values / (2 ** (bits if 8 < bits < 16 else 8 * stored.itemsize) - 1), 0, 1)
    if meta["inverted"] and mode in _DEEP:  # Pillow inverts the 8-bit ones
        table = 1 - table
    gray = in_place(look_up(table.astype(np.float32), stored), shape, wavelet=False, padded=padded)
    return turn(gray, meta["orientation"]), meta


def picture_facts(file: BinaryIO) -> dict[str, str | int]:
    """Return facts of the header of a PNG, JPEG or TIFF under the audit's names."""
    picture = _open(file)
    bits = {"1": 1, "I": 16, **dict.fromkeys(_DEEP, 16)}.get(picture.mode, 8)
    return {
        "format": str(picture.format),
        "photometric": picture.mode,
        "bits": bits,
        "rows": picture.height,
        "columns": picture.width,
        "frames": _count_frames(picture),
        "samples": len(picture.getbands()),
    }


def read_plain_png(content: bytes) -> np.ndarray | None:
    """Read a valid PNG of one channel, 8 or 16 bits, without transparency, text or EXIF, by OpenCV.

    The same gray levels as by Pillow, a third faster, because Pillow copies them three times on their way to NumPy.
    All checksums are verified first, so that OpenCV gets no damaged file: it would print. Right checksums and damaged
    pixels, such as fewer rows than the header promises, which Pillow would fill with black, are a `RadiographError`.

    Returns:
        uint8 or uint16 ``(H, W)``; None for every other PNG and for wrong checksums: Pillow's to read or refuse.
    """
    at, names, view = 8, [], memoryview(content)  # after the signature
    while at + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        if end + 4 > len(content) or name not in _PNG_HARMLESS:
            return None
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return None
        names.append(name)
        at = end + 4
    if at != len(content) or names[:1] != [b"IHDR"] or names[-1:] != [b"IEND"]:
        return None
    width, height, depth, color = struct.unpack_from(">IIBB", content, 16)
    if color != 0 or depth not in (8, 16):
        return None
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or (pixels.itemsize, pixels.shape) != (depth // 8, (height, width)):
        raise RadiographError("is damaged: its PNG pixels cannot be decoded")
    return pixels


def _open(file: BinaryIO) -> ImageFile.ImageFile:
    try:
        return Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise RadiographError("is larger than any radiograph") from error
    except UnidentifiedImageError as error:
        raise RadiographError("is a PNG, JPEG or TIFF that is damaged, or of a kind that is not read") from error
    except Exception as error:  # a damaged file fails in Pillow in many ways
        raise RadiographError("has a damaged header of a PNG, JPEG or TIFF") from error


def _count_frames(picture: Image.Image) -> int:
    try:
        return int(getattr(picture, "n_frames", 1))
    except Exception as error:  # Pillow walks through the pages to count them
        raise RadiographError("is damaged: its pages cannot be counted") from error


def _load(picture: ImageFile.ImageFile) -> str:
    """Decode everything; return what makes it upright."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False  # others may have set it
    try:
        picture.load()
        if picture.format == "TIFF":  # Pillow turns these itself
            return ""
        return _EXIF_TURNS.get(picture.getexif().get(_ORIENTATION, 1), "")
    except Exception as error:  # as above
        raise RadiographError(f"is damaged: its {picture.format} pixels cannot be decoded") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _merge_channels(pixels: np.ndarray) -> np.ndarray:
    """Channels ``(H, W, 1..4)`` that must be equal, to one; the second or fourth is alpha."""
    channels = cv2.split(np.ascontiguousarray(pixels))
    colors, alpha = (channels[:-1], channels[-1]) if len(channels) in (2, 4) else (channels, None)
    top = np.iinfo(pixels.dtype).max
    difference = max((cv2.norm(colors[0], other, cv2.NORM_INF) for other in colors[1:]), default=0.0) * 255 / top
    if difference > _MAX_DIFFERENCE:
        raise RadiographError(
            f"is a color picture (its channels differ by {difference:.0f} of 255); a radiograph is gray"
        )
    gray = np.asarray(colors[0])
    if alpha is None or alpha.min() == top:
        return gray
    return (gray.astype(np.float64) * alpha / top).round().astype(pixels.dtype)


def _get_tag(picture: Image.Image, tag: int, default: int) -> int:
    value = getattr(picture, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)
