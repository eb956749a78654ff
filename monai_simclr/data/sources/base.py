"""What all sources share: their contract, publishers' tables, the files they name, patients, labels, and the index."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.columns import ages, check_columns, logger, sexes, view_positions
from monai_simclr.data.findings import CHEXPERT14, canonical_finding
from monai_simclr.data.index import COLUMNS, coerce_index
from monai_simclr.runtime.names import encode_name, shown
from monai_simclr.runtime.tables import read_cells, read_csv_header

UNCERTAIN = ("ignore", "zeros", "ones", "smoothed")
"""What an uncertain label may become: NaN, 0, 1, or a value between."""
SMOOTHED = 0.7
"""Mean of the interval (0.55, 0.85) from which Pham et al. (Neurocomputing 2021, "U-Ones+LSR") draw smoothed labels."""


@dataclass(frozen=True)
class Source:
    """A kind of archive.

    Attributes:
        name: what the log calls it.
        recognise: why a folder is an archive of this kind, or "".
        read: the folder's image index, by `make_index`; its keyword arguments are options of `open_index`. It raises
            `FileNotFoundError` without its table or images, and `ValueError` for a missing column, an unknown option or
            an unknown value (with the row). It need not find leaks or missing images, `open_index` does.
        hint: what to do about missing images.
    """

    name: str
    recognise: Callable[[Path], str]
    read: Callable[..., pd.DataFrame]
    hint: str = "is the archive unpacked there, whole?"


def find_table(folder: str | Path, *patterns: str) -> Path | None:
    """First file in a folder that matches a pattern, also if it ends in ``.gz``; None if there is none."""
    matches = [sorted([*Path(folder).glob(name), *Path(folder).glob(f"{name}.gz")]) for name in patterns]
    return next((path for paths in matches for path in paths if path.is_file()), None)


def has_table(folder: Path, *patterns: str, columns: Iterable[str] = (), publisher: str = "") -> str:
    """Reason to recognise a folder: it has such a table and, if these are given, its columns are the publisher's."""
    path = find_table(folder, *patterns)
    if path is None or not set(columns) <= set(read_csv_header(path)):
        return ""
    return f"its {path.name} has the columns of {publisher}" if publisher else f"it has {path.name}"


def read_text_table(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Cells of a CSV file as text; raises if a needed column is missing or repeated, adds optional ones as ""."""
    table = read_cells(path)
    repeated = [name for name in table.attrs.pop("repeated") if name in needed]
    check_columns([*table.columns, *repeated], needed, shown(path.name))
    return table.assign(**{name: "" for name in optional if name not in table})


def read_publisher_table(
    folder: str | Path, *patterns: str, needed: Sequence[str], optional: Sequence[str] = (), hint: str = ""
) -> tuple[pd.DataFrame, str]:
    """`read_text_table` of `find_table`, and the file's name for messages; raises `FileNotFoundError` without one."""
    path = find_table(folder, *patterns)
    if path is None:
        raise FileNotFoundError(f"there is no {patterns[0]} in {shown(folder)}{hint and '; ' + hint}")
    return read_text_table(path, needed, optional), path.name


def base_name(name: str) -> str:
    r"""A file's name without folders, however a table writes them.

    Example:
        >>> base_name("images/0001.png"), base_name(r"images\0001.png"), base_name("0001.png ")
        ('0001.png', '0001.png', '0001.png')
    """
    return name.strip().replace("\\", "/").rpartition("/")[2]


def locate(folders: Sequence[Path], names: Iterable[str], suffixes: Sequence[str] = ("",)) -> list[str]:
    """Absolute paths of the files with a name and one of the suffixes, in the first folder that has one.

    Folders in a name ("images/0001.png") do not count. A missing file is placed in the first folder, for the message.
    """
    paths: dict[str, str] = {}
    for folder in reversed(folders):
        if folder.is_dir():
            paths |= {path.name: str(path.absolute()) for path in folder.iterdir()}
    located = []
    for name in map(base_name, names):
        missing = str(folders[0].absolute() / f"{name}{suffixes[0]}")
        located.append(next((paths[name + end] for end in (*suffixes, "") if name + end in paths), missing))
    return located


def patients_by_name(names: Sequence[str], pattern: str, archive: str) -> list[str]:
    """Patient of every file by a pattern for its name; without one, every image is its own patient, with a warning.

    Args:
        names: file names, or paths below the archive's folder with ``/``.
        pattern: regular expression whose first group is the patient, as ``r"^(\\d+)_"``; it must match in every name.
        archive: what the log calls the archive.

    Example:
        >>> patients_by_name(["00013_002.png", "00013_004.png"], r"^(\\d+)_", "this archive")
        ['00013', '00013']
    """
    if not pattern:
        logger.warning(
            f"NO PATIENT IDS: {shown(archive)} does not say who is on an image, so each of its {len(names)} images "
            "counts as a patient of its own, and a split may put one patient on both sides; if the file names contain "
            r"the patient, give a patient_pattern whose first group matches it, as '^(\d+)_'"
        )
        return list(names)
    try:
        search = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"patient_pattern {pattern!r} is not a regular expression: {error}") from error
    if not search.groups:
        raise ValueError(f"patient_pattern {pattern!r} has no group; put the patient's part in brackets")
    patients = []
    for name in names:
        match = search.search(name)
        if match is None or not match[1]:
            raise ValueError(f"patient_pattern {pattern!r} finds no patient in the file name {shown(name)!r}")
        patients.append(match[1])
    return patients


