"""A folder of images without a table: paths to an image index."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.index import check_index

__all__ = ["IMAGE_SUFFIXES", "read_image_folder"]

logger = logging.getLogger("monai_simclr.data")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def read_image_folder(folder: str | Path, patient_pattern: str = "") -> pd.DataFrame:
    """Image index of every PNG, JPEG and TIFF file below a folder: no labels, no splits.

    Args:
        folder: where the images are.
        patient_pattern: regular expression whose first group is the patient in a file's name, as ``r"^(\\d+)_"``.
            Without it
            every image counts as a patient of its own, and the log says so: splits may then leak.

    Raises:
        FileNotFoundError: if there is no image.
        ValueError: if the pattern does not match a file's name.
    """
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"there are no images ({', '.join(IMAGE_SUFFIXES)}) below {folder}")
    if not patient_pattern:
        logger.warning(
            f"{folder} has no patient ids: every image counts as a patient of its own, so a split may "
            f"put one patient on both "
            "sides; give read_image_folder() a patient_pattern, or write an index.csv"
        )
    patients = [_patient(path, patient_pattern) for path in paths]
    return check_index(pd.DataFrame({
        "image": [str(path.absolute()) for path in paths], "patient_id": patients, "study_id": "", "view_position": "",
        "sex": "", "age": np.nan, "split": "",
    }))  # fmt: skip


def _patient(path: Path, pattern: str) -> str:
    if not pattern:
        return path.stem
    match = re.search(pattern, path.name)
    if match is None or not match.groups():
        raise ValueError(f"patient_pattern {pattern!r} finds no group in the file name {path.name!r}")
    return match.group(1)
