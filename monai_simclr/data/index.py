"""The image index: a table with one row an image, and the checks that keep it honest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.columns import (
    age_column,
    check_columns,
    label_column,
    place,
    sex_column,
    split_column,
    view_column,
)
from monai_simclr.data.findings import NO_FINDING, check_no_code
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import hold_odd_names, read_cells, unescaped_text, write_table

COLUMNS = ("image", "patient_id", "study_id", "view_position", "sex", "age", "split")
OPTIONAL_COLUMNS = ("source", "manufacturer", "lung_mask")
_TEXT = ("image", "patient_id", "study_id", "view_position", "sex", "split", *OPTIONAL_COLUMNS)
_SETTLED = {"view_position": view_column, "sex": sex_column, "age": age_column, "split": split_column}


def finding_columns(index: pd.DataFrame) -> tuple[str, ...]:
    """Names of the label columns: all that are neither in `COLUMNS` nor in `OPTIONAL_COLUMNS`."""
    return tuple(name for name in index.columns if name not in {*COLUMNS, *OPTIONAL_COLUMNS})


def coerce_index(index: pd.DataFrame, file: str = "") -> pd.DataFrame:
    """Give the same index with settled types, sound or not: what a source makes, and what the audit looks at.

    Words of another's hand become ours ("valid" is "val", "lateral" is "LL", "male" is "M", "060Y" is 60).

    Args:
        index: a table with `COLUMNS`, any of `OPTIONAL_COLUMNS`, and one column a finding.
        file: name of the file that it stands in, for messages.

    Returns:
        New table: text columns as str ("" is unknown), `split` as "train", "val", "test" or "", `view_position` as
        "PA", "AP", "LL" or "", `sex` as "M", "F" or "", `age` in years (NaN is unknown), labels from 0 to 1 or NaN.

    Raises:
        ValueError: if a column is missing or there twice, there are no rows, or a split, an age or a label is none that
            we know (names column and row).
    """
    check_columns(list(index.columns), COLUMNS, file)
    if not len(index):
        raise ValueError(f"{shown(file) + ': ' if file else ''}the index has no rows; is this the right folder?")
    index = index.reset_index(drop=True)
    text = [name for name in _TEXT if name in index]
    index[text] = index[text].astype(object).fillna("").astype(str)
    for name, settle in _SETTLED.items():
        index[name] = settle(index[name], file)
    for name in finding_columns(index):
        index[name] = label_column(index[name], file)
    return index


def check_index(index: pd.DataFrame) -> pd.DataFrame:
    """Give the same index with settled types, or say what is wrong with it.

    A label is 1, 0 or NaN (unknown). In train rows, and where there are no splits yet, it may also lie between: a
    smoothed label of an uncertain finding, which a loss can use. Validation and test rows need plain labels.

    Args:
        index: a table with `COLUMNS`, any of `OPTIONAL_COLUMNS`, and one column a finding.

    Returns:
        New table, as `coerce_index` gives it.

    Raises:
        ValueError: if a column is missing, there are no rows, an image stands there twice, a patient is in two
            splits, a patient's id is empty, a finding's name would run as code in a config, or a label is out of
            range (names the column and the row).
    """
    index = coerce_index(index)
    twice = index["image"][index["image"].duplicated()]
    if len(twice):
        raise ValueError(
            f"{len(twice)} images stand in the index twice, the first is {shown(twice.iloc[0])}; keep one row an image"
        )
    unknown = np.flatnonzero(index["patient_id"] == "")
    if len(unknown):
        raise ValueError(
            f"{len(unknown)} rows have no patient_id, the first is row {unknown[0]}; give each patient an id, or each "
            "image one of its own and know that a split may then put one patient on both sides"
        )
    check_no_code(finding_columns(index))
    leaks = patients_in_several_splits(index)
    if len(leaks):
        raise ValueError(
            f"{len(leaks)} patients are in more than one split, the first is {leaks[0]!r}; split "
            f"by patient with split_by_patient()"
        )
    _check_smoothed(index)
    return index


def patients_in_several_splits(index: pd.DataFrame) -> list[str]:
    """Ids of the patients that leak: those whose images are in more than one split, sorted."""
    splits = index[index["split"] != ""].groupby("patient_id")["split"].nunique()
    return [str(patient) for patient in splits.index[splits > 1]]


def _check_smoothed(index: pd.DataFrame) -> None:
    scored = index["split"].isin(["val", "test"])
    for name in finding_columns(index):
        rows = np.flatnonzero(scored & (index[name] > 0) & (index[name] < 1))
        if len(rows):
            raise ValueError(
                f"{name!r} has the smoothed label {index[name].iloc[rows[0]]:g} in row {rows[0]} of the "
                f"{index['split'].iloc[rows[0]]} split; smoothed labels are for training: "
                "split first, or read the archive with uncertain='ignore'"
            )


def image_classes(index: pd.DataFrame, several: str = "", unknown: str = "") -> np.ndarray:
    """Class of each image: its only positive finding, or "No Finding" if all labels are 0.

    Args:
        index: any table with one column per finding; see `finding_columns`.
        several: class of images with more than one positive finding.
        unknown: class of images with an unknown or smoothed label, and of all images of an index without labels.

    Returns:
        Text, shape ``(N,)``.

    Example:
        >>> index = pd.DataFrame({"Mass": [1.0, 0, 1, np.nan], "Edema": [0.0, 0, 1, 0]})
        >>> image_classes(index, several="several", unknown="unknown").tolist()
        ['Mass', 'No Finding', 'several', 'unknown']
    """
    findings = finding_columns(index)
    if not findings:
        return np.full(len(index), unknown)
    labels = index[list(findings)].to_numpy(dtype=float)
    known = ((labels == 0) | (labels == 1)).all(axis=1)
    positives = np.where(known, labels.sum(axis=1), np.nan)
    names = np.array(findings)[np.nan_to_num(labels).argmax(axis=1)]
    cases = [positives == 0, positives == 1, positives > 1]
    return np.select(cases, [np.full(len(index), NO_FINDING), names, np.full(len(index), several)], unknown).astype(str)


def records(index: pd.DataFrame, findings: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows as plain dictionaries, as MONAI's datasets take them.

    Args:
        index: a checked index.
        findings: which labels to carry.

    Returns:
        One ``{"image": path, "row": int, "patient": int}`` a row, with ``"label"``, a list of K floats, where there are
        findings; `patient` numbers the patients.

    Raises:
        ValueError: if the index has no labels for a finding.
    """
    unknown = [name for name in findings if name not in index]
    if unknown:
        raise ValueError(
            f"the index has no labels for {unknown}; it has {list(finding_columns(index))}; see --findings"
        )
    patients = pd.factorize(index["patient_id"])[0]
    labels = index[list(findings)].to_numpy(dtype=float) if findings else None
    rows = []
    for row, (image, patient) in enumerate(zip(index["image"], patients, strict=True)):
        record: dict[str, Any] = {"image": str(image), "row": row, "patient": int(patient)}
        if labels is not None:
            record["label"] = labels[row].tolist()
        rows.append(record)
    return rows


