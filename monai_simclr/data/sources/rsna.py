"""RSNA Pneumonia Detection Challenge: box rows to an image index; pixels are not touched."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.index import coerce_index
from monai_simclr.data.sources.identity import patients_by_name
from monai_simclr.data.sources.tables import find_table, locate, read_text_table
from monai_simclr.runtime.tables import read_text

logger = logging.getLogger("monai_simclr.data")

_TABLE = "stage_2_train_labels.csv"
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def recognise_rsna(folder: Path) -> str:
    table = find_table(folder, _TABLE)
    return f"it has {table.name}, so it is an RSNA Pneumonia Detection folder" if table else ""


def read_rsna(folder: str | Path, patient_pattern: str = "") -> pd.DataFrame:
    """Image index of an RSNA Pneumonia Detection folder (Shih et al., Radiology: Artificial Intelligence 2019).

    **These are images of NIH ChestX-ray14.** An encoder that was pretrained on NIH has seen them, so testing it here
    is no external test; the log says so. `patientId` in the table is an image's id, not a patient's.

    Args:
        folder: with ``stage_2_train_labels.csv`` (several rows an image, one a box) and ``stage_2_train_images/``. With
            RSNA's ``pneumonia-challenge-dataset-mappings_2018.json`` beside them, patients get NIH's own numbers, so
            that an index of both archives shows who is in both.
        patient_pattern: regular expression for the patient in an image's id. Without it and without the mapping every
            image counts as a patient of its own, and the log says so.

    Returns:
        The index, with the finding Pneumonia: 1 where radiologists drew a box (lung opacity suspicious for pneumonia),
        else 0. No splits, views, sexes or ages: they are in the DICOM headers.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if it lacks a column, a Target is not 0 or 1, or the mapping is not RSNA's.
    """
    path = find_table(folder, _TABLE)
    if path is None:
        raise FileNotFoundError(f"there is no {_TABLE} in {folder}")
    table = read_text_table(path, ["patientId", "Target"])
    bad = np.flatnonzero(~table["Target"].isin(["0", "1"]))
    if len(bad):
        raise ValueError(f"{path.name}, row {bad[0] + 2}: Target must be 0 or 1, got {table['Target'].iloc[bad[0]]!r}")
    target = table.groupby("patientId", sort=True)["Target"].max()
    names = list(target.index)
    logger.warning(
        "RSNA pneumonia images ARE NIH ChestX-ray14 images: they are no external test of an encoder that was "
        "pretrained on NIH, and in one index with NIH the same picture stands twice"
    )
    mapping = Path(folder) / _MAPPING
    found = mapping.is_file() and not patient_pattern
    patients = _nih_patients(mapping, names) if found else patients_by_name(names, patient_pattern, "RSNA pneumonia")
    return coerce_index(
        pd.DataFrame(
            {
                "image": locate([Path(folder) / "stage_2_train_images"], pd.Series(names), (".dcm", ".png", ".jpg")),
                "patient_id": patients,
                "study_id": "",
                "view_position": "",
                "sex": "",
                "age": np.nan,
                "split": "",
                "Pneumonia": target.to_numpy(dtype=float),
            }
        )
    )


def _nih_patients(mapping: Path, names: list[str]) -> list[str]:
    try:
        rows = json.loads(read_text(mapping))
        numbers = {row["subset_img_id"]: str(int(row["img_id"].split("_")[0])) for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{mapping.name} does not list subset_img_id and img_id: {error}") from error
    missing = [name for name in names if name not in numbers]
    if missing:
        raise ValueError(f"{mapping.name} does not have {len(missing)} of the images, the first is {missing[0]}")
    return [numbers[name] for name in names]
