"""A tree of DICOM files of any shape: headers to an image index, in parallel; pixels are not touched."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pydicom

from monai_simclr.data.formats.dicom_header import read_header
from monai_simclr.data.formats.dicom_tags import get_code, get_text
from monai_simclr.data.formats.exam import is_radiograph, read_exam
from monai_simclr.data.index import coerce_index
from monai_simclr.data.listing import list_files, say_left_out, second_copies
from monai_simclr.data.radiograph import RadiographError, describe_os_error, quiet_libraries
from monai_simclr.data.sources.identity import patients_by_name
from monai_simclr.data.sources.wording import ages, sexes
from monai_simclr.runtime.files import open_regular
from monai_simclr.runtime.names import shown

logger = logging.getLogger("monai_simclr.data")

_PART_10, _NOT_DICOM, _NO_PREAMBLE, _UNOPENED = range(4)


def holds_dicom(folder: str | Path) -> bool:
    """Whether some file below a folder is DICOM, by its content."""
    return any(_kind(path) == _PART_10 for path in list_files(folder).paths)


def recognise_dicom_tree(folder: Path) -> str:
    return "it holds DICOM files" if holds_dicom(folder) else ""


def read_dicom_tree(folder: str | Path, patient_pattern: str = "", workers: int = 8) -> pd.DataFrame:
    """Image index of the radiographs among the DICOM files below a folder, whatever their names.

    Other files, damaged ones, DICOM objects that are not radiographs by their Modality or, without one, by their class
    (CT, reports, presentation states), second copies (`second_copies`) and what `list_files` leaves out are counted in
    the log, by reason, with the first name. Whether the pixels of a file can be read is found out when they are.

    Args:
        folder: of any depth; links are followed.
        patient_pattern: regular expression whose first group is the patient in a file's path below the folder, for
            archives whose (0010,0020) Patient ID is empty or the same for all; it overrides the headers.
        workers: threads that read headers. They wait for disks and networks, not for each other; Python itself reads
            about a thousand headers a second.

    Returns:
        The index. `patient_id` is "issuer:id" where (0010,0021) Issuer of Patient ID is given, since hospitals number
        alike. A file without Patient ID counts as a patient of its own; the log says so, loudly.

    Raises:
        FileNotFoundError: if there is no radiograph.
    """
    listing = list_files(folder)
    listing.leave_out("second copies", second_copies(listing.paths, folder))
    paths = listing.paths
    with ThreadPoolExecutor(max(1, workers)) as pool, quiet_libraries():
        found = list(pool.map(_row, paths))
    rows = [row for row in found if isinstance(row, dict)]
    for path, row in zip(paths, found, strict=True):
        if isinstance(row, str):
            listing.left_out.setdefault(row, []).append(path)
    if not rows:
        raise FileNotFoundError(
            f"there is no radiograph among the {len(paths)} files below {shown(folder)}: {listing.counts()}"
        )
    if listing.left_out:
        logger.warning(say_left_out(listing.left_out, folder))
    if listing.followed:
        logger.info(f"{len(listing.followed)} links to folders are followed, the first is {shown(listing.followed[0])}")
    index = pd.DataFrame(rows)
    index["patient_id"] = _patients(index, Path(folder), patient_pattern)
    index["sex"], index["age"] = sexes(index["sex"]), ages(index["age"])
    index = coerce_index(index)
    index.attrs["left_out"] = listing.counts()
    return index


def _kind(path: Path) -> int:
    try:
        with open_regular(path) as file:
            head = file.read(132)
    except OSError:
        return _UNOPENED
    if head[128:] == b"DICM":
        return _PART_10
    return _NO_PREAMBLE if head[:2] == b"\x08\x00" else _NOT_DICOM


def _row(path: Path) -> dict[str, Any] | str:
    """Header of a radiograph, or why the file is left out."""
    kind = _kind(path)
    if kind in (_NOT_DICOM, _NO_PREAMBLE):
        return "not DICOM" if kind == _NOT_DICOM else "DICOM without the Part 10 header"
    try:
        header, _ = read_header(path)
    except OSError as error:
        return describe_os_error(error)
    except RadiographError:
        return "DICOM with a damaged header"
    return _facts(path, header)


def _facts(path: Path, header: pydicom.Dataset) -> dict[str, Any] | str:
    if not is_radiograph(header):
        return f"Modality {get_code(header, 'Modality') or 'not given'}"
    issuer, patient = get_text(header, "IssuerOfPatientID"), get_text(header, "PatientID")
    return {
        "image": str(path.absolute()),
        "patient_id": f"{issuer}:{patient}" if issuer and patient else patient,
        "study_id": get_text(header, "StudyInstanceUID"),
        "view_position": read_exam(header).view.position,
        "sex": get_text(header, "PatientSex"),
        "age": get_text(header, "PatientAge"),
        "split": "",
        "manufacturer": get_text(header, "Manufacturer"),
    }


def _patients(index: pd.DataFrame, folder: Path, pattern: str) -> pd.Series:
    names = pd.Series([Path(path).relative_to(folder.absolute()).as_posix() for path in index["image"]])
    missing = index["patient_id"] == ""
    if pattern:
        return pd.Series(patients_by_name(names.tolist(), pattern, str(folder)))
    if missing.any():
        patients_by_name(names[missing].tolist(), "", f"{int(missing.sum())} files below {shown(folder)}")
    _warn_of_one_patient(index["patient_id"][~missing])
    return index["patient_id"].where(~missing, "file:" + names)


def _warn_of_one_patient(patients: pd.Series) -> None:
    counts = patients.value_counts()
    if len(patients) >= 20 and len(counts) and counts.iloc[0] > 0.5 * len(patients):
        logger.warning(
            f"one (0010,0020) Patient ID stands in {counts.iloc[0]} of {len(patients)} files: was the archive "
            "anonymised with one id for all? Give a patient_pattern, or no split can be made"
        )