def check_images_exist(index: pd.DataFrame, hint: str = "is the archive unpacked there, whole?") -> None:
    """Raise `FileNotFoundError` with the count, the first name and a hint when images of an index are not there."""
    missing = [path for path in index["image"] if not os.path.isfile(path)]
    if missing:
        folder = Path(missing[0]).parent
        raise FileNotFoundError(
            f"{len(missing)} of {len(index)} images of the index are not in {shown(folder)}, the first is "
            f"{shown(Path(missing[0]).name)}; {hint}"
        )


def read_index(path: str | Path, check: bool = True) -> pd.DataFrame:
    """Read and check an index that `write_index` wrote, or anyone's CSV with its columns.

    Everything is read as text first, so that patient "00123" is not patient "123". Relative paths are taken from
    the folder of the file. Words of another's hand are read as `coerce_index` does.

    Args:
        path: of the CSV file: UTF-8, or UTF-16 with a byte order mark.
        check: False settles the types only, so that the audit can look at an index that is not sound.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: as `check_index` does; and if the file is no CSV, in another encoding, or was cut (names the file).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no index at {shown(path)}")
    table = read_cells(path)
    repeated = table.attrs.pop("repeated")
    check_columns([*table.columns, *repeated], [], path.name)
    table = unescaped_text(table)
    if "image" in table:
        empty = np.flatnonzero(table["image"] == "")
        if len(empty):
            raise ValueError(f"{place(int(empty[0]), path.name)}: the column 'image' is blank; remove the row")
        hold_odd_names([str(path)])
        table["image"] = [_absolute(path.parent, name) for name in table["image"]]
    table = coerce_index(table, path.name)
    return check_index(table) if check else table


def combine_indexes(indexes: Mapping[str, pd.DataFrame], prefix: bool = True) -> pd.DataFrame:
    """One index of several archives; what one does not label is unknown (NaN) there.

    Args:
        indexes: by the archive's name, which becomes `source` where an index has none.
        prefix: write the name before every patient's id, since two hospitals number their patients alike; False for
            archives of the same patients (RSNA with NIH), so that a leak between them is seen.

    Returns:
        The checked index, in the order of the mapping.

    Raises:
        ValueError: as `check_index` does.
    """
    parts = []
    for name, index in indexes.items():
        part = index if "source" in index else index.assign(source=name)
        parts.append(part.assign(patient_id=name + ":" + part["patient_id"]) if prefix else part)
    whole = pd.concat(parts, ignore_index=True)
    names = [*COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in whole)]
    return check_index(whole[[*names, *(name for name in whole if name not in names)]])


def write_index(index: pd.DataFrame, path: str | Path) -> Path:
    """Write an index as CSV, whole or not at all; paths below the file's folder are written relative to it.

    Text that spreadsheets would run, and names that are not UTF-8, are escaped (`names.escape`); `read_index` has the
    originals again.
    """
    path = Path(path)
    root = path.parent.absolute()
    return write_table(index.assign(image=[_relative(Path(name), root) for name in index["image"]]), path)


def _absolute(folder: Path, name: str) -> str:
    """Path of an image; backslashes of a table from Windows are folders where there is such a file."""
    path, other = (folder / name).absolute(), (folder / name.replace("\\", "/")).absolute()
    return str(other if "\\" in name and not path.is_file() and other.is_file() else path)


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
