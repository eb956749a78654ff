"""VinDr-CXR (PhysioNet or Kaggle): several readers' votes to an image index; pixels are not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.columns import check_rows, logger
from monai_simclr.data.findings import NO_FINDING, canonical_finding
from monai_simclr.data.sources import base

_PHYSIONET = {part: (f"annotations/image_labels_{part}.csv", f"image_labels_{part}.csv") for part in ("train", "test")}
_KAGGLE = ("image_id", "class_name", "class_id", "rad_id")


def read_vindr(
    folder: str | Path, min_votes: int = 2, uncertain: str = "zeros", patient_pattern: str = ""
) -> pd.DataFrame:
    """Image index of a VinDr-CXR folder (Nguyen et al., Scientific Data 2022).

    Three readers looked at every train image. A finding is 1 if at least `min_votes` of them saw it, 0 if none did, and
    uncertain between; of the findings that anyone saw, 43 % were seen by one reader only. Test images (PhysioNet) have
    one row, five readers' consensus.

    Args:
        folder: with ``annotations/image_labels_train.csv`` and ``..._test.csv`` (PhysioNet; the folder or its parent
            has ``train/`` and ``test/``), or Kaggle's ``train.csv`` and ``train/``.
        min_votes: readers that must agree.
        uncertain: what a finding seen by fewer becomes: "zeros" (the vote is lost), "ignore" (NaN), "ones" (any vote
            counts), "smoothed" (the share of readers that saw it; train rows only, NaN in val).
        patient_pattern: regular expression for the patient in an image's id. The publisher does not name patients:
            without it every image counts as its own, and the log says so.

    Returns:
        The index: all views are PA; one train image in eight is val, by a hash of its id; PhysioNet's test is test.
    """
    base.check_choice("uncertain", uncertain, base.UNCERTAIN)
    if min_votes < 1:
        raise ValueError(f"min_votes must be at least 1, got {min_votes}")
    folder = Path(folder)
    parts, labels = [], []
    for part, (seen, readers) in _read_votes(folder).items():
        patients = pd.Series(base.patients_by_name(list(seen.index), patient_pattern, f"VinDr-CXR ({part})"))
        held_out = patients.map(base.is_val_patient) if part == "train" else pd.Series(False, index=patients.index)
        images = base.locate([folder / part, folder.parent / part], seen.index, (".dicom", ".dcm", ".png", ".jpg"))
        parts.append(pd.DataFrame({"image": images, "patient_id": patients, "split": np.where(held_out, "val", part)}))
        seen = seen.rename(columns=canonical_finding).drop(columns=NO_FINDING, errors="ignore").reset_index(drop=True)
        share = seen.div(readers.to_numpy(), axis=0)
        between = (seen > 0) & (seen < (min_votes if part == "train" else 1))  # test rows are a consensus already
        value = {"zeros": 0.0, "ignore": np.nan, "ones": 1.0, "smoothed": np.nan}[uncertain]
        decided = (seen > 0).astype(float).mask(between, value)
        if uncertain == "smoothed" and part == "train":
            decided = decided.mask(between & ~held_out.to_numpy(dtype=bool)[:, None], share)
        labels.append(decided)
    logger.info(f"VinDr-CXR: a finding needs {min_votes} readers, one that fewer saw is read as {uncertain!r}")
    index = pd.concat(parts, ignore_index=True)
    columns = {str(name): column for name, column in index.items()}
    return base.make_index(pd.concat(labels, ignore_index=True), view_position="PA", **columns)


def _read_votes(folder: Path) -> dict[str, tuple[pd.DataFrame, pd.Series]]:
    """By part: how many readers saw each finding, one row per image, and how many readers looked at each image."""
    votes = {}
    for part, names in _PHYSIONET.items():
        if base.find_table(folder, *names):
            table, file = base.read_publisher_table(folder, *names, needed=["image_id", "No finding"])
            reader = [name for name in table.columns if str(name).lower() == "rad_id"]
            seen = table.drop(columns=["image_id", *reader]).apply(pd.to_numeric, errors="coerce")
            check_rows(seen.isin([0, 1]).all(axis=1), "a vote must be 1 or 0", file)
            images = seen.groupby(table["image_id"], sort=True)
            votes[part] = (images.sum(), images.size())
    if not votes:
        hint = "nor image_labels_train.csv"
        table, _ = base.read_publisher_table(folder, "train.csv", needed=_KAGGLE, hint=hint)
        marks = table[["image_id", "class_name", "rad_id"]].drop_duplicates()
        seen = pd.crosstab(marks["image_id"], marks["class_name"])
        votes["train"] = (seen, table.groupby("image_id", sort=True)["rad_id"].nunique())
    return votes


VINDR = base.Source(
    "VinDr-CXR",
    lambda folder: (
        base.has_table(folder, *_PHYSIONET["train"])
        or base.has_table(folder, "train.csv", columns=_KAGGLE, publisher="Kaggle's VinDr-CXR")
    ),
    read_vindr,
    "the folders train/ and test/ belong next to the tables",
)
