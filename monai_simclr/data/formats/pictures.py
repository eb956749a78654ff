"""PNG, JPEG and TIFF to canonical images."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from monai_simclr.data.formats.orientation import EXIF, turned
from monai_simclr.data.formats.png import read_plain_png
from monai_simclr.data.formats.scaling import histogram, look_up, percentile_range, spread
from monai_simclr.data.radiograph import (
    RadiographError,
    RadiographMeta,
    ReaderSettings,
    check_pixels,
    check_shape,
    init_meta,
)

_FORMATS = ("PNG", "JPEG", "TIFF")  # Pillow knows forty more, and every one of them is a parser to attack
_GRAY, _DEEP, _COLOUR = ("L",), ("I;16", "I;16L", "I;16B", "I;16N"), ("RGB", "RGBA", "RGBX", "LA", "P", "PA")
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 274, 258, 262  # TIFF 6.0 section 8, and EXIF
_UNEQUAL = 2  # gray levels of 255 by which JPEG may part equal channels


def read_picture(path: Path, file: BinaryIO, settings: ReaderSettings) -> tuple[np.ndarray, RadiographMeta]:
    """Read a PNG, JPEG or TIFF with one gray picture, 8 or 16 bits (TIFF: 12 too).

    It is scaled by what its type can hold, whatever is in it (or by percentiles, if `settings` say so). Equal channels
    are gray, a palette is read as it is displayed, what is transparent lies on black, EXIF's orientation is applied.

    Returns:
        float32 ``(H, W)`` in [0, 1], and its metadata.

    Raises:
        RadiographError: if it is no such picture (says why, and what to do).
    """
    content = file.read(settings.max_bytes)
    # given the name, Pillow 13.0 maps uncompressed TIFF into memory and scrambles those that are to be transposed
    picture = _opened(path, BytesIO(content))
    _check_size(path, picture, settings)
    mode, depth = picture.mode, "".join(str(tile.args) for tile in picture.tile)
    plain = read_plain_png(path, content) if picture.format == "PNG" else None
    if plain is not None:
        stored, top, orientation = plain, int(np.iinfo(plain.dtype).max), ""
    else:
        orientation = _load(path, picture)
        deep = content if ";16" in depth and mode in _COLOUR else b""
        stored, top = _stored(path, picture, mode, deep)
    meta = init_meta(str(picture.format))
    meta["orientation"], meta["inverted"] = orientation, _tag(picture, _PHOTOMETRIC, 1) == 0
    if stored.min() == stored.max():
        raise RadiographError(path, f"has the value {stored.flat[0]} in every pixel; a radiograph has contrast")
    table = _table(stored, top, settings, meta)
    if meta["inverted"] and mode in _DEEP:  # Pillow inverts the 8-bit ones
        table = 1 - table
    return turned(look_up(table.astype(np.float32), stored), orientation), meta


def picture_facts(path: Path, file: BinaryIO) -> dict[str, str | int]:
    """Facts of the header of a PNG, JPEG or TIFF under the audit's names.

    Raises:
        RadiographError: if the header is damaged.
    """
    picture = _opened(path, file)
    bits = {"1": 1, "I;16": 16, "I": 16, "I;16B": 16, "I;16L": 16, "I;16N": 16}.get(picture.mode, 8)
    return {
        "format": str(picture.format),
        "photometric": picture.mode,
        "bits": bits,
        "rows": picture.height,
        "columns": picture.width,
        "frames": _frames(path, picture),
        "samples": len(picture.getbands()),
    }


def _opened(path: Path, file: BinaryIO) -> ImageFile.ImageFile:
    try:
        return Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise RadiographError(path, "is larger than any radiograph") from error
    except UnidentifiedImageError as error:
        raise RadiographError(path, "is a PNG, JPEG or TIFF that is damaged, or of a kind that is not read") from error
    except Exception as error:  # a damaged file fails in Pillow in many ways
        raise RadiographError(path, "has a damaged header of a PNG, JPEG or TIFF") from error


def _load(path: Path, picture: ImageFile.ImageFile) -> str:
    """Decode, all of it; say what makes it upright."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False  # others may have set it
    try:
        picture.load()
        if picture.format == "TIFF":  # Pillow turns these itself
            return ""
        return EXIF.get(picture.getexif().get(_ORIENTATION, 1), "")
    except Exception as error:  # as above
        raise RadiographError(path, f"is damaged: its {picture.format} pixels cannot be decoded") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _check_size(path: Path, picture: Image.Image, settings: ReaderSettings) -> None:
    check_pixels(path, picture.height, picture.width, settings)
    frames = _frames(path, picture)
    if frames != 1:
        raise RadiographError(path, f"has {frames} pictures in it; a radiograph has one")
    if picture.mode not in (*_GRAY, *_DEEP, *_COLOUR):
        raise RadiographError(path, f"has pixels of the kind {picture.mode!r}; 8 or 16 bits of gray are needed")
    check_shape(path, picture.height, picture.width, settings)


