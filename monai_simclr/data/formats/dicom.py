"""DICOM files to canonical images."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from monai_simclr.data.formats.dicom_exam import read_exam
from monai_simclr.data.formats.dicom_file import open_dicom
from monai_simclr.data.formats.dicom_geometry import read_orientation, read_spacing
from monai_simclr.data.formats.dicom_gray import gray_table
from monai_simclr.data.formats.dicom_header import check_header
from monai_simclr.data.formats.dicom_pixels import decode_pixels
from monai_simclr.data.formats.orientation import turned
from monai_simclr.data.radiograph import RadiographError, RadiographMeta, ReaderSettings, init_meta


def read_dicom(path: Path, file: BinaryIO, settings: ReaderSettings) -> tuple[np.ndarray, RadiographMeta]:
    """Read a DICOM Part 10 file with one gray radiograph.

    The order is: header and limits, decoding, padding, modality LUT, values of interest, one inversion, orientation.

    Returns:
        float32 ``(H, W)`` in [0, 1], and its metadata.

    Raises:
        RadiographError: if it is no such file (says why, and what to do).
    """
    header = open_dicom(path, file, settings.max_bytes)
    layout = check_header(path, header, settings)
    stored = decode_pixels(path, header, layout)
    if stored.min() == stored.max():
        raise RadiographError(path, f"has the value {stored.flat[0]} in every pixel; a radiograph has contrast")
    table = gray_table(path, header, layout, stored, settings)
    orientation = read_orientation(header.data) if settings.patient_orientation else ""
    spacing, source = read_spacing(path, header.data)
    meta = init_meta("DICOM")
    meta["view_position"] = read_exam(header.data).view.position
    meta["photometric_interpretation"] = layout.photometric_interpretation
    meta["inverted"], meta["voi"], meta["window"] = table.inverted, table.voi, table.window
    meta["orientation"], meta["spacing_source"] = orientation, source
    meta["spacing"] = (spacing[1], spacing[0]) if "transposed" in orientation else spacing
    return turned(table(stored), orientation), meta
