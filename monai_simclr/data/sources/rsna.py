"""RSNA Pneumonia Detection Challenge: one row per box to an image index; pixels are not read."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.columns import describe_row
from monai_simclr.data.sources.base import (
    Source,
    has_table,
    locate,
    make_index,
    patients_by_name,
    read_publisher_table,
)
from monai_simclr.runtime.tables import read_text

logger = logging.getLogger("monai_simclr.data")

_TABLE = "stage_2_train_labels.csv"
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def read_rsna(folder: str | Path, patient_pattern: str = "") -> pd.DataFrame:
    """Image index of an RSNA Pneumonia Detection folder (Shih et al., Radiology: Artificial Intelligence 2019).

    **These are images of NIH ChestX-ray14.** An encoder that was pretrained on NIH has seen them, so they are not an
    external test of it; the log says so. `patientId` in the table is an image's id, not a patient's.

    Args:
        folder: with ``stage_2_train_labels.csv`` (a row per box) and ``stage_2_train_images/``. With RSNA's
            ``pneumonia-challenge-dataset-mappings_2018.json`` next to them, patients get NIH's own numbers, so that an
            index of both archives shows who is in both.
        patient_pattern: regular expression for the patient in an image's id. Without it and without the mapping every
            image counts as a patient of its own, and the log says so.

    Returns:
        The index, with the finding Pneumonia: 1 where radiologists drew a box (lung opacity suspicious for pneumonia),
        else 0. No splits, views, sexes or ages: they are in the DICOM headers.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if it lacks a column, a Target is not 0 or 1, or the mapping is not RSNA's.
    """
    folder = Path(folder)
    table, file = read_publisher_table(folder, _TABLE, needed=["patientId", "Target"])
    bad = np.flatnonzero(~table["Target"].isin(["0", "1"]))
    if len(bad):
        raise ValueError(
            f"{describe_row(int(bad[0]), file)}: Target must be 0 or 1, got {table['Target'].iloc[bad[0]]!r}"
        )
    target = table.groupby("patientId", sort=True)["Target"].max().astype(float)
    names = list(target.index)
    logger.warning(
        "RSNA pneumonia images ARE NIH ChestX-ray14 images: they are not an external test of an encoder that was "
        "pretrained on NIH, and an index of both has the same picture twice"
    )
    mapping = folder / _MAPPING
    if mapping.is_file() and not patient_pattern:
        patients = _nih_patients(mapping, names)
    else:
        patients = patients_by_name(names, patient_pattern, "RSNA pneumonia")
    return make_index(
        pd.DataFrame({"Pneumonia": target}),
        image=locate([folder / "stage_2_train_images"], names, (".dcm", ".png", ".jpg")),
        patient_id=patients,
    )


def _nih_patients(mapping: Path, names: list[str]) -> list[str]:
    """NIH's numbers of the patients on RSNA's images."""
    try:
        rows = json.loads(read_text(mapping))
        numbers = {row["subset_img_id"]: str(int(row["img_id"].split("_")[0])) for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{mapping.name} does not list subset_img_id and img_id: {error}") from error
    missing = [name for name in names if name not in numbers]
    if missing:
        raise ValueError(f"{mapping.name} does not have {len(missing)} of the images, the first is {missing[0]}")
    return [numbers[name] for name in names]


RSNA = Source(
    "RSNA pneumonia",
    lambda folder: has_table(folder, _TABLE),
    read_rsna,
    "the folder stage_2_train_images/ belongs next to the table",
)
