"""The image index: a table with one row per image, and its checks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.columns import (
    check_ages,
    check_columns,
    check_labels,
    check_rows,
    check_splits,
    sexes,
    view_positions,
    warn_of_unknown,
)
from monai_simclr.data.findings import NO_FINDING, check_no_code
from monai_simclr.data.nih_names import is_nih_patient
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import hold_odd_names, read_cells, unescaped_text, write_table

COLUMNS = ("image", "patient_id", "study_id", "view_position", "sex", "age", "split")
OPTIONAL_COLUMNS = ("source", "manufacturer", "lung_mask")
"""Every other column of an index holds the labels of a finding."""


def finding_columns(index: pd.DataFrame) -> tuple[str, ...]:
    """Names of the label columns: all that are neither in `COLUMNS` nor in `OPTIONAL_COLUMNS`."""
    return tuple(name for name in index.columns if name not in {*COLUMNS, *OPTIONAL_COLUMNS})


def coerce_index(index: pd.DataFrame, file: str = "") -> pd.DataFrame:
    """Convert the types and words of an index without checking it: what sources return, and the audit reads.

    Words of other programs are replaced: "valid" by "val", "lateral" by "LL", "male" by "M", "060Y" by 60. Text is str
    ("" is unknown), ids have no blanks around them, `age` is in years (NaN is unknown), labels are from 0 to 1 or NaN.

    Args:
        index: a table with `COLUMNS`, any of `OPTIONAL_COLUMNS`, and one column per finding.
        file: name of the file it was read from, for messages.

    Raises:
        ValueError: if a column is missing or repeated, there are no rows, or a split, an age or a label is not known
            (names column and row).
    """
    where = f"{shown(file)}: " if file else ""
    check_columns(list(index.columns), COLUMNS, f"{where}the index")
    if not len(index):
        raise ValueError(f"{where}the index has no rows; is this the right folder?")
    index = index.reset_index(drop=True)
    text = [name for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in index and name != "age"]
    index[text] = index[text].astype(object).fillna("").astype(str)
    for name in ("patient_id", "study_id"):
        index[name] = index[name].str.strip()  # "P1 " is "P1", or one patient would be in two splits
    for name, convert, kind in (("view_position", view_positions, "view positions"), ("sex", sexes, "sexes")):
        converted = convert(index[name])
        warn_of_unknown(index[name], converted, kind, file)
        index[name] = converted
    index["age"], index["split"] = check_ages(index["age"], file), check_splits(index["split"], file)
    for name in finding_columns(index):
        index[name] = check_labels(index[name], file)
    return index


def check_index(index: pd.DataFrame) -> pd.DataFrame:
    """Convert an index with `coerce_index`, and raise if it cannot be used for training and scoring.

    A label is 1, 0 or NaN (unknown). In train rows, and before there are splits, it may also lie between: a smoothed
    label of an uncertain finding, which a loss can use. Validation and test rows need plain labels.

    Raises:
        ValueError: as `coerce_index`; and if an image is repeated, a patient is in two splits, a patient_id is empty, a
            finding's name would run as code in a config, or a smoothed label is not for training (names the row).
    """
    index = coerce_index(index)
    repeated = index["image"][index["image"].duplicated()]
    if len(repeated):
        raise ValueError(
            f"{len(repeated)} images are in the index twice, the first is {shown(repeated.iloc[0])}; keep one row per "
            "image"
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
            f"{len(leaks)} patients are in more than one split, the first is {leaks[0]!r}; split by patient with "
            f"split_by_patient(){_about_no_split(index, leaks[0])}"
        )
    for name in finding_columns(index):
        smoothed = index["split"].isin(["val", "test"]) & (index[name] > 0) & (index[name] < 1)
        if smoothed.any():
            row = index[smoothed].iloc[0]
            raise ValueError(
                f"{name!r} has the smoothed label {row[name]:g} in row {row.name} of the {row['split']} split; "
                "smoothed labels are for training: split first, or read the archive with uncertain='ignore'"
            )
    return index


def _about_no_split(index: pd.DataFrame, patient: str) -> str:
    """What else to do for a patient who has images without a split."""
    alone = index["split"][index["patient_id"] == patient].eq("").any()
    remedy = (
        "; their images without a split count as train, since pretraining takes them: give these a split, or remove "
    )
    return f"{remedy}their rows" if alone else ""


def patients_in_several_splits(index: pd.DataFrame) -> list[str]:
    """Ids of patients with images in more than one split, sorted.

    An image without a split counts as train, since pretraining takes it: a patient may have others in train, not in
    validation or test. In an index without splits nobody is in two.

    Example:
        >>> index = pd.DataFrame({"patient_id": ["a", "a", "b", "b"], "split": ["", "train", "", "test"]})
        >>> patients_in_several_splits(index)
        ['b']
    """
    splits = effective_splits(index).groupby(index["patient_id"]).nunique()
    return [str(patient) for patient in splits.index[splits > 1]]


def effective_splits(index: pd.DataFrame) -> pd.Series:
    """The splits of an index as training sees them: an image without one is in train."""
    return index["split"].replace("", "train")


def unnamed_images(index: pd.DataFrame) -> int:
    """How many images have a patient called like their file, with or without suffix: nobody says who is on them.

    Readers give such names where an archive has none, and `combine_indexes` writes the archive's before them.

    Example:
        >>> image, patient = ["/a/b/1.png", "/a/2.dcm", "/a/3.png"], ["own:b/1.png", "2", "0003"]
        >>> unnamed_images(pd.DataFrame({"image": image, "patient_id": patient}))
        2
    """
    files = (path.replace(os.sep, "/").rpartition("/")[2].strip() for path in index["image"])
    names = (re.split("[/:]", name)[-1].strip() for name in index["patient_id"])
    return sum(name in (file, file.rpartition(".")[0].strip()) for name, file in zip(names, files, strict=True))


def image_classes(index: pd.DataFrame, several: str = "", unknown: str = "") -> np.ndarray:
    """Class of each image: its only positive finding, or "No Finding" if all labels are 0.

    Args:
        index: any table with one column per finding; see `finding_columns`.
        several: class of images with more than one positive finding.
        unknown: class of images with an unknown or smoothed label, and of all images of an index without labels.

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
    """Rows as dictionaries for MONAI's datasets: ``{"image": path, "row": int, "patient": int}``.

    `patient` numbers the patients. With `findings` there is ``"label"``, a list of K floats.

    Raises:
        ValueError: if the index has no labels of a finding.
    """
    unknown = [name for name in findings if name not in index]
    if unknown:
        raise ValueError(
            f"the index has no labels for {unknown}; it has {list(finding_columns(index))}; see --findings"
        )
    patients = pd.factorize(index["patient_id"])[0].tolist()
    rows: list[dict[str, Any]] = [
        {"image": str(image), "row": row, "patient": patient}
        for row, (image, patient) in enumerate(zip(index["image"], patients, strict=True))
    ]
    if findings:
        for record, labels in zip(rows, index[list(findings)].to_numpy(dtype=float).tolist(), strict=True):
            record["label"] = labels
    return rows


