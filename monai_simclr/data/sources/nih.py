"""NIH ChestX-ray14: the publisher's tables and lists to an image index; pixels are not touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.findings import NIH14, canonical_finding, parse_findings
from monai_simclr.data.index import coerce_index
from monai_simclr.data.sources.identity import split_test_patients
from monai_simclr.data.sources.tables import base_name, find_table, locate, read_text_table
from monai_simclr.data.sources.wording import ages, sexes, view_positions
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import read_text

_NEEDED = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")


def find_nih_table(folder: str | Path) -> Path | None:
    """The Data_Entry table of an NIH folder, the newer one first; None if there is none."""
    return find_table(folder, "Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")


def recognise_nih(folder: Path) -> str:
    table = find_nih_table(folder)
    return f"it has {table.name}, so it is an NIH ChestX-ray14 folder" if table else ""


def read_nih(folder: str | Path) -> pd.DataFrame:
    """Image index of an NIH folder (Wang et al., CVPR 2017).

    Args:
        folder: with ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv`` (or ``.csv.gz``), the official lists
            ``train_val_list.txt`` and ``test_list.txt`` (or ``..._NIH.txt``), and the images in ``images/`` or in
            ``images_001/images/`` to ``images_012/images/``.

    Returns:
        The index. The official test list is the test split; one patient in eight of the official train_val list is val,
        chosen by a hash of the patient's number, so that it never changes. Without lists `split` is "".

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if the table lacks a column, or names an unknown finding (says the row).
    """
    path = find_nih_table(folder)
    if path is None:
        raise FileNotFoundError(f"there is no Data_Entry_2017_v2020.csv in {folder}; see docs/how-to/nih.md")
    table = read_text_table(path, _NEEDED)
    index = pd.DataFrame(
        {
            "image": locate(_folders(Path(folder)), table["Image Index"]),
            "patient_id": table["Patient ID"],
            "study_id": table["Patient ID"] + "_" + table.get("Follow-up #", pd.Series("", index=table.index)),
            "view_position": view_positions(table["View Position"]),
            "sex": sexes(table["Patient Gender"]),
            "age": ages(table["Patient Age"]),
            "split": _splits(Path(folder), table),
        }
    )
    index[list(NIH14)] = _labels(path, table["Finding Labels"])
    return coerce_index(index)


def read_nih_boxes(folder: str | Path) -> pd.DataFrame:
    """The boxes that radiologists drew: ``BBox_List_2017.csv``. All of their images are in the official test list.

    Returns:
        One row a box: `image` (the file's name), `finding`, and `left, top, width, height` in pixels of the 1024 x 1024
        images, from the upper left corner. "Infiltrate" is called Infiltration, as in the labels.

    Raises:
        FileNotFoundError: if there is no list.
        ValueError: if a line does not have a name, a finding and four numbers.
    """
    path = find_table(folder, "BBox_List_2017.csv")
    if path is None:
        raise FileNotFoundError(f"there is no BBox_List_2017.csv in {folder}")
    # The header "Bbox [x,y,w,h],,," splits at its own commas, so columns go by their place.
    table = read_text_table(path, ["Image Index", "Finding Label"]).iloc[:, :6]
    table.columns = pd.Index(["image", "finding", "left", "top", "width", "height"])
    numbers = table.iloc[:, 2:].apply(pd.to_numeric, errors="coerce")
    if numbers.isna().to_numpy().any():
        row = int(np.flatnonzero(numbers.isna().any(axis=1))[0])
        raise ValueError(f"{path.name}, row {row + 2}: a box needs four numbers, got {table.iloc[row, 2:].tolist()}")
    return pd.concat([table["image"].map(base_name), table["finding"].map(canonical_finding), numbers], axis=1)


def _labels(path: Path, texts: pd.Series) -> np.ndarray:
    read: dict[str, list[float]] = {}
    for row, text in enumerate(texts):
        if text not in read:
            try:
                read[text] = list(parse_findings(text).values())
            except ValueError as error:
                raise ValueError(f"{path.name}, row {row + 2}: {error}") from error
    return np.array([read[text] for text in texts])


def _folders(folder: Path) -> list[Path]:
    return [folder / "images", *(path / "images" for path in sorted(folder.glob("images_0*")))]


def _splits(folder: Path, table: pd.DataFrame) -> np.ndarray:
    lists = {name: _list(folder, name) for name in ("train_val", "test")}
    if not any(lists.values()):
        return np.full(len(table), "")
    held_out, names = split_test_patients(table["Patient ID"]), table["Image Index"].map(base_name)
    in_test, in_train = names.isin(lists["test"]), names.isin(lists["train_val"])
    if not (in_test | in_train).any():
        raise ValueError(
            f"the official lists in {shown(folder)} name none of the {len(table)} images of the table (the first is "
            f"{shown(names.iloc[0])}); are they lists of file names, one a line?"
        )
    return np.where(in_test, "test", np.where(in_train, np.where(held_out, "val", "train"), ""))


def _list(folder: Path, name: str) -> set[str]:
    for path in (folder / f"{name}_list.txt", folder / f"{name}_list_NIH.txt"):
        if path.is_file():
            return {base_name(line) for line in read_text(path).splitlines()} - {""}
    return set()
