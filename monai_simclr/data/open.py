"""Say what a folder is, and read it as an image index."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from monai_simclr.data.index import COLUMNS, check_images_exist, check_index, read_index
from monai_simclr.data.sources.chexpert import read_chexpert, recognise_chexpert
from monai_simclr.data.sources.dicom_tree import read_dicom_tree, recognise_dicom_tree
from monai_simclr.data.sources.folder import (
    read_class_folders,
    read_image_folder,
    recognise_class_folders,
    recognise_image_folder,
)
from monai_simclr.data.sources.medmnist import read_medmnist, recognise_medmnist
from monai_simclr.data.sources.mimic import read_mimic, recognise_mimic
from monai_simclr.data.sources.nih import read_nih, recognise_nih
from monai_simclr.data.sources.padchest import read_padchest, recognise_padchest
from monai_simclr.data.sources.rsna import read_rsna, recognise_rsna
from monai_simclr.data.sources.table import read_table
from monai_simclr.data.sources.vindr import read_vindr, recognise_vindr

__all__ = ["SOURCES", "Source", "SourceOptions", "open_index"]

logger = logging.getLogger("monai_simclr.data")


@dataclass(frozen=True)
class SourceOptions:
    """What a source may be told; an option that the archive's source does not know is an error, never ignored.

    Attributes:
        uncertain: what uncertain labels become (CheXpert, MIMIC, VinDr): "ignore", "zeros", "ones", "smoothed".
        blank: what findings that a report does not mention become (CheXpert, MIMIC): "zeros", "ignore".
        labeler: whose labels: "chexpert" or "negbio" (MIMIC), "all" or "physician" (PadChest).
        min_votes: how many readers must agree (VinDr).
        findings: what to label (PadChest, a table with `columns`).
        columns: from our columns to those of a CSV file (a table).
        patient_pattern: regular expression whose first group is the patient in a file's name (archives without ids).
        views: keep only these view positions (every source), as ("PA", "AP").
    """

    uncertain: str | None = None
    blank: str | None = None
    labeler: str | None = None
    min_votes: int | None = None
    findings: tuple[str, ...] | None = None
    columns: Mapping[str, str] | None = None
    patient_pattern: str | None = None
    views: tuple[str, ...] = field(default=())

    def of(self, read: Callable[..., pd.DataFrame], name: str) -> dict[str, Any]:
        """The options that were given, for a function that reads a source; `views` is everybody's.

        Raises:
            ValueError: if the function does not know one of them.
        """
        given = {option.name: getattr(self, option.name) for option in fields(self) if option.name != "views"}
        given = {option: value for option, value in given.items() if value is not None}
        known = set(inspect.signature(read).parameters)
        unknown = sorted(set(given) - known)
        if unknown:
            takes = sorted((known & {option.name for option in fields(self)}) | {"views"})
            raise ValueError(f"the archive was read as {name}, which has no option {unknown}; it takes {takes}")
        return given


@dataclass(frozen=True)
class Source:
    """A publisher's form: how to tell it (a reason, or ""), how to read it, and what to do when images are missing."""

    name: str
    recognise: Callable[[Path], str]
    read: Callable[..., pd.DataFrame]
    hint: str = "is the archive unpacked there, whole?"


SOURCES: tuple[Source, ...] = (
    Source("NIH ChestX-ray14", recognise_nih, read_nih, "NIH ships 12 archives: are all of them unpacked there?"),
    Source("CheXpert", recognise_chexpert, read_chexpert, "the folders train/ and valid/ belong beside train.csv"),
    Source("MIMIC-CXR-JPG", recognise_mimic, read_mimic, "the folder files/ belongs beside the tables"),
    Source(
        "PadChest", recognise_padchest, read_padchest, "PadChest ships 54 archives: are all of them unpacked there?"
    ),
    Source("VinDr-CXR", recognise_vindr, read_vindr, "the folders train/ and test/ belong beside the tables"),
    Source("RSNA pneumonia", recognise_rsna, read_rsna, "the folder stage_2_train_images/ belongs beside the table"),
    Source("MedMNIST", recognise_medmnist, read_medmnist),
    Source("DICOM files", recognise_dicom_tree, read_dicom_tree),
    Source("class folders", recognise_class_folders, read_class_folders),
    Source("a folder of images", recognise_image_folder, read_image_folder),
)
"""In the order in which they are tried: publishers' tables first, then what lies there."""


