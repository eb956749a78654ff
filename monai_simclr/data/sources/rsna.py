"""RSNA Pneumonia Detection Challenge: one row per box to an image index; pixels are not read."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from monai_simclr.data.columns import check_rows, logger
from monai_simclr.data.nih_names import nih_patient
from monai_simclr.data.sources import base
from monai_simclr.runtime.tables import read_text

_TABLE = "stage_2_train_labels.csv"
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def read_rsna(folder: str | Path, patient_pattern: str = "") -> pd.DataFrame:
    """Image index of an RSNA Pneumonia Detection folder (Shih et al., Radiology: Artificial Intelligence 2019).

    **These are images of NIH ChestX-ray14.** An encoder that was pretrained on NIH has seen them, so they are not an
    external test of it; the log says so. `patientId` in the table is an image's id, not a patient's.

    Args:
        folder: with ``stage_2_train_labels.csv`` (a row per box) and ``stage_2_train_images/``. With RSNA's
            ``pneumonia-challenge-dataset-mappings_2018.json`` next to them, patients are called as in `read_nih`: an
            index of both archives shows who is in both.
        patient_pattern: regular expression for the patient in an image's id. Without it and without the mapping every
            image counts as a patient of its own, and the log says so.

    Returns:
        The index, with the finding Pneumonia: 1 where radiologists drew a box (lung opacity suspicious for pneumonia),
        else 0. No splits, views, sexes or ages: they are in the DICOM headers.
    """
    folder = Path(folder)
    table, file = base.read_publisher_table(folder, _TABLE, needed=["patientId", "Target"])
    check_rows(table["Target"].isin(["0", "1"]), "Target must be 0 or 1", file, table["Target"])
    target = table.groupby("patientId", sort=True)["Target"].max().astype(float)
    names = list(target.index)
    logger.warning(
        "RSNA pneumonia images ARE NIH ChestX-ray14 images: they are not an external test of an encoder that was "
        "pretrained on NIH, and an index of both has the same picture twice"
    )
    mapping = folder / _MAPPING
    if mapping.is_file() and not patient_pattern:
        try:
            rows = json.loads(read_text(mapping))
            known = {row["subset_img_id"]: nih_patient(row["img_id"].split("_")[0]) for row in rows}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{mapping.name} does not list subset_img_id and img_id: {error}") from error
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"{mapping.name} does not have {len(missing)} of the images, the first is {missing[0]}")
        patients = [known[name] for name in names]
    else:
        patients = base.patients_by_name(names, patient_pattern, "RSNA pneumonia")
    return base.make_index(
        pd.DataFrame({"Pneumonia": target}),
        image=base.locate([folder / "stage_2_train_images"], names, (".dcm", ".png", ".jpg")),
        patient_id=patients,
    )


RSNA = base.Source(
    "RSNA pneumonia",
    lambda folder: base.has_table(folder, _TABLE),
    read_rsna,
    "the folder stage_2_train_images/ belongs next to the table",
)
