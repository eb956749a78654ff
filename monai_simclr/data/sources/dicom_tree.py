"""A tree of DICOM files of any shape: headers to an image index, in parallel; pixels are not read."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from monai_simclr.data.columns import logger
from monai_simclr.data.formats.dicom_header import read_header
from monai_simclr.data.formats.dicom_tags import get_code, get_text, patient_name
from monai_simclr.data.formats.exam import is_radiograph, read_exam
from monai_simclr.data.listing import list_files, second_copies
from monai_simclr.data.radiograph import RadiographError, describe_os_error, quiet_libraries
from monai_simclr.data.sources.base import Source, make_index, patients_by_name
from monai_simclr.runtime.cluster import open_executor
from monai_simclr.runtime.files import open_regular
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.spread import map_chunks, reason_of_loss

_CHUNK = 16  # files that are read at a time


def read_dicom_tree(folder: str | Path, patient_pattern: str = "", workers: int = 8, engine: str = "") -> pd.DataFrame:
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
        engine: what reads headers instead of threads, see `monai_simclr.runtime.cluster.open_executor`.

    Returns:
        The index. `patient_id` is "issuer:id" where (0010,0021) Issuer of Patient ID is given, since hospitals number
        alike. A file without issuer gets the one that other files give for its id; ids for which they give several stay
        without, with a warning. A file without Patient ID counts as a patient of its own, with a warning.
    """
    folder = Path(folder)
    listing = list_files(folder)
    listing.exclude("second copies", second_copies(listing.paths, folder))
    paths = listing.paths
    tasks = list(enumerate(paths))
    chunks = [tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK)]
    rows: list[dict[str, Any] | str] = [""] * len(paths)
    threads = None if engine else ThreadPoolExecutor(max(1, workers))
    with threads or open_executor(engine, workers) as executor, quiet_libraries():
        for number, row in map_chunks(_read_rows, chunks, executor, _blame, 2 * workers if threads else 0):
            rows[number] = row
    for path, row in zip(paths, rows, strict=True):
        if isinstance(row, str):
            listing.excluded.setdefault(row, []).append(path)
    columns = pd.DataFrame([row for row in rows if isinstance(row, dict)])
    if columns.empty:
        raise FileNotFoundError(
            f"there is no radiograph among the {len(paths)} files below {shown(folder)}: {listing.counts()}"
        )
    listing.log(folder)
    names = pd.Series([Path(path).relative_to(folder.absolute()).as_posix() for path in columns["image"]])
    missing, issuers = columns["patient_id"] == "", columns.pop("issuer")
    if patient_pattern:
        columns["patient_id"] = patients_by_name(names.tolist(), patient_pattern, str(folder))
    else:
        if missing.any():
            patients_by_name(names[missing].tolist(), "", f"{int(missing.sum())} files below {shown(folder)}")
        patients = _with_issuers(columns["patient_id"][~missing], issuers[~missing], folder)
        if len(patients) >= 20 and (most_images := int(patients.value_counts().max())) > 0.5 * len(patients):
            logger.warning(
                f"{most_images} of {len(patients)} files have the same (0010,0020) Patient ID: was the archive "
                "anonymised with one id for all? Give a patient_pattern, or no split can be made"
            )
        columns["patient_id"] = patients.reindex(names.index).fillna("file:" + names)
    index = make_index(None, **{str(name): column for name, column in columns.items()})
    index.attrs["excluded"] = listing.counts()
    return index


def _with_issuers(ids: pd.Series, issuers: pd.Series, folder: Path) -> pd.Series:
    """Names of patients; an id without issuer is that of the only issuer that it has in other files."""
    known = issuers[issuers != ""].groupby(ids[issuers != ""]).unique()
    only, several = (set(known.index[(known.str.len() > 1) == more]) for more in (False, True))
    bare = issuers == ""
    given, unclear = bare & ids.isin(only), bare & ids.isin(several)
    if given.any():
        logger.info(
            f"{int(given.sum())} files below {shown(folder)} have no (0010,0021) Issuer of Patient ID and get the only "
            "one that other files give for their Patient ID"
        )
    if unclear.any():
        logger.warning(
            f"{int(unclear.sum())} files below {shown(folder)} have no (0010,0021) Issuer of Patient ID, and other "
            f"files give several for their Patient ID, so that {ids[unclear].nunique()} patients may have two names "
            "and be on both sides of a split; give a patient_pattern, or complete the headers"
        )
    issuers = issuers.mask(given, ids.map(known.map(lambda names: names[0])))
    return pd.Series([patient_name(*pair) for pair in zip(issuers, ids, strict=True)], ids.index, dtype=object)


def _read_rows(tasks: Sequence[tuple[int, Path]]) -> list[tuple[int, dict[str, Any] | str]]:
    return [(number, read_row(path)) for number, path in tasks]


def _blame(task: tuple[int, Path], error: BaseException) -> tuple[int, str]:
    return task[0], reason_of_loss(error, str(task[1]), 0.0)


def read_row(path: Path) -> dict[str, Any] | str:
    """Row of the index from a radiograph's header, or why the file is excluded."""
    if problem := _problem(path):
        return problem
    try:
        header, _ = read_header(path)
    except OSError as error:
        return describe_os_error(error)
    except RadiographError:
        return "DICOM with a damaged header"
    if not is_radiograph(header):
        return f"Modality {get_code(header, 'Modality') or 'not given'}"
    issuer, patient = get_text(header, "IssuerOfPatientID"), get_text(header, "PatientID")
    return {
        "image": str(path.absolute()),
        "issuer": issuer,
        "patient_id": patient,
        "study_id": get_text(header, "StudyInstanceUID"),
        "view_position": read_exam(header).view.position,
        "sex": get_text(header, "PatientSex"),
        "age": get_text(header, "PatientAge"),
        "manufacturer": get_text(header, "Manufacturer"),
    }


def _problem(path: Path) -> str:
    """Why a file is not DICOM by its first bytes, or ""."""
    try:
        with open_regular(path) as file:
            head = file.read(132)
    except OSError as error:
        return describe_os_error(error)
    if head[128:] == b"DICM":
        return ""
    return "DICOM without the Part 10 header" if head[:2] == b"\x08\x00" else "not DICOM"


DICOM_TREE = Source(
    "DICOM files",
    lambda folder: "it contains DICOM files" if not all(map(_problem, list_files(folder).paths)) else "",
    read_dicom_tree,
)
