"""Files to images, one item per file; a file that cannot be read becomes an item that says why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_simclr.data.decoding import file_identity
from monai_simclr.data.formats.dicom_header import read_header
from monai_simclr.data.formats.dicom_tags import get_text, patient_name
from monai_simclr.data.formats.exam import read_exam
from monai_simclr.data.listing import describe_excluded, list_files
from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.data.radiograph import RadiographError, describe_problem, quiet_libraries
from monai_simclr.ops import chest_scores
from monai_simclr.runtime.names import shown

logger = logging.getLogger("monai_simclr")

_HASHED = ("patient_hash", "study_hash", "sop_instance_hash")


class InferenceDataset(Dataset):
    """One item per file, whatever the file is.

    Args:
        data: records with the file's path under ``"image"``, as `list_radiographs` and `find_radiographs` give them.
        transform: dictionary transform from a path to a float image ``(1, H, W)``.
        size: side of the images in pixels; an image that cannot be read is replaced by zeros.
        key: of the hashes that stand for patient, study and image.
        errors: exceptions that mean "this file cannot be read"; others are raised.

    An item is ``{"image": float32 (1, size, size), "row": int, "reason": str, "about": dict, "chest": bool}``; `reason`
    says why there is no image, without the file's name, and is empty otherwise; `about` is what `describe_file` gives;
    `chest` says whether the pixels show an upright chest (`ops.chest_scores`).
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
        if "absent" in self.data[row]:
            raise FileNotFoundError(self.data[row]["absent"])
        path = self.data[row]["image"]
        about = describe_file(path, self.key)
        item = {"row": row, "reason": "", "about": about, "chest": False}
        try:
            image: Tensor = torch.as_tensor(self.transform({"image": path})["image"])
            if file_stamp(file_identity(path)) != about["stamp"]:
                raise RadiographError("was changed or removed while it was read", path)
        except self.errors as error:
            return {**item, "image": torch.zeros(1, self.size, self.size), "reason": describe_problem(error)}
        return {**item, "image": image, "chest": bool(chest_scores(image[None])[0] >= 0)}


def describe_file(path: str | Path, key: str) -> dict[str, str]:
    """Describe a file without a name in it: keyed hashes, its view, and what its header says against a decision.

    Args:
        path: any file; only DICOM has more than a hash of its path and a stamp.
        key: of the hashes.

    Returns:
        `file_hash`, `stamp`, `patient_hash`, `study_hash`, `sop_instance_hash`, `view_position` as in an index, and
        `flags`: "lateral" and "not a chest" as `read_exam` finds them in the header, joined by ";".
    """
    about = identify_file(path, key)
    try:
        with quiet_libraries():
            header = read_header(path)[0]
            issuer, patient, study, image = (
                get_text(header, tag)
                for tag in ("IssuerOfPatientID", "PatientID", "StudyInstanceUID", "SOPInstanceUID")
            )
            exam = read_exam(header)
    except (OSError, RadiographError):  # the reader reports it, as the reason of the row
        return about
    ids = zip(_HASHED, (patient_name(issuer, patient), study, image), strict=True)
    about |= {name: keyed_hash(key, id) if id else "" for name, id in ids}
    flags = ["lateral"] * (exam.view.beam == "lateral") + ["not a chest"] * (exam.part == "other")
    return {**about, "view_position": exam.view.position, "flags": ";".join(flags)}


def identify_file(path: str | Path, key: str) -> dict[str, str]:
    """`describe_file` without opening it: its `file_hash` and `stamp`."""
    about = {"file_hash": keyed_hash(key, str(Path(path).absolute())), "stamp": file_stamp(file_identity(path))}
    return about | dict.fromkeys((*_HASHED, "view_position", "flags"), "")


def file_stamp(identity: tuple[int, int]) -> str:
    """Size and time of change of a file (`file_identity`) as text; "" for a file that cannot be looked at."""
    return "-".join(map(str, identity)) if identity[0] >= 0 else ""


def list_radiographs(
    dataset_dir: str | Path | Sequence[str | Path], may_be_empty: bool = False
) -> list[dict[str, str]]:
    """List every file below a folder, in order of its path, as records ``{"image": path}``; or the given files.

    Files are not selected by name: one that is not a radiograph is reported when it is read. Hidden files and folders
    are not listed. Links are followed as `list_files` does; links to files that are listed already, or to nothing, are
    counted in the log.

    Args:
        dataset_dir: a folder, a file, or several of them.
        may_be_empty: accept a folder without files, as one that is watched.

    Raises:
        FileNotFoundError: if there is no such folder, the path is empty, or no file is in the folder.
    """
    if not isinstance(dataset_dir, (str, Path)):
        return [record for path in dataset_dir for record in list_radiographs(path, may_be_empty)]
    if str(dataset_dir) == "":  # Path("") is the current folder
        raise FileNotFoundError("the path of the radiographs is empty; pass --dataset_dir with their folder")
    folder = Path(dataset_dir)
    if folder.is_file():
        return [{"image": str(folder)}]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {shown(folder)}; pass --dataset_dir with the folder of radiographs"
        )
    listed = list_files(folder)
    if listed.excluded:
        _warn_once(describe_excluded(listed.excluded, folder))
    if not listed.paths and not may_be_empty:
        raise FileNotFoundError(
            f"the folder {shown(folder)} has no files; pass --dataset_dir with the folder of radiographs"
        )
    return [{"image": str(path)} for path in listed.paths]


def find_radiographs(dataset_dir: str | Path | Sequence[str | Path]) -> list[dict[str, str]]:
    """`list_radiographs` for a bundle's config, which must build where no data are.

    Without files the only record raises the error when it is read: MONAI's engines skip an empty loader with a warning.
    """
    try:
        return list_radiographs(dataset_dir)
    except OSError as error:
        return [{"absent": str(error)}]


@cache
def _warn_once(message: str) -> None:
    """Log a warning once: a folder that is watched is listed again and again."""
    logger.warning(message)
