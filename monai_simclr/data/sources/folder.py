"""A folder of images without a table, with or without folders for classes and splits: paths to an image index."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.index import settle_index
from monai_simclr.data.sources.identity import patients_by_name
from monai_simclr.findings import NO_FINDING, canonical_finding

__all__ = ["IMAGE_SUFFIXES", "read_class_folders", "read_image_folder", "recognise_class_folders",
           "recognise_image_folder"]  # fmt: skip

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
           "testing": "test"}  # fmt: skip


def recognise_class_folders(folder: Path) -> str:
    """Images in folders ``CLASS/`` or ``SPLIT/CLASS/`` with two classes or more, and none elsewhere."""
    places = {path.relative_to(folder).parts[:-1] for path in _images(folder)}
    if not places or any(len(place) not in (1, 2) for place in places):
        return ""
    if any(len(place) == 2 and place[0].lower() not in _SPLITS for place in places):
        return ""
    classes = sorted({place[-1] for place in places} - set(_SPLITS))
    named = NO_FINDING in {canonical_finding(name) for name in classes}
    depth = len({len(place) for place in places}) == 1
    deep = all(len(place) == 2 for place in places)
    if len(classes) < 2 or not depth or not (named or deep):
        return ""
    return f"its images lie in folders that are classes: {', '.join(classes[:5])}"


def recognise_image_folder(folder: Path) -> str:
    return "it holds images and no table" if _images(folder) else ""


def read_class_folders(folder: str | Path, patient_pattern: str = "") -> pd.DataFrame:
    """Image index of ``CLASS/...`` or ``SPLIT/CLASS/...``, as Kermany's chest_xray is.

    Every class becomes a finding that is 1 in its folder and 0 in the others; "NORMAL", "No Finding" and the like are
    no finding. A folder called train, val or test (or valid, validation, training, testing) is a split.

    Args:
        folder: of the folders.
        patient_pattern: regular expression whose first group is the patient in a file's name, as ``r"(person\\d+)"``.
            Without it every image counts as a patient of its own, and the log says so.

    Raises:
        FileNotFoundError: if there is no image.
        ValueError: if the pattern does not match a file's name, or an image lies in no class.
    """
    folder = Path(folder)
    index = _paths_to_index(folder, patient_pattern)
    places = [Path(path).relative_to(folder.absolute()).parts[:-1] for path in index["image"]]
    if not all(places):
        raise ValueError(f"an image lies in {folder} itself, in no class; put it into the folder of its class")
    index["split"] = [_SPLITS.get(place[0].lower(), "") if len(place) > 1 else "" for place in places]
    classes = pd.Series([canonical_finding(place[-1]) for place in places])
    for name in sorted(set(classes) - {NO_FINDING}):
        index[name] = (classes == name).astype(float)
    return settle_index(index)


def read_image_folder(folder: str | Path, patient_pattern: str = "") -> pd.DataFrame:
    """Image index of every PNG, JPEG and TIFF file below a folder: no labels, no splits.

    Args:
        folder: where the images are.
        patient_pattern: regular expression whose first group is the patient in a file's name, as ``r"^(\\d+)_"``.
            Without it every image counts as a patient of its own, and the log says so: splits may then leak.

    Raises:
        FileNotFoundError: if there is no image.
        ValueError: if the pattern does not match a file's name.
    """
    return settle_index(_paths_to_index(Path(folder), patient_pattern))


def _paths_to_index(folder: Path, pattern: str) -> pd.DataFrame:
    paths = _images(folder)
    if not paths:
        raise FileNotFoundError(f"there are no images ({', '.join(IMAGE_SUFFIXES)}) below {folder}")
    # With a pattern, a name; without one the whole path, since "0.png" may lie in several folders.
    names = [path.name if pattern else path.relative_to(folder).as_posix() for path in paths]
    return pd.DataFrame({
        "image": [str(path.absolute()) for path in paths],
        "patient_id": patients_by_name(names, pattern, str(folder)), "study_id": "", "view_position": "", "sex": "",
        "age": np.nan, "split": "",
    })  # fmt: skip


def _images(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in names if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != "."]
    return sorted(found)
