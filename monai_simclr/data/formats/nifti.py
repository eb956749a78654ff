"""NIfTI files with one plane to canonical images; nibabel is imported when there is one (0.15 s of CPU time)."""

from __future__ import annotations

import math
from typing import Any, BinaryIO

import numpy as np

from monai_simclr.data.formats.inflate import InflatedStream
from monai_simclr.data.formats.scaling import PERCENTILES, describe_turn, spread, turn
from monai_simclr.data.radiograph import (
    DEFAULT_SETTINGS,
    RadiographError,
    RadiographMeta,
    ReaderSettings,
    check_size,
    init_meta,
)
from monai_simclr.runtime.extras import MissingPackageError, import_extra

_GZIP = b"\x1f\x8b"
_UNITS = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_HEAD = 540  # bytes of the longer, the NIfTI-2 header


def is_nifti(head: bytes) -> bool:
    """Return whether a file that starts with these 348 bytes or more, inflated, is a NIfTI-1 or NIfTI-2 in one file."""
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def read_nifti(
    file: BinaryIO, settings: ReaderSettings, side: int | None = None, padded: bool = False
) -> tuple[np.ndarray, RadiographMeta]:
    """Read a NIfTI file, compressed or not, with one plane, as `read_radiograph` does.

    Its affine tells where the axes point to. The one to the right or left becomes the columns, the first of them the
    patient's right; the other becomes the rows, the first of them cranial. A plane without a cranial axis, as
    SimpleITK, dcm2niix and MONAI write radiographs, is upright when its rows run to posterior (P), as those programs
    mean it. In a lateral plane the columns stay as they are.

    The gray values are scaled by the display range of the header (`cal_min`, `cal_max`) if it has one, else by the type
    if it is uint8 or uint16 without a slope, and not at all if they are fractions in [0, 1]; all others by percentiles
    0.5 and 99.5. ``voi="percentile"`` always takes those, ``voi="none"`` never (but the range of the type).
    """
    content, nib = _read_content(file, settings.max_bytes), _nibabel()
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
    first, second = (directions[axis] for axis in axes)
    columns_are_first = first in ("R", "L") or (first in ("A", "P") and second in ("S", "I"))
    along_row, down = (first, second) if columns_are_first else (second, first)
    meta["orientation"] = describe_turn(columns_are_first, down in ("S", "A"), along_row == "R")
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
    head, nib = _read_content(file, DEFAULT_SETTINGS.max_bytes, header_only=True), _nibabel()
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


def _nibabel() -> Any:
    try:
        return import_extra("nibabel", "nifti", "a NIfTI file")
    except MissingPackageError as error:
        raise RadiographError(f"cannot be read: {error}") from error


def _read_content(file: BinaryIO, max_bytes: int, header_only: bool = False) -> bytes:
    """All of the file, or what holds its header, inflated if need be."""
    start = file.read(2)
    file.seek(0)
    stream = InflatedStream(file, max_bytes, gzip=True) if start == _GZIP else file
    head = stream.read(_HEAD)
    if not is_nifti(head) and start == _GZIP:
        raise RadiographError("is a gzip file, and what is in it is not NIfTI; unpack it first")
    if header_only:
        return head
    stream.seek(0)
    return stream.read(max_bytes) if stream is file else stream.read()


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
