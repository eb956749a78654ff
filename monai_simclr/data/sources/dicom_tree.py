"""A tree of DICOM files of any shape: headers to an image index; pixels are not touched."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
from pydicom.errors import InvalidDicomError

from monai_simclr.data.index import check_index

__all__ = ["holds_dicom", "read_dicom_tree"]

logger = logging.getLogger("monai_simclr.data")

_TAGS = [
    "SOPInstanceUID", "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "ViewPosition", "PatientSex", "PatientAge",
    "Manufacturer",
]  # fmt: skip


def holds_dicom(folder: str | Path) -> bool:
    """Whether some file below a folder is DICOM, by its content."""
    return any(_is_dicom(path) for path in Path(folder).rglob("*"))


def read_dicom_tree(folder: str | Path) -> pd.DataFrame:
    """Image index of the DICOM files below a folder, whatever their names; other files are counted in the log.

    A file without (0010,0020) Patient ID counts as a patient of its own. Whether a file is a radiograph is decided when
    its pixels are read.

    Raises:
        FileNotFoundError: if there is none.
    """
    rows, others = [], 0
    for path in sorted(Path(folder).rglob("*")):
        if not path.is_file():
            continue
        if _is_dicom(path) and (row := _row(path)):
            rows.append(row)
        else:
            others += 1
    if not rows:
        raise FileNotFoundError(f"there is no readable DICOM file below {folder}")
    if others:
        logger.warning(f"{others} files below {folder} are not DICOM and are left out")
    return check_index(pd.DataFrame(rows))


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _row(path: Path) -> dict[str, Any] | None:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except (InvalidDicomError, OSError, ValueError, EOFError):
        return None
    issuer = str(header.get("IssuerOfPatientID", "") or "")
    patient = str(header.get("PatientID", "") or "")
    return {
        "image": str(path.absolute()),
        "patient_id": f"{issuer}:{patient}" if issuer and patient else patient or f"file:{path.name}",
        "study_id": str(header.get("StudyInstanceUID", "") or ""),
        "view_position": str(header.get("ViewPosition", "") or ""),
        "sex": str(header.get("PatientSex", "") or ""),
        "age": _years(str(header.get("PatientAge", "") or "")),
        "split": "",
        "manufacturer": str(header.get("Manufacturer", "") or ""),
    }


def _years(age: str) -> float:
    """DICOM AS (PS3.5, 6.2): "060Y", "010M", "003W", "010D"."""
    per_year = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}
    if len(age) == 4 and age[:3].isdigit() and age[3] in per_year:
        return int(age[:3]) / per_year[age[3]]
    return float("nan") if not age.isdigit() else float(np.float64(age))