@cache
def is_val_patient(patient: str) -> bool:
    """Whether a patient of a training list is held out for validation: one in eight, always the same, by a hash."""
    return int(hashlib.sha256(encode_name(patient)).hexdigest()[:8], 16) / 2**32 < 0.125


def check_choice(option: str, value: str, known: Sequence[str]) -> None:
    """Raise `ValueError` if the value of an option is not a known one."""
    if value not in known:
        raise ValueError(f"{option} must be one of {list(known)}, got {value!r}")


def chexpert_labels(table: pd.DataFrame, train: np.ndarray, uncertain: str, blank: str) -> pd.DataFrame:
    """Labels of CheXpert's findings among a table's columns, from its 1.0, 0.0, -1.0 and blanks.

    A "smoothed" label is for train rows only, since scores need plain labels. A blank means that the report does not
    mention the finding; with `blank` "ignore" it is still 0 if there is "No Finding", except of "Support Devices",
    which may be present without a finding.

    Example:
        >>> table = pd.DataFrame({"Fracture": ["1.0", "-1.0", ""]})
        >>> chexpert_labels(table, np.array([True] * 3), "smoothed", "zeros")["Fracture"].tolist()
        [1.0, 0.7, 0.0]
    """
    check_choice("uncertain", uncertain, UNCERTAIN)
    check_choice("blank", blank, ("zeros", "ignore"))
    table = table[[name for name in table.columns if canonical_finding(name) in CHEXPERT14]]
    table = table.rename(columns=canonical_finding)
    labels = table.replace("", np.nan).apply(pd.to_numeric, errors="coerce").astype(float)
    for row, column in np.argwhere(((table != "") & ~labels.isin([1, 0, -1])).to_numpy())[:1]:
        raise ValueError(
            f"labels must be 1, 0, -1 or blank, got {table.iloc[row, column]!r} for {table.columns[column]!r} in row "
            f"{row}"
        )
    healthy = labels["No Finding"] == 1 if "No Finding" in labels else pd.Series(False, index=labels.index)
    labels = labels.drop(columns="No Finding", errors="ignore")
    unmentioned, unsure = labels.isna(), labels == -1
    value = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0, "smoothed": SMOOTHED}[uncertain]
    held_out = np.nan if uncertain == "smoothed" else value
    labels = labels.mask(unsure & train[:, None], value).mask(unsure & ~train[:, None], held_out)
    if blank == "ignore":
        unmentioned &= healthy.to_numpy()[:, None]
        unmentioned.loc[:, unmentioned.columns == "Support Devices"] = False
    return labels.mask(unmentioned, 0.0)


def make_index(labels: pd.DataFrame | None = None, **columns: Any) -> pd.DataFrame:
    """Index of a source: columns that are not given are unknown, and what is not a view, sex or age becomes unknown.

    Args:
        labels: one column per finding, in the order of the images.
        columns: a column of the index or one value for all rows; ``image`` is needed. Views, sexes and ages may be in
            the publisher's words.

    Example:
        >>> index = make_index(image=["/a/1.png"], patient_id=["007"], sex=["Male"], age=["060Y"])
        >>> index[["patient_id", "sex", "age", "split"]].to_dict("records")
        [{'patient_id': '007', 'sex': 'M', 'age': 60.0, 'split': ''}]
    """
    rows = range(len(columns["image"]))
    index = pd.DataFrame({**dict.fromkeys(COLUMNS, ""), "age": np.nan, **columns}, index=rows)
    for name, convert in (("view_position", view_positions), ("sex", sexes), ("age", ages)):
        index[name] = convert(index[name])
    if labels is not None:
        index = pd.concat([index, labels.reset_index(drop=True)], axis=1)
    return coerce_index(index)
