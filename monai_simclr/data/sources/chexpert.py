"""CheXpert (full or small): ``train.csv`` and ``valid.csv`` to an image index; pixels are not touched."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.columns import place as row_of
from monai_simclr.data.findings import CHEXPERT14, canonical_finding
from monai_simclr.data.index import coerce_index
from monai_simclr.data.sources.identity import split_test_patients
from monai_simclr.data.sources.tables import find_table, read_text_table
from monai_simclr.data.sources.uncertain import plain_labels
from monai_simclr.data.sources.wording import ages, sexes, view_positions
from monai_simclr.runtime.tables import read_csv_header

logger = logging.getLogger("monai_simclr.data")

_LABELS = ("No Finding", "Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
_PARTS = {"train": ("train.csv",), "valid": ("valid.csv",), "test": ("test.csv", "test_labels.csv")}
_PLACE = r"((?:train|valid|test)/(patient\d+)/(study\d+)/[^/]+)$"


def recognise_chexpert(folder: Path) -> str:
    train = find_table(folder, "train.csv")
    if train is None:
        return ""
    wanted = {"Path", "Frontal/Lateral", *_LABELS}
    return "its train.csv has CheXpert's columns" if wanted <= set(read_csv_header(train)) else ""


def read_chexpert(folder: str | Path, uncertain: str = "ignore", blank: str = "zeros") -> pd.DataFrame:
    """Image index of a CheXpert folder (Irvin et al., AAAI 2019).

    Args:
        folder: with ``train.csv``, ``valid.csv``, if it is there ``test.csv`` or ``test_labels.csv``, and the folders
            ``train/``, ``valid/``, ``test/``; whatever the prefix of the paths in the tables is.
        uncertain: what -1 becomes: "ignore" (NaN), "zeros", "ones" or "smoothed" (0.7, train rows only).
        blank: what a finding that the report does not mention becomes: "zeros", as the authors do, or "ignore" (NaN).

    Returns:
        The index, with 13 findings; "Pleural Effusion" is Effusion, laterals are "LL", age 0 is unknown. With a test
        table the publisher's three parts are the splits. Without one, valid.csv (labelled by radiologists) is the
        test split, and one train patient in eight is val, by a hash of the id. The log says which.

    Raises:
        FileNotFoundError: if there is no ``train.csv``.
        ValueError: if a table lacks a column, a path is not CheXpert's, or a policy or label is unknown.
    """
    parts = {part: find_table(folder, *names) for part, names in _PARTS.items()}
    if parts["train"] is None:
        raise FileNotFoundError(f"there is no train.csv in {folder}; see docs/how-to/chexpert.md")
    read = [_part(path) for path in parts.values() if path is not None]
    table = pd.concat([one for one, _ in read], ignore_index=True).fillna("")
    place = pd.concat([one for _, one in read], ignore_index=True)
    split = _splits(place, has_test=parts["test"] is not None)
    index = pd.DataFrame(
        {
            "image": [str((Path(folder) / path).absolute()) for path in place[0]],
            "patient_id": place[1],
            "study_id": place[1] + "_" + place[2],
            "view_position": _views(table, place[0]),
            "sex": sexes(_column(table, "Sex")),
            "age": ages(_column(table, "Age")).replace(0.0, np.nan),
            "split": split,
        }
    )
    labels = table[[name for name in table.columns if canonical_finding(name) in CHEXPERT14]]
    labels = plain_labels(labels.rename(columns=canonical_finding), split == "train", uncertain, blank)
    logger.info(f"CheXpert: uncertain labels are read as {uncertain!r}, blanks (not mentioned) as {blank!r}")
    return coerce_index(pd.concat([index, labels], axis=1))


def _part(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table, and its paths below the folder with patient and study, whatever stands before them."""
    table = read_text_table(path, ["Path", *_LABELS])
    place = table["Path"].str.strip().str.replace("\\", "/", regex=False).str.extract(_PLACE)
    bad = np.flatnonzero(place[0].isna())
    if len(bad):
        raise ValueError(
            f"{row_of(int(bad[0]), path.name)}: {table['Path'].iloc[bad[0]]!r} is no path of CheXpert's "
            "(train/patient00001/study1/...)"
        )
    return table, place


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    return table[name] if name in table else pd.Series("", index=table.index)


def _views(table: pd.DataFrame, paths: pd.Series) -> np.ndarray:
    lateral = (_column(table, "Frontal/Lateral") == "Lateral") | paths.str.contains("_lateral", regex=False)
    return np.where(lateral, "LL", view_positions(_column(table, "AP/PA")))


def _splits(place: pd.DataFrame, has_test: bool) -> np.ndarray:
    part = place[0].str.split("/").str[0].to_numpy()
    if has_test:
        return np.where(part == "valid", "val", part)
    logger.info("CheXpert: no test table, so valid.csv is the test split, and one train patient in eight is val")
    held_out = np.array(split_test_patients(place[1]))
    return np.where(part == "valid", "test", np.where(held_out, "val", "train"))
