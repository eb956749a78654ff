"""Say what a folder is, and read it as an image index."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from monai_simclr.data.index import COLUMNS, check_images_exist, check_index, read_index
from monai_simclr.data.listing import list_files
from monai_simclr.data.options import SourceOptions, source_options
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
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import read_csv_header

logger = logging.getLogger("monai_simclr.data")


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
        options: see `monai_simclr.data.SourceOptions`.

    Returns:
        The index; ``attrs`` says what it was taken for ("recognised") and what was left out ("left_out", by reason).

    Raises:
        FileNotFoundError: if the folder is missing, empty, or nothing that we know, or images are missing.
        ValueError: if what it holds is not a sound index (says where), or an option is not the source's.
    """
    chosen = source_options(options)
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


def _recognise(path: Path, options: SourceOptions) -> tuple[Source, str]:
    name = shown(path)
    if path.is_file() and path.suffix != ".npz":
        if options.columns:
            return Source("a table", recognise_image_folder, read_table), "a map of its columns was given"
        return _OURS, f"{shown(path.name)} is a CSV file"
    if not path.is_dir() and not path.is_file():
        raise FileNotFoundError(f"there is no folder {name}; pass --dataset_dir with the archive's folder")
    if path.is_dir() and not any(path.iterdir()):
        raise FileNotFoundError(f"the folder {name} is empty; pass --dataset_dir with the archive's folder")
    index, ours = path / "index.csv", _is_ours(path / "index.csv")
    if ours:
        return _OURS, "it has an index.csv"
    for source in SOURCES:
        why = source.recognise(path)
        if why:
            if index.is_file():
                logger.warning(f"{name}: its index.csv has no column of ours, so it is left aside")
            return source, why
    if index.is_file():
        return _OURS, "it has an index.csv"
    raise FileNotFoundError(
        f"{name} holds no index.csv, no table of {', '.join(source.name for source in SOURCES[:6])}, no DICOM file and "
        f"no image; it {_what_lies_in(path)}; see docs/how-to/own-dicom-archive.md"
    )


def _what_lies_in(path: Path) -> str:
    """Files by their suffix, and what no file list has (links to nothing, folders that cannot be opened)."""
    if not path.is_dir():
        return "is a file of another kind"
    found = list_files(path)
    kinds = Counter(shown(one.suffix.lower()) or "no suffix" for one in found.paths)
    said = [f"{count} files with {kind}" for kind, count in kinds.most_common(5)]
    said += [f"{count} {reason}" for reason, count in found.counts().items()]
    return f"holds {', '.join(said) or 'nothing that is not hidden'}"


def _is_ours(file: Path) -> bool:
    """Whether a file called index.csv is an index, sound or not: another program's may lie beside its images."""
    if not file.is_file():
        return False
    names = read_csv_header(file)
    return not names or "image" in names or len(set(names) & set(COLUMNS)) > 2


def _read_ours(path: str | Path) -> pd.DataFrame:
    file = Path(path) / "index.csv" if Path(path).is_dir() else Path(path)
    try:
        return read_index(file, check=False)
    except ValueError as error:
        if "lacks the columns" not in str(error):
            raise
        raise ValueError(
            f"{error}; for a table of another form give columns={{'image': ..., 'patient_id': ...}}, from "
            f"any of {list(COLUMNS)} to the file's own columns"
        ) from error


_OURS = Source("an index of ours", recognise_image_folder, _read_ours)


def _say(index: pd.DataFrame, path: Path, source: Source, why: str) -> None:
    logger.info(
        f"{shown(path)}: {why}; read as {source.name}: {len(index)} images of {index['patient_id'].nunique()} patients"
    )
    views = index["view_position"].value_counts()
    laterals = int(views.get("LL", 0))
    if laterals and laterals < len(index):
        logger.warning(f"{laterals} of {len(index)} images are laterals; keep frontal ones with views=('PA', 'AP')")
