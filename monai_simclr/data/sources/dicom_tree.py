"""A tree of DICOM files of any shape: headers to an image index, in parallel; pixels are not read."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from monai_simclr.data.formats.dicom_exam import read_exam
from monai_simclr.data.formats.dicom_file import read_header
from monai_simclr.data.formats.dicom_header import is_radiograph
from monai_simclr.data.formats.dicom_tags import code, text
from monai_simclr.data.formats.quiet import quiet_libraries
from monai_simclr.data.listing import list_files, second_copies
from monai_simclr.data.radiograph import RadiographError, unopened
from monai_simclr.data.sources.base import Source, make_index, patients_by_name
from monai_simclr.runtime.files import open_regular
from monai_simclr.runtime.names import shown

logger = logging.getLogger("monai_simclr.data")


def read_dicom_tree(folder: str | Path, patient_pattern: str = "", workers: int = 8) -> pd.DataFrame:
    """Image index of the radiographs among the DICOM files below a folder, whatever their names.

    Other files, damaged ones, DICOM objects that are not radiographs by their Modality or, without one, by their class
    (CT, reports, presentation states), second copies (`second_copies`) and what `list_files` excludes are counted in
    the log, by reason, with the first name. Whether the pixels of a file can be read is found out when they are.

    Args:
        folder: of any depth; links are followed.
        patient_pattern: regular expression whose first group is the patient in a file's path below the folder, for
            archives whose (0010,0020) Patient ID is empty or the same for all; it overrides the headers.
        workers: threads that read headers. They wait for disks and networks, not for each other; Python itself reads
            about a thousand headers a second.

    Returns:
        The index. `patient_id` is "issuer:id" where (0010,0021) Issuer of Patient ID is given, since hospitals number
        alike. A file without Patient ID counts as a patient of its own, with a warning.

    Raises:
        FileNotFoundError: if there is no radiograph.
    """
    folder = Path(folder)
    listing = list_files(folder)
    listing.exclude("second copies", second_copies(listing.paths, folder))
    paths = listing.paths
    with ThreadPoolExecutor(max(1, workers)) as pool, quiet_libraries():
        rows = dict(zip(paths, pool.map(read_row, paths), strict=True))
    for path, row in rows.items():
        if isinstance(row, str):
            listing.excluded.setdefault(row, []).append(path)
    columns = pd.DataFrame([row for row in rows.values() if isinstance(row, dict)])
    if columns.empty:
        raise FileNotFoundError(
            f"there is no radiograph among the {len(paths)} files below {shown(folder)}: {listing.counts()}"
        )
    listing.log(folder)
    columns["patient_id"] = _patients(columns, folder, patient_pattern)
    index = make_index(**dict(columns.items()))
    index.attrs["excluded"] = listing.counts()
    return index


def read_row(path: Path) -> dict[str, Any] | str:
    """Row of the index from a radiograph's header, or why the file is excluded."""
    try:
        if problem := _problem(path):
            return problem
        header, _ = read_header(path)
    except OSError as error:
        return unopened(error)
    except RadiographError:
        return "DICOM with a damaged header"
    if not is_radiograph(header):
        return f"Modality {code(header, 'Modality') or 'not given'}"
    issuer, patient = text(header, "IssuerOfPatientID"), text(header, "PatientID")
    return {
        "image": str(path.absolute()),
        "patient_id": f"{issuer}:{patient}" if issuer and patient else patient,
        "study_id": text(header, "StudyInstanceUID"),
        "view_position": read_exam(header).view.position,
        "sex": text(header, "PatientSex"),
        "age": text(header, "PatientAge"),
        "manufacturer": text(header, "Manufacturer"),
    }


def _problem(path: Path) -> str:
    """Why a file is not DICOM by its first bytes, or ""."""
    with open_regular(path) as file:
        head = file.read(132)
    if head[128:] == b"DICM":
        return ""
    return "DICOM without the Part 10 header" if head[:2] == b"\x08\x00" else "not DICOM"


def _patients(index: pd.DataFrame, folder: Path, pattern: str) -> pd.Series:
    """Patients by a pattern for the paths, or by the headers."""
    names = pd.Series([Path(path).relative_to(folder.absolute()).as_posix() for path in index["image"]])
    if pattern:
        return pd.Series(patients_by_name(names.tolist(), pattern, str(folder)))
    missing = index["patient_id"] == ""
    if missing.any():
        patients_by_name(names[missing].tolist(), "", f"{int(missing.sum())} files below {shown(folder)}")
    patients = index["patient_id"][~missing]
    most_images = int(patients.value_counts().max()) if len(patients) else 0
    if len(patients) >= 20 and most_images > 0.5 * len(patients):
        logger.warning(
            f"{most_images} of {len(patients)} files have the same (0010,0020) Patient ID: was the archive anonymised "
            "with one id for all? Give a patient_pattern, or no split can be made"
        )
    return index["patient_id"].where(~missing, "file:" + names)


def _recognise(folder: Path) -> str:
    for path in list_files(folder).paths:
        try:
            if not _problem(path):
                return "it contains DICOM files"
        except OSError:
            continue
    return ""


DICOM_TREE = Source("DICOM files", _recognise, read_dicom_tree)
