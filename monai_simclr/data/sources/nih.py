"""NIH ChestX-ray14: the publisher's tables and lists to an image index; pixels are not touched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.index import check_images_exist, check_index
from monai_simclr.findings import NIH14, parse_findings

__all__ = ["find_nih_table", "read_nih"]

_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv.gz", "Data_Entry_2017.csv.gz")
_NEEDED = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
_VAL_SHARE = 0.125


def find_nih_table(folder: str | Path) -> Path | None:
    """The Data_Entry table of an NIH folder, the newer one first; None if there is none."""
    return next((Path(folder) / name for name in _TABLES if (Path(folder) / name).is_file()), None)


def read_nih(folder: str | Path, check_files: bool = True) -> pd.DataFrame:
    """Image index of an NIH folder.

    Args:
        folder: with ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv`` (or ``.csv.gz``), the official lists
            ``train_val_list.txt`` and ``test_list.txt`` (or ``..._NIH.txt``), and the images in ``images/`` or in
            ``images_001/images/`` to ``images_012/images/``.
        check_files: whether every image of the table must be there.

    Returns:
        The index. The official test list is the test split; one patient in eight of the official train_val list is val,
        chosen by a hash of the patient's number, so that it never changes. Without lists `split` is "".

    Raises:
        FileNotFoundError: if there is no table, or an image is missing.
        ValueError: if the table lacks a column, or names an unknown finding (says the row).
    """
    path = find_nih_table(folder)
    if path is None:
        raise FileNotFoundError(f"there is no Data_Entry_2017_v2020.csv in {folder}; see the NIH page of the docs")
    table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    missing = [name for name in _NEEDED if name not in table]
    if missing:
        raise ValueError(f"{path.name} lacks the columns {missing}; it has {list(table.columns)}")
    age = pd.to_numeric(table["Patient Age"].str.rstrip("YyMmDd"), errors="coerce").astype(float)
    index = pd.DataFrame({
        "image": _paths(Path(folder), table["Image Index"]),
        "patient_id": table["Patient ID"],
        "study_id": table["Patient ID"] + "_" + table.get("Follow-up #", pd.Series("", index=table.index)),
        "view_position": table["View Position"],
        "sex": table["Patient Gender"],
        "age": age.where(age <= 100, np.nan),
        "split": _splits(Path(folder), table),
    })  # fmt: skip
    index[list(NIH14)] = _labels(path, table["Finding Labels"])
    index = check_index(index)
    if check_files:
        check_images_exist(index)
    return index


def _labels(path: Path, texts: pd.Series) -> np.ndarray:
    read: dict[str, list[float]] = {}
    for row, text in enumerate(texts):
        if text not in read:
            try:
                read[text] = list(parse_findings(text).values())
            except ValueError as error:
                raise ValueError(f"{path.name}, row {row + 2}: {error}") from error
    return np.array([read[text] for text in texts])


def _paths(folder: Path, names: pd.Series) -> list[str]:
    folders = [folder / "images", *(path / "images" for path in sorted(folder.glob("images_0*")))]
    where = {path.name: str(path.absolute()) for one in folders if one.is_dir() for path in one.iterdir()}
    return [where.get(name, str((folder / "images" / name).absolute())) for name in names]


def _splits(folder: Path, table: pd.DataFrame) -> np.ndarray:
    lists = {name: _list(folder, name) for name in ("train_val", "test")}
    if not any(lists.values()):
        return np.full(len(table), "")
    held_out = table["Patient ID"].map({patient: _is_val(patient) for patient in table["Patient ID"].unique()})
    in_test, in_train = table["Image Index"].isin(lists["test"]), table["Image Index"].isin(lists["train_val"])
    return np.where(in_test, "test", np.where(in_train, np.where(held_out, "val", "train"), ""))


def _list(folder: Path, name: str) -> set[str]:
    for path in (folder / f"{name}_list.txt", folder / f"{name}_list_NIH.txt"):
        if path.is_file():
            return set(path.read_text(encoding="utf-8").split())
    return set()


def _is_val(patient: str) -> bool:
    return int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) / 2**32 < _VAL_SHARE
