"""What all sources share: their contract, publishers' tables, the files they name, patients, and the index."""

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
from monai_simclr.data.index import COLUMNS, coerce_index
from monai_simclr.runtime.names import encode_name, shown
from monai_simclr.runtime.tables import read_cells, read_csv_header

_VAL_SHARE = 0.125


@dataclass(frozen=True)
class Source:
    """A kind of archive.

    Attributes:
        name: what the log calls it.
        recognise: why a folder is an archive of this kind, or "".
        read: the folder's image index, by `make_index`; its keyword arguments are options of `open_index`. It need not
            find leaks or missing images, `open_index` does.
        hint: what to do about missing images.
    """

    name: str
    recognise: Callable[[Path], str]
    read: Callable[..., pd.DataFrame]
    hint: str = "is the archive unpacked there, whole?"


def find_table(folder: str | Path, *patterns: str) -> Path | None:
    """The first file in a folder that matches a pattern, also if it ends in ``.gz``; None if there is none."""
    for pattern in patterns:
        for path in sorted([*Path(folder).glob(pattern), *Path(folder).glob(f"{pattern}.gz")]):
            if path.is_file():
                return path
    return None


def has_table(folder: Path, *patterns: str, columns: Iterable[str] = (), publisher: str = "") -> str:
    """Reason to recognise a folder: it has such a table and, if these are given, its columns are the publisher's."""
    path = find_table(folder, *patterns)
    if path is None or not set(columns) <= set(read_csv_header(path)):
        return ""
    return f"its {path.name} has the columns of {publisher}" if publisher else f"it has {path.name}"


def read_text_table(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Table of a CSV file, every cell as text; optional columns that it lacks are "".

    Raises:
        ValueError: as `read_cells`, and if a needed column is missing or repeated (names the file).
    """
    table = read_cells(path)
    repeated = [name for name in table.attrs.pop("repeated") if name in needed]
    check_columns([*table.columns, *repeated], needed, shown(path.name))
    return table.assign(**{name: "" for name in optional if name not in table})


def read_publisher_table(
    folder: str | Path, *patterns: str, needed: Sequence[str], optional: Sequence[str] = (), hint: str = ""
) -> tuple[pd.DataFrame, str]:
    """`read_text_table` of the file that `find_table` finds, and the file's name for messages.

    Raises:
        FileNotFoundError: if there is none (names the first pattern).
        ValueError: as `read_text_table`.
    """
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

    Folders in a name ("images/0001.png") do not count. A name that no folder has is given the first folder and the
    first suffix, for the message about missing images.
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
        pattern: regular expression whose first group is the patient, as ``r"^(\\d+)_"``; searched in each name.
        archive: what the log calls the archive.

    Raises:
        ValueError: if the pattern is not a regular expression with a group, or does not match a name.

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
    return int(hashlib.sha256(encode_name(patient)).hexdigest()[:8], 16) / 2**32 < _VAL_SHARE


def make_index(labels: pd.DataFrame | None = None, **columns: Any) -> pd.DataFrame:
    """Index of a source: columns that are not given are unknown, and what is not a view, sex or age becomes unknown.

    Args:
        labels: one column per finding, in the order of the images.
        columns: a column of the index or one value for all rows; ``image`` is needed. Views, sexes and ages may be in
            the publisher's words.

    Example:
        >>> make_index(image=["/a/1.png"], patient_id=["007"], sex=["Male"], age=["060Y"]).iloc[0, 1:].tolist()
        ['007', '', '', 'M', 60.0, '']
    """
    rows = range(len(columns["image"]))
    index = pd.DataFrame({**dict.fromkeys(COLUMNS, ""), "age": np.nan, **columns}, index=rows)
    for name, convert in (("view_position", view_positions), ("sex", sexes), ("age", ages)):
        index[name] = convert(index[name])
    if labels is not None:
        index = pd.concat([index, labels.reset_index(drop=True)], axis=1)
    return coerce_index(index)