def check_images_exist(index: pd.DataFrame, hint: str = "is the archive unpacked there, whole?") -> None:
    """Raise `FileNotFoundError` with the count, the first name and a hint if images of an index are missing."""
    missing = [path for path in index["image"] if not os.path.isfile(path)]
    if missing:
        first = Path(missing[0])
        raise FileNotFoundError(
            f"{len(missing)} of {len(index)} images of the index are not in {shown(first.parent)}, the first is "
            f"{shown(first.name)}; {hint}"
        )


def read_index(path: str | Path, check: bool = True) -> pd.DataFrame:
    """Read and check an index that `write_index` wrote, or any CSV file with its columns.

    Everything is read as text first, so that patient "00123" is not patient "123". Relative paths start at the folder
    of the file. Words of other programs are converted as in `coerce_index`.

    Args:
        path: of the CSV file: UTF-8, or UTF-16 with a byte order mark.
        check: False only converts types, so that the audit can read an index that is not valid.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: as `check_index`; and if the file is not CSV, in another encoding, or was cut (names the file).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no index at {shown(path)}")
    table = read_cells(path)
    check_columns([*table.columns, *table.attrs.pop("repeated")], [], f"{shown(path.name)}: the index")
    table = unescaped_text(table)
    if "image" in table:
        check_rows(table["image"] != "", "the column 'image' is blank; remove the row", path.name)
        hold_odd_names([str(path)])
        table["image"] = [_image_path(path.parent, name) for name in table["image"]]
    table = coerce_index(table, path.name)
    return check_index(table) if check else table


def _image_path(folder: Path, name: str) -> str:
    """Absolute path of an image; backslashes of a table from Windows separate folders if that file exists."""
    path, windows = (folder / name).absolute(), (folder / name.replace("\\", "/")).absolute()
    return str(windows if "\\" in name and not path.is_file() and windows.is_file() else path)


def combine_indexes(indexes: Mapping[str, pd.DataFrame], prefix: bool = True) -> pd.DataFrame:
    """Join the indexes of several archives; findings that an archive does not label are unknown (NaN) there.

    Args:
        indexes: by the archive's name, which becomes `source` of an index without that column.
        prefix: write the archive's name before every patient_id, since two hospitals number their patients alike; not
            before those of NIH ChestX-ray14, which have names of their own (`nih_patient`). False for other archives of
            the same patients, so that leaks between them are found.

    Returns:
        The checked index, in the order of the mapping.

    Raises:
        ValueError: as `check_index`.
    """
    parts = []
    for name, index in indexes.items():
        part = coerce_index(index if "source" in index else index.assign(source=name))
        if prefix:
            own = part["patient_id"].map(is_nih_patient)
            part = part.assign(patient_id=part["patient_id"].where(own, name + ":" + part["patient_id"]))
        parts.append(part)
    whole = pd.concat(parts, ignore_index=True)
    names = [*COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in whole)]
    return check_index(whole[[*names, *(name for name in whole if name not in names)]])


def write_index(index: pd.DataFrame, path: str | Path) -> Path:
    """Write an index as CSV, atomically; paths below the file's folder are written relative to it.

    Text that spreadsheets would run, and names that are not UTF-8, are escaped (`names.escape`); `read_index` restores
    them.
    """
    path = Path(path)
    root, images = path.parent.absolute(), [Path(name) for name in index["image"]]
    names = [str(image.relative_to(root) if image.is_relative_to(root) else image) for image in images]
    return write_table(index.assign(image=names), path)
