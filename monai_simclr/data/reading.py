"""Files to canonical images: upright, (H, W), float32 in [0, 1], bright = dense. The content decides what a file is.

`data/formats/` holds one reader per format. Every refusal that the header, the file's size or the inflated size allows
is given before a decoder runs. This module imports neither torch nor MONAI; MONAI's reader is in `data/reader.py`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from monai_simclr.data.collimation import exposed_field
from monai_simclr.data.formats.nifti import is_nifti
from monai_simclr.data.radiograph import (
    DEFAULT_SETTINGS,
    RadiographError,
    RadiographMeta,
    ReaderSettings,
    describe_os_error,
    quiet_libraries,
)
from monai_simclr.runtime.files import open_regular

_READERS = {"DICOM": "dicom.read_dicom", "picture": "pictures.read_picture", "NIfTI": "nifti.read_nifti"}
"""Imported at the first file of their format: pydicom alone takes half a second in every process that decodes."""
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GZIP = b"\x1f\x8b"
_ELEMENTS = (b"UL", b"UI", b"CS", b"DA", *(bytes([length, 0]) for length in range(4, 66, 2)))
"""What follows the tag of a data set's first element: an explicit VR, or the length of a short value."""


def read_radiograph(
    path: str | Path, settings: ReaderSettings = DEFAULT_SETTINGS, side: int | None = None, padded: bool = False
) -> tuple[np.ndarray, RadiographMeta]:
    """Read a file as a canonical image.

    DICOM goes through DICOM PS3.3 C.11 in order: padding mask, modality LUT, values of interest, at most one inversion;
    it is scaled by the known output range and turned by its Patient Orientation. PNG, JPEG, TIFF and NIfTI with one
    plane are scaled by their type.

    Args:
        path: of the file.
        settings: policies, switches and limits.
        side: pixels of the square that the image will be resized to, for ``decode_at="needed"``; None for all pixels.
        padded: whether it will be padded to that square before (`pad_resize`), not squashed.

    Returns:
        float32 ``(H, W)`` in [0, 1], upright, bright = dense; and metadata that contain no patient's name.

    Raises:
        FileNotFoundError: if there is no such file.
        RadiographError: if the file cannot be read as a radiograph (says why, and what to do).

    Example:
        >>> from monai_simclr.data.phantoms import write_dicom_phantoms
        >>> image, meta = read_radiograph(write_dicom_phantoms("archive", n_patients=1) / "PHANTOM-00000001/000.dcm")
        >>> image.shape, meta["photometric_interpretation"], meta["inverted"]
        ((256, 256), 'MONOCHROME1', True)
    """
    path = Path(path)
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"there is no file {path}" + ("; it is a folder" if path.is_dir() else ""))
    try:
        with open_regular(path) as file, quiet_libraries():
            size = os.fstat(file.fileno()).st_size
            if size > settings.max_bytes:
                raise RadiographError(f"has {size} bytes, more than max_bytes={settings.max_bytes}")
            side = side if settings.decode_at == "needed" and not settings.crop_collimation else None
            module, reader = _READERS[detect_format(file)].split(".")
            read = getattr(importlib.import_module(f"monai_simclr.data.formats.{module}"), reader)
            image, meta = read(file, settings, side, padded)
        low, high = image.min(), image.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise RadiographError("has pixels that are not finite")
        if low == high:
            voi = f"voi={meta['voi']!r}"
            raise RadiographError(f"is one gray all over ({low:.3g}) with {voi}; voi='percentile' may show it")
    except OSError as error:
        raise RadiographError(describe_os_error(error), path) from error
    except RadiographError as error:
        error.path = str(path)
        raise
    meta["crop"] = exposed_field(image) if settings.crop_collimation else (0, 0, *image.shape)
    top, left, height, width = meta["crop"]
    return np.ascontiguousarray(image[top : top + height, left : left + width], dtype=np.float32), meta


def detect_format(file: BinaryIO) -> str:
    """Return what an open file is by its first bytes: "DICOM", "picture" (PNG, JPEG, TIFF) or "NIfTI".

    Raises:
        RadiographError: if it is none of them.
    """
    head = file.read(540)
    file.seek(0)
    if head[128:132] == b"DICM":  # before the others: a DICOM file may start with a TIFF header (PS3.10 7.1)
        return "DICOM"
    if is_nifti(head) or head.startswith(_GZIP):
        return "NIfTI"
    if head.startswith(_PICTURES):
        return "picture"
    if head[:2] in (b"\x08\x00", b"\x02\x00", b"\x00\x08") and head[4:6] in _ELEMENTS:
        raise RadiographError(
            "looks like DICOM without the Part 10 header (128 bytes, then 'DICM', PS3.10 section 7.1), "
            "which is not read on a guess; write the header, for instance with dcmtk's dcmconv"
        )
    raise RadiographError(
        "is not DICOM, PNG, JPEG, TIFF or NIfTI; its content decides, not its name" if head else "is empty"
    )
