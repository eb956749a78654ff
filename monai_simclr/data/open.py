"""Say what a folder is, and read it as an image index."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from monai_simclr.data.index import check_images_exist, read_index
from monai_simclr.data.sources.dicom_tree import holds_dicom, read_dicom_tree
from monai_simclr.data.sources.folder import IMAGE_SUFFIXES, read_image_folder
from monai_simclr.data.sources.nih import find_nih_table, read_nih

__all__ = ["open_index"]

logger = logging.getLogger("monai_simclr.data")


def open_index(dataset_dir: str | Path) -> pd.DataFrame:
    """Image index of an archive, whatever its form; the log says what it was taken for and why.

    Args:
        dataset_dir: an ``index.csv`` of ours or the folder it lies in, an NIH folder, a tree of DICOM files, or a
            folder of
            images.

    Raises:
        FileNotFoundError: if the folder is missing, empty, or nothing that we know.
        ValueError: if what it holds is not a sound index (says where).
    """
    path = Path(dataset_dir)
    if path.is_file():
        return _named(read_index(path), f"{path} is a CSV file, read as an image index")
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}; pass --dataset_dir with the archive's folder")
    if not any(path.iterdir()):
        raise FileNotFoundError(f"the folder {path} is empty; pass --dataset_dir with the archive's folder")
    if (path / "index.csv").is_file():
        return _named(read_index(path / "index.csv"), f"{path} has an index.csv")
    table = find_nih_table(path)
    if table is not None:
        return _named(read_nih(path), f"{path} has {table.name}, so it is an NIH ChestX-ray14 folder")
    if holds_dicom(path):
        return _named(read_dicom_tree(path), f"{path} holds DICOM files")
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*")):
        return _named(read_image_folder(path), f"{path} holds images and no table")
    raise FileNotFoundError(f"{path} holds no index.csv, NIH table, DICOM file or image; see the docs on archives")


def _named(index: pd.DataFrame, what: str) -> pd.DataFrame:
    check_images_exist(index)
    logger.info(f"{what}: {len(index)} images of {index['patient_id'].nunique()} patients")
    return index