def _frames(path: Path, picture: Image.Image) -> int:
    try:
        return int(getattr(picture, "n_frames", 1))
    except Exception as error:  # Pillow walks through the pages to count them
        raise RadiographError(path, "is damaged: its pages cannot be counted") from error


def _stored(path: Path, picture: Image.Image, mode: str, deep: bytes) -> tuple[np.ndarray, int]:
    """The gray levels, and the largest that there can be; `deep` is the file, if it has colours of 16 bits."""
    if mode in _GRAY:
        return np.asarray(picture), 255
    if mode in _DEEP:
        bits = _tag(picture, _BITS_PER_SAMPLE, 16)
        return np.asarray(picture).astype(np.uint16, copy=False), 2 ** (bits if 8 < bits < 16 else 16) - 1
    if deep:  # Pillow makes 8 bits of them; it has decoded them, so they are sound
        pixels = cv2.imdecode(np.frombuffer(deep, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != (picture.height, picture.width):
            raise RadiographError(path, "has pixels of 16 bits and a kind that is not read; save it as gray")
        return _gray_of(path, np.atleast_3d(pixels)), 65535
    if mode in ("P", "PA"):
        picture = picture.convert("RGBA" if "transparency" in picture.info or mode == "PA" else "RGB")
    return _gray_of(path, np.asarray(picture)), 255


def _gray_of(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Channels ``(H, W, 1..4)`` that must be equal, to one; the second or fourth is alpha."""
    channels = cv2.split(np.ascontiguousarray(pixels))
    colours, alpha = (channels[:-1], channels[-1]) if len(channels) in (2, 4) else (channels, None)
    top = np.iinfo(pixels.dtype).max
    parted = max((cv2.norm(colours[0], other, cv2.NORM_INF) for other in colours[1:]), default=0.0) * 255 / top
    if parted > _UNEQUAL:
        raise RadiographError(
            path, f"is a colour picture (its channels differ by {parted:.0f} of 255); a radiograph is gray"
        )
    gray = np.asarray(colours[0])
    if alpha is None or alpha.min() == top:
        return gray
    return (gray.astype(np.float64) * alpha / top).round().astype(pixels.dtype)


def _table(stored: np.ndarray, top: int, settings: ReaderSettings, meta: RadiographMeta) -> np.ndarray:
    values = np.arange(256**stored.itemsize, dtype=np.float64)
    if settings.voi != "percentile":
        return np.clip(values / top, 0, 1)
    meta["voi"] = "percentile"
    return spread(values, *percentile_range(values, histogram(stored)))


def _tag(picture: Image.Image, tag: int, default: int) -> int:
    found = getattr(picture, "tag_v2", {}).get(tag, default)
    return int(found[0] if isinstance(found, tuple) else found)
