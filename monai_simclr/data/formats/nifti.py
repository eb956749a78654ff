"""NIfTI files with one plane to canonical images."""

from __future__ import annotations

import math
import zlib
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from monai_simclr.data.formats.scaling import PERCENTILES, spread, turn
from monai_simclr.data.radiograph import RadiographError, RadiographMeta, ReaderSettings, check_size, init_meta

_GZIP = b"\x1f\x8b"
_UNITS = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_HEAD = 540  # bytes of the longer, the NIfTI-2 header


def is_nifti(head: bytes) -> bool:
    """Return whether a file that starts with these 348 bytes or more, inflated, is a NIfTI-1 or NIfTI-2 in one file."""
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def read_nifti(file: BinaryIO, settings: ReaderSettings) -> tuple[np.ndarray, RadiographMeta]:
    """Read a NIfTI file, compressed or not, with one plane, as `read_radiograph` does.

    Its affine tells where the axes point to. The one to the right or left becomes the columns, the first of them the
    patient's right; the other becomes the rows, the first of them cranial. A plane without a cranial axis, as
    SimpleITK, dcm2niix and MONAI write radiographs, is upright when its rows run to posterior (P), as those programs
    mean it. In a lateral plane the columns stay as they are.

    The gray values are scaled by the display range of the header (`cal_min`, `cal_max`) if it has one, else by the type
    if it is uint8 or uint16 without a slope, and not at all if they are fractions in [0, 1]; all others by percentiles
    0.5 and 99.5. ``voi="percentile"`` always takes those, ``voi="none"`` never (but the range of the type).
    """
    content = _inflate(file.read(settings.max_bytes), settings.max_bytes)
    try:
        kind = nib.Nifti2Image if content[4:8] == b"n+2\0" else nib.Nifti1Image
        image: Any = kind.from_bytes(content)
        shape, dtype, offset = image.shape, image.header.get_data_dtype(), int(image.dataobj.offset)
        zooms, unit = image.header.get_zooms(), image.header.get_xyzt_units()[0]
        directions = nib.aff2axcodes(image.affine)
    except Exception as error:  # a damaged header fails in nibabel in many ways
        raise RadiographError("has a damaged NIfTI header") from error
    axes = [axis for axis, length in enumerate(shape) if length != 1]
    if len(axes) != 2 or max(axes) > 2 or min(shape) < 1:
        raise RadiographError(f"has the shape {tuple(shape)}; a radiograph is one plane")
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise RadiographError(f"has pixels of type {dtype}; gray numbers are needed")
    check_size(shape[axes[1]], shape[axes[0]], settings)
    n_bytes, needed = max(len(content) - offset, 0), shape[axes[0]] * shape[axes[1]] * dtype.itemsize
    if n_bytes < needed:
        raise RadiographError(f"is truncated: it has {n_bytes} bytes of pixels, the header states {needed}")
    try:
        values = np.asarray(image.dataobj).squeeze()
    except Exception as error:  # as above
        raise RadiographError("is damaged: its NIfTI pixels cannot be read") from error
    if not np.isfinite(values).all():
        raise RadiographError("has pixels that are not finite")
    meta = init_meta("NIfTI")
    meta["orientation"] = _read_orientation(*(directions[axis] for axis in axes))
    spacing = tuple(float(zooms[axis]) * _UNITS.get(unit, 1.0) for axis in axes)
    if all(math.isfinite(value) and value > 0 for value in spacing):
        meta["spacing"] = (spacing[1], spacing[0]) if "transposed" in meta["orientation"] else (spacing[0], spacing[1])
        meta["spacing_source"] = "pixdim"
    known = _known_range(values, dtype, image.header, settings)
    if known is None and settings.voi == "none":
        raise RadiographError("has fractions that are not in [0, 1], whose range is unknown; use voi='percentile'")
    if known is None:
        meta["voi"] = "percentile"
        low, high = (float(value) for value in np.percentile(values, PERCENTILES))
        known = (low, high) if high > low else (float(values.min()), float(values.max()))
    gray = spread(values.astype(np.float64), *known)
    return turn(gray.astype(np.float32), meta["orientation"]), meta


def nifti_facts(file: BinaryIO) -> dict[str, str | int]:
    """Return facts of the header of a NIfTI file under the audit's names; nothing after it is read or inflated."""
    head = file.read(2**16)
    if head.startswith(_GZIP):
        head = _inflate_head(zlib.decompressobj(16 + zlib.MAX_WBITS), head)
    try:
        kind, length = (nib.Nifti2Header, 540) if head[4:8] == b"n+2\0" else (nib.Nifti1Header, 348)
        header = kind(head[:length], check=False)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
    except Exception as error:  # as in `read_nifti`
        raise RadiographError("has a damaged NIfTI header") from error
    sides = [length for length in shape if length != 1]
    columns, rows, *others = [*sides, 1, 1][: max(2, len(sides))]
    return {
        "format": "NIfTI",
        "bits": 8 * dtype.itemsize,
        "rows": int(rows),
        "columns": int(columns),
        "frames": int(math.prod(others)),
        "samples": 1,
    }


def _inflate(content: bytes, max_bytes: int) -> bytes:
    if not content.startswith(_GZIP):
        return content
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    head = _inflate_head(inflater, content)
    try:
        body = inflater.decompress(inflater.unconsumed_tail, max_bytes)
    except zlib.error as error:
        raise RadiographError("is damaged: it cannot be inflated") from error
    if inflater.unconsumed_tail:
        raise RadiographError(f"inflates to more than max_bytes={max_bytes}")
    if not inflater.eof:
        raise RadiographError("is truncated: the compressed file has no end")
    return head + body


def _inflate_head(inflater: Any, content: bytes) -> bytes:
    try:
        head: bytes = inflater.decompress(content, _HEAD)
    except zlib.error as error:
        raise RadiographError("is damaged: it cannot be inflated") from error
    if not is_nifti(head):
        raise RadiographError("is a gzip file, and what is in it is not NIfTI; unpack it first")
    return head


def _read_orientation(first: str | None, second: str | None) -> str:
    """How to turn an array whose axes point to these directions upright; see `read_orientation` of DICOM."""
    columns_are_first = first in ("R", "L") or (first in ("A", "P") and second in ("S", "I"))
    along_row, down = (first, second) if columns_are_first else (second, first)
    steps = ["transposed"] if columns_are_first else []
    if down in ("S", "A"):
        steps.append("flipped")
    if along_row == "R":
        steps.append("mirrored")
    return " ".join(steps)


def _known_range(
    values: np.ndarray, dtype: np.dtype, header: Any, settings: ReaderSettings
) -> tuple[float, float] | None:
    if settings.voi == "percentile":
        return None
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if settings.voi != "none" and math.isfinite(low) and math.isfinite(high) and high > low:
        return low, high
    scaled = values.dtype != dtype.newbyteorder("=")
    if dtype.kind in "ui" and not scaled and (settings.voi == "none" or dtype in (np.uint8, np.uint16)):
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    return (0.0, 1.0) if values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1 else None
