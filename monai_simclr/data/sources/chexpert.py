"""CheXpert (full or small): ``train.csv`` and ``valid.csv`` to an image index; pixels are not read."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.columns import ages, describe_row
from monai_simclr.data.findings import CHEXPERT14, canonical_finding
from monai_simclr.data.sources.base import (
    Source,
    find_table,
    has_table,
    is_val_patient,
    make_index,
    read_publisher_table,
)
from monai_simclr.data.sources.uncertain import plain_labels

logger = logging.getLogger("monai_simclr.data")

_LABELS = ("No Finding", "Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
_OPTIONAL = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_TABLES = {"train": ("train.csv",), "valid": ("valid.csv",), "test": ("test.csv", "test_labels.csv")}
_PATH = r"(?P<path>(?P<part>train|valid|test)/(?P<patient>patient\d+)/(?P<study>study\d+)/[^/]+)$"


def read_chexpert(folder: str | Path, uncertain: str = "ignore", blank: str = "zeros") -> pd.DataFrame:
    """Image index of a CheXpert folder (Irvin et al., AAAI 2019).

    Args:
        folder: with ``train.csv``, ``valid.csv``, if available ``test.csv`` or ``test_labels.csv``, and the folders
            ``train/``, ``valid/``, ``test/``; the paths in the tables may have any prefix.
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
    present = {part for part, names in _TABLES.items() if part == "train" or find_table(folder, *names)}
    tables = []
    for part in (part for part in _TABLES if part in present):
        table, file = read_publisher_table(
            folder, *_TABLES[part], needed=("Path", *_LABELS), optional=_OPTIONAL, hint="see docs/how-to/chexpert.md"
        )
        places = table["Path"].str.strip().str.replace("\\", "/", regex=False).str.extract(_PATH)
        bad = np.flatnonzero(places["path"].isna())
        if len(bad):
            raise ValueError(
                f"{describe_row(int(bad[0]), file)}: {table['Path'].iloc[bad[0]]!r} is not a path of CheXpert's "
                "(train/patient00001/study1/...)"
            )
        tables.append(pd.concat([table, places], axis=1))
    table = pd.concat(tables, ignore_index=True).fillna("")
    if "test" in present:
        split = table["part"].replace({"valid": "val"}).to_numpy(dtype=str)
    else:
        logger.info("CheXpert: no test table, so valid.csv is the test split, and one train patient in eight is val")
        split = np.where(table["patient"].map(is_val_patient), "val", "train")
        split = np.where(table["part"] == "valid", "test", split)
    labels = table[[name for name in table.columns if canonical_finding(name) in CHEXPERT14]]
    labels = plain_labels(labels.rename(columns=canonical_finding), split == "train", uncertain, blank)
    logger.info(f"CheXpert: uncertain labels are read as {uncertain!r}, blanks (not mentioned) as {blank!r}")
    lateral = (table["Frontal/Lateral"] == "Lateral") | table["path"].str.contains("_lateral", regex=False)
    return make_index(
        labels,
        image=[str((Path(folder) / path).absolute()) for path in table["path"]],
        patient_id=table["patient"],
        study_id=table["patient"] + "_" + table["study"],
        view_position=np.where(lateral, "LL", table["AP/PA"]),
        sex=table["Sex"],
        age=ages(table["Age"]).replace(0.0, np.nan),
        split=split,
    )


CHEXPERT = Source(
    "CheXpert",
    lambda folder: has_table(folder, "train.csv", columns=("Path", "Frontal/Lateral", *_LABELS), publisher="CheXpert"),
    read_chexpert,
    "the folders train/ and valid/ belong next to train.csv",
)