def open_index(dataset_dir: str | Path, *, check: bool = True, **options: Any) -> pd.DataFrame:
    """Image index of an archive, whatever its form; the log says what it was taken for and why.

    Args:
        dataset_dir: an ``index.csv`` of ours or the folder it lies in; a folder of NIH, CheXpert, MIMIC-CXR-JPG,
            PadChest, VinDr-CXR or RSNA pneumonia; ``chestmnist*.npz`` or ``pneumoniamnist*.npz``; a tree of DICOM
            files; folders of classes; a folder of images; or, with ``columns``, any CSV file.
        check: False gives the table as it is, sound or not and whether its images are there or not, for the audit.
        options: see `SourceOptions`.

    Returns:
        The index; ``attrs`` says what it was taken for ("recognised") and what was left out ("left_out", by reason).

    Raises:
        FileNotFoundError: if the folder is missing, empty, or nothing that we know, or images are missing.
        ValueError: if what it holds is not a sound index (says where), or an option is not the source's.
    """
    chosen = _options(options)
    path = Path(dataset_dir)
    source, why = _recognise(path, chosen)
    index = source.read(path, **chosen.of(source.read, source.name))
    left_out = dict(index.attrs.get("left_out", {}))
    if chosen.views:
        kept = index["view_position"].isin(chosen.views)
        left_out[f"views other than {', '.join(chosen.views)}"] = int((~kept).sum())
        index = index[kept].reset_index(drop=True)
    if check:
        index = check_index(index)
        check_images_exist(index, source.hint)
    index.attrs.update(recognised=f"{source.name}: {why}", left_out=left_out)
    _say(index, path, source, why)
    return index


def _options(options: Mapping[str, Any]) -> SourceOptions:
    known = {option.name for option in fields(SourceOptions)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"there is no option {unknown} of a source; known are {sorted(known)}")
    lists = {name: tuple(options[name]) for name in ("findings", "views") if options.get(name) is not None}
    return SourceOptions(**{**options, **lists})


def _recognise(path: Path, options: SourceOptions) -> tuple[Source, str]:
    if path.is_file() and path.suffix != ".npz":
        if options.columns:
            return Source("a table", recognise_image_folder, read_table), "a map of its columns was given"
        return Source("an index of ours", recognise_image_folder, _read_ours), f"{path.name} is a CSV file"
    if not path.is_dir() and not path.is_file():
        raise FileNotFoundError(f"there is no folder {path}; pass --dataset_dir with the archive's folder")
    if path.is_dir() and not any(path.iterdir()):
        raise FileNotFoundError(f"the folder {path} is empty; pass --dataset_dir with the archive's folder")
    if (path / "index.csv").is_file():
        return Source("an index of ours", recognise_image_folder, _read_ours), "it has an index.csv"
    for source in SOURCES:
        why = source.recognise(path)
        if why:
            return source, why
    raise FileNotFoundError(
        f"{path} holds no index.csv, no table of {', '.join(source.name for source in SOURCES[:6])}, no DICOM file and "
        "no image; see docs/how-to/own-dicom-archive.md"
    )


def _read_ours(path: str | Path) -> pd.DataFrame:
    file = Path(path) / "index.csv" if Path(path).is_dir() else Path(path)
    try:
        return read_index(file, check=False)
    except ValueError as error:
        if "lacks the columns" not in str(error):
            raise
        raise ValueError(
            f"{file.name}: {error}; for a table of another form give columns={{'image': ..., 'patient_id': ...}}, from "
            f"any of {list(COLUMNS)} to the file's own columns"
        ) from error


def _say(index: pd.DataFrame, path: Path, source: Source, why: str) -> None:
    logger.info(
        f"{path}: {why}; read as {source.name}: {len(index)} images of {index['patient_id'].nunique()} patients"
    )
    views = index["view_position"].value_counts()
    laterals = int(views.get("LL", 0))
    if laterals and laterals < len(index):
        logger.warning(f"{laterals} of {len(index)} images are laterals; keep frontal ones with views=('PA', 'AP')")
