"""Files to images, one item a file; what cannot be read, or should not be decided, becomes an item that says why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_simclr.data.formats.dicom_header import read_header
from monai_simclr.data.formats.dicom_tags import get_text
from monai_simclr.data.formats.exam import read_exam
from monai_simclr.data.listing import describe_excluded, list_files
from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.data.radiograph import RadiographError, describe_problem, quiet_libraries
from monai_simclr.inference.journal import file_stamp
from monai_simclr.ops import chest_scores
from monai_simclr.runtime.names import shown

logger = logging.getLogger("monai_simclr")

_HASHED = {"patient_hash": "PatientID", "study_hash": "StudyInstanceUID", "sop_instance_hash": "SOPInstanceUID"}


class InferenceDataset(Dataset):
    """One item a file, whatever the file is.

    Args:
        data: records with the file's path under ``"image"``.
        transform: dictionary transform from a path to a float image ``(1, H, W)``.
        size: side of the images in pixels, for the place of those that could not be read.
        key: of the hashes that stand for patient, study and image.
        errors: exceptions that mean "this file cannot be read"; others are raised.

    An item is ``{"image": float32 (1, size, size), "row": int, "reason": str, "about": dict, "chest": bool}``; `reason`
    is empty when all went well, and never has the file's name in it; `about` is what `identity_of` gives, and the
    file's stamp; `chest` says whether the pixels show an upright chest (`ops.chest_scores`).
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[dict[str, Any]], dict[str, Any]],
        size: int,
        key: str = "",
        errors: tuple[type[Exception], ...] = (ValueError, OSError, RuntimeError),
    ) -> None:
        self.data, self.transform, self.size, self.key, self.errors = list(data), transform, size, key, errors

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> dict[str, Any]:
        path = self.data[row]["image"]
        item = {"row": row, "reason": "", "about": identity_of(path, self.key), "chest": False}
        try:
            image: Tensor = torch.as_tensor(self.transform({"image": path})["image"])
        except self.errors as error:
            return {**item, "image": torch.zeros(1, self.size, self.size), "reason": describe_problem(error)}
        return {**item, "image": image, "chest": bool(chest_scores(image[None])[0] >= 0)}


def identity_of(path: str | Path, key: str) -> dict[str, str]:
    """What a row says of a file: hashes under a key instead of names, its view, and what its header speaks against.

    Args:
        path: any file; only DICOM has more than a hash of its path and a stamp.
        key: of the hashes.

    Returns:
        `file_hash`, `stamp`, `patient_hash`, `study_hash`, `sop_instance_hash`, `view_position` as in an index, and
        `flags`: "lateral" and "not a chest" as `read_exam` finds them in the header, joined by ";".
    """
    about = {"file_hash": keyed_hash(key, str(Path(path).absolute())), "stamp": "", **dict.fromkeys(_HASHED, "")}
    about |= {"view_position": "", "flags": ""}
    try:
        about["stamp"] = file_stamp(path)
        with quiet_libraries():
            return about | _said(read_header(path)[0], key)
    except (OSError, RadiographError):  # the reader will say why, in its row
        return about


def _said(header: pydicom.Dataset, key: str) -> dict[str, str]:
    names = {name: get_text(header, tag) for name, tag in _HASHED.items()}
    patient, exam = names["patient_hash"], read_exam(header)
    names["patient_hash"] = f"{get_text(header, 'IssuerOfPatientID')}:{patient}" if patient else ""
    flags = ["lateral"] if exam.view.beam == "lateral" else []
    flags += ["not a chest"] if exam.part == "other" else []
    hashes = {name: keyed_hash(key, value) if value else "" for name, value in names.items()}
    return {**hashes, "view_position": exam.view.position, "flags": ";".join(flags)}


def list_radiographs(folder: str | Path | Sequence[str | Path], empty: bool = False) -> list[dict[str, str]]:
    """Every file below a folder, in order of its path, as records ``{"image": path}``; or the files that are named.

    Nothing is left out by its name: what is no radiograph says so when it is read. Hidden files and folders are not
    listed. Links are followed as `list_files` does; links that lead to what is listed already, or to nothing, are
    counted in the log.

    Args:
        folder: a folder, a file, or several of them.
        empty: a folder may have no files, as one that is watched.

    Raises:
        FileNotFoundError: if there is no such folder, the path is empty, or no file is in it unless it may be empty.
    """
    if not isinstance(folder, (str, Path)):
        return [record for one in folder for record in list_radiographs(one, empty)]
    if str(folder) == "":  # Path("") is the current folder
        raise FileNotFoundError("the path of the radiographs is empty; pass --dataset_dir with their folder")
    folder = Path(folder)
    if folder.is_file():
        return [{"image": str(folder)}]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {shown(folder)}; pass --dataset_dir with the folder of radiographs"
        )
    found = list_files(folder)
    if found.excluded:
        _warn_once(describe_excluded(found.excluded, folder))
    if not found.paths and not empty:
        raise FileNotFoundError(
            f"the folder {shown(folder)} has no files; pass --dataset_dir with the folder of radiographs"
        )
    return [{"image": str(path)} for path in found.paths]


@cache
def _warn_once(sentence: str) -> None:
    """A folder that is watched is listed again and again."""
    logger.warning(sentence)
