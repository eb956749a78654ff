"""VinDr-CXR (PhysioNet or Kaggle): several readers' votes to an image index; pixels are not touched."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.findings import NO_FINDING, canonical_finding
from monai_simclr.data.index import coerce_index
from monai_simclr.data.sources.identity import patients_by_name, split_test_patients
from monai_simclr.data.sources.tables import find_table, locate, read_text_table
from monai_simclr.data.sources.uncertain import UNCERTAIN, check_choice
from monai_simclr.runtime.tables import read_csv_header

logger = logging.getLogger("monai_simclr.data")

_PHYSIONET = ("annotations/image_labels_{}.csv", "image_labels_{}.csv")
_KAGGLE = ("image_id", "class_name", "class_id", "rad_id")
_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg")


def recognise_vindr(folder: Path) -> str:
    table = find_table(folder, *(name.format("train") for name in _PHYSIONET))
    if table is not None:
        return f"it has {table.name}, so it is a VinDr-CXR folder of PhysioNet"
    train = find_table(folder, "train.csv")
    if train is not None and set(_KAGGLE) <= set(read_csv_header(train)):
        return "its train.csv has readers and classes, so it is a VinDr-CXR folder of Kaggle"
    return ""


def read_vindr(
    folder: str | Path, min_votes: int = 2, uncertain: str = "zeros", patient_pattern: str = ""
) -> pd.DataFrame:
    """Image index of a VinDr-CXR folder (Nguyen et al., Scientific Data 2022).

    Three readers looked at every train image. A finding is 1 when at least `min_votes` of them saw it, 0 when none
    did, and uncertain between; of the findings that anyone saw, 43 % were seen by one reader only. Test images
    (PhysioNet) have one row, five readers' consensus.

    Args:
        folder: with ``annotations/image_labels_train.csv`` and ``..._test.csv`` (PhysioNet; the folder or its parent
            holds ``train/`` and ``test/``), or Kaggle's ``train.csv`` and ``train/``.
        min_votes: readers that must agree.
        uncertain: what a finding seen by fewer becomes: "zeros" (the vote is lost), "ignore" (NaN), "ones" (any vote
            counts), "smoothed" (the share of readers that saw it; train rows only, NaN in val).
        patient_pattern: regular expression for the patient in an image's id. The publisher does not name patients:
            without it every image counts as its own, and the log says so.

    Returns:
        The index: all views are PA; one train image in eight is val, by a hash of its id; PhysioNet's test is test.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if it lacks a column, or a policy or vote is unknown.
    """
    check_choice("uncertain", uncertain, UNCERTAIN)
    if min_votes < 1:
        raise ValueError(f"min_votes must be at least 1, got {min_votes}")
    votes = _physionet(Path(folder)) or _kaggle(Path(folder))
    parts = []
    for part, (seen, readers) in votes.items():
        patients = patients_by_name(list(seen.index), patient_pattern, f"VinDr-CXR ({part})")
        split = (
            np.where(split_test_patients(patients), "val", "train") if part == "train" else np.full(len(seen), "test")
        )
        needed = min_votes if part == "train" else 1  # test rows are a consensus already
        labels = _labels(seen, readers, needed, uncertain, split == "train")
        rows = pd.DataFrame(
            {
                "image": locate([Path(folder) / part, Path(folder).parent / part], pd.Series(seen.index), _SUFFIXES),
                "patient_id": patients,
                "study_id": "",
                "view_position": "PA",
                "sex": "",
                "age": np.nan,
                "split": split,
            }
        )
        parts.append(pd.concat([rows, labels.reset_index(drop=True)], axis=1))
    logger.info(f"VinDr-CXR: a finding needs {min_votes} readers, one that fewer saw is read as {uncertain!r}")
    return coerce_index(pd.concat(parts, ignore_index=True))


_Votes = tuple[pd.DataFrame, pd.Series]


def _physionet(folder: Path) -> dict[str, _Votes]:
    """By part: readers that saw each finding, one row an image; and how many readers looked."""
    votes = {}
    for part in ("train", "test"):
        path = find_table(folder, *(name.format(part) for name in _PHYSIONET))
        if path is None:
            continue
        table = read_text_table(path, ["image_id", "No finding"])
        reader = [name for name in table.columns if str(name).lower() == "rad_id"]
        seen = table.drop(columns=["image_id", *reader]).apply(pd.to_numeric, errors="coerce")
        bad = np.flatnonzero(~seen.isin([0, 1]).all(axis=1))
        if len(bad):
            raise ValueError(f"{path.name}, row {bad[0] + 2}: a vote must be 1 or 0")
        groups = _named(seen).groupby(table["image_id"], sort=True)
        votes[part] = (groups.sum(), groups.size())
    return votes


def _kaggle(folder: Path) -> dict[str, _Votes]:
    path = find_table(folder, "train.csv")
    if path is None:
        raise FileNotFoundError(f"there is no image_labels_train.csv and no train.csv in {folder}")
    table = read_text_table(path, _KAGGLE)
    marks = table[["image_id", "class_name", "rad_id"]].drop_duplicates()
    seen = pd.crosstab(marks["image_id"], marks["class_name"])
    readers = table.groupby("image_id", sort=True)["rad_id"].nunique()
    return {"train": (_named(seen), readers)}


def _named(seen: pd.DataFrame) -> pd.DataFrame:
    seen = seen.rename(columns=canonical_finding)
    return seen.drop(columns=[NO_FINDING], errors="ignore")


def _labels(seen: pd.DataFrame, readers: pd.Series, min_votes: int, uncertain: str, train: np.ndarray) -> pd.DataFrame:
    votes, total = seen.to_numpy(dtype=float), readers.to_numpy(dtype=float)[:, None]
    between = (votes > 0) & (votes < min_votes)
    value = {"zeros": 0.0, "ignore": np.nan, "ones": 1.0, "smoothed": np.nan}[uncertain]
    labels = np.where(between, value, np.where(votes >= min_votes, 1.0, 0.0))
    if uncertain == "smoothed":
        labels = np.where(between & train[:, None], votes / total, labels)
    return pd.DataFrame(labels, columns=seen.columns)
