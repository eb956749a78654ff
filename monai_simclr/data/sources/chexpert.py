"""CheXpert (full or small): ``train.csv`` and ``valid.csv`` to an image index; pixels are not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.columns import ages, check_rows, logger
from monai_simclr.data.sources import base

_NEEDED = ("Path", "No Finding", "Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
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
    """
    present = {part for part, names in _TABLES.items() if part == "train" or base.find_table(folder, *names)}
    tables = []
    for part in (part for part in _TABLES if part in present):
        table, file = base.read_publisher_table(
            folder, *_TABLES[part], needed=_NEEDED, optional=_OPTIONAL, hint="see docs/how-to/chexpert.md"
        )
        places = table["Path"].str.strip().str.replace("\\", "/", regex=False).str.extract(_PATH)
        check_rows(places["path"].notna(), "a path must be as train/patient00001/study1/...", file, table["Path"])
        tables.append(pd.concat([table, places], axis=1))
    table = pd.concat(tables, ignore_index=True).fillna("")
    if "test" in present:
        split = table["part"].replace({"valid": "val"}).to_numpy(dtype=str)
    else:
        logger.info("CheXpert: no test table, so valid.csv is the test split, and one train patient in eight is val")
        split = np.where(table["patient"].map(base.is_val_patient), "val", "train")
        split = np.where(table["part"] == "valid", "test", split)
    labels = base.chexpert_labels(table, split == "train", uncertain, blank)
    logger.info(f"CheXpert: uncertain labels are read as {uncertain!r}, blanks (not mentioned) as {blank!r}")
    lateral = (table["Frontal/Lateral"] == "Lateral") | table["path"].str.contains("_lateral", regex=False)
    return base.make_index(
        labels,
        image=[str((Path(folder) / path).absolute()) for path in table["path"]],
        patient_id=table["patient"],
        study_id=table["patient"] + "_" + table["study"],
        view_position=np.where(lateral, "LL", table["AP/PA"]),
        sex=table["Sex"],
        age=ages(table["Age"]).replace(0.0, np.nan),
        split=split,
    )


CHEXPERT = base.Source(
    "CheXpert",
    lambda folder: base.has_table(folder, "train.csv", columns=("Frontal/Lateral", *_NEEDED), publisher="CheXpert"),
    read_chexpert,
    "the folders train/ and valid/ belong next to train.csv",
)
