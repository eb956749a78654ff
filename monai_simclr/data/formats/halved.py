"""JPEG 2000 and JPEG at a half, a quarter or an eighth of their size, in the place where the whole picture would be.

Both codecs keep a picture as a small one and what is missing of the larger ones, so the small one costs a fraction.
Sample k of a JPEG 2000 picture halved r times lies where pixel ``2**r * k`` of the whole one lies (ISO 15444-1 Annex F:
the low-pass filters are symmetric about an even sample); a pixel of a scaled JPEG covers ``2**r`` pixels. Both round
sides up. `in_place` undoes both, so that what is resized afterwards lies where it would lie.
"""

from __future__ import annotations

from io import BytesIO
from typing import cast

import cv2
import numpy as np
from PIL import Image, ImageFile, Jpeg2KImagePlugin

MOST_HALVINGS = 3
"""libjpeg's; and small enough that a radiograph which is decoded for 256 pixels has them."""


def count_halvings(rows: int, columns: int, side: int | None) -> int:
    """How often an image can be halved whose shorter side must not fall below `side`; 0 without a `side`.

    Example:
        >>> count_halvings(1955, 1841, 256), count_halvings(1955, 1841, 1024), count_halvings(1955, 1841, None)
        (2, 0, 0)
    """
    halvings = 0
    while side and halvings < MOST_HALVINGS and min(rows, columns) >= side << halvings + 1:
        halvings += 1
    return halvings


class _HalvedJpeg2000(Jpeg2KImagePlugin.Jpeg2KImageFile):
    """Pillow's, with sides rounded up as the standard does (B.5); Pillow rounds to the nearest, and then fails."""

    def halve(self, halvings: int) -> None:
        self._size = (-(-self.width >> halvings), -(-self.height >> halvings))
        kind, _, offset, arguments = self.tile[0]
        codec, _, layers, *file = cast(tuple[object, ...], arguments)
        self.tile = [ImageFile._Tile(kind, (0, 0, *self._size), offset, (codec, halvings, layers, *file))]


def decode_jpeg2000(codestream: bytes, halvings: int = 0) -> np.ndarray:
    """Decode a gray codestream: its bits at the top of uint8, or of uint16 above 8 bits, level-shifted when signed.

    Raises:
        Exception: of many kinds, if it is damaged; or has fewer resolutions than `halvings`.
    """
    picture = _HalvedJpeg2000(BytesIO(codestream))
    if halvings:
        picture.halve(halvings)
    return np.asarray(picture)


def jpeg2000_resolutions(codestream: bytes) -> int:
    """How often a codestream can be halved: wavelet levels of its COD marker (ISO 15444-1 A.6.1); 0 if its image or
    tiles do not start at the origin, or other markers may say otherwise.
    """
    start_of_image_and_tiles = np.frombuffer(codestream, ">u4", 8, 8)[[2, 3, 6, 7]]
    at, levels = 4 + int.from_bytes(codestream[4:6], "big"), 0
    while at + 10 <= len(codestream) and codestream[at : at + 2] != b"\xff\x90":  # the first tile
        if codestream[at : at + 2] == b"\xff\x53":  # COC
            return 0
        if codestream[at : at + 2] == b"\xff\x52":
            levels = codestream[at + 9]
        at += 2 + max(2, int.from_bytes(codestream[at + 2 : at + 4], "big"))
    return 0 if start_of_image_and_tiles.any() else levels


def draft_jpeg(picture: Image.Image, halvings: int) -> None:
    """Let an open JPEG be decoded smaller: libjpeg leaves the high frequencies of each block out."""
    picture.draft(picture.mode, (picture.width >> halvings, picture.height >> halvings))


def pixel_scales(shape: tuple[int, int], halved: tuple[int, ...], padded: bool) -> tuple[float, float]:
    """Rows and columns of the whole image, ``(H, W)``, for a pixel of the halved one; one number for both if `padded`.

    Example:
        >>> pixel_scales((2048, 2498), (512, 625), False), pixel_scales((2048, 2498), (512, 625), True)
        ((4.0, 3.9968), (3.9968, 3.9968))
    """
    if padded:
        return (max(shape) / max(halved),) * 2
    return shape[0] / halved[0], shape[1] / halved[1]


def in_place(image: np.ndarray, shape: tuple[int, int], wavelet: bool, padded: bool = False) -> np.ndarray:
    """Put a halved image, float32, where the whole one lies; the whole one's `shape` is ``(H, W)``.

    Args:
        image: decoded at a lower resolution, or the whole one, which is returned.
        shape: of the whole one.
        wavelet: whether it is JPEG 2000's.
        padded: whether the result will be padded to a square (`pad_resize`). Both sides then have one scale, and the
            shorter side differs from the longer by an even number of pixels, so that it is padded by as many on either
            side: the square lies where that of the whole image would lie.

    Example:
        >>> ramp = np.tile(np.arange(0.0, 8.0, 2, dtype=np.float32), (4, 1))  # every second pixel of 0, 1 ... 7
        >>> in_place(ramp, (8, 8), wavelet=True)[0, :3].tolist()  # means of two pixels
        [0.5, 2.5, 4.5]
    """
    if image.shape == shape:
        return image
    step = 2.0 ** round(float(np.log2(shape[0] / image.shape[0])))
    centre = 0.5 if wavelet else step / 2
    scales = pixel_scales(shape, image.shape, padded)
    sides = image.shape
    if padded:
        longest = max(sides)
        sides = tuple(longest - 2 * round((longest - whole / scales[0]) / 2) for whole in shape)
    # pixel k of n is (k + 0.5 - n / 2) * scale from the middle of the whole image, and a place there is sample
    # (... - centre) / step
    rows, columns = (
        (scale / step, (whole / 2 + (0.5 - side / 2) * scale - centre) / step)
        for scale, whole, side in zip(scales, shape, sides, strict=True)
    )
    if (rows, columns, sides) == ((1.0, 0.0), (1.0, 0.0), image.shape):
        return image
    matrix = np.array([[columns[0], 0, columns[1]], [0, rows[0], rows[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, sides[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
