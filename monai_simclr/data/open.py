"""Recognise what a folder is, and read it as an image index."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from monai_simclr.data.columns import MissingColumnsError, logger
from monai_simclr.data.index import COLUMNS, check_images_exist, check_index, read_index
from monai_simclr.data.listing import list_files
from monai_simclr.data.sources.base import Source
from monai_simclr.data.sources.chexpert import CHEXPERT
from monai_simclr.data.sources.dicom_tree import DICOM_TREE
from monai_simclr.data.sources.folder import CLASS_FOLDERS, IMAGE_FOLDER
from monai_simclr.data.sources.medmnist import MEDMNIST
from monai_simclr.data.sources.mimic import MIMIC
from monai_simclr.data.sources.nih import NIH
from monai_simclr.data.sources.padchest import PADCHEST
from monai_simclr.data.sources.rsna import RSNA
from monai_simclr.data.sources.table import read_table
from monai_simclr.data.sources.vindr import VINDR
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import read_csv_header

SOURCES: tuple[Source, ...] = (
    NIH,
    CHEXPERT,
    MIMIC,
    PADCHEST,
    VINDR,
    RSNA,
    MEDMNIST,
    DICOM_TREE,
    CLASS_FOLDERS,
    IMAGE_FOLDER,
)
"""In the order in which they are tried: publishers' tables first, then kinds of files."""


@dataclass(frozen=True)
class SourceOptions:
    """Options of `open_index`; one that the archive's source does not have is an error, never ignored.

    Attributes:
        uncertain: what uncertain labels become (CheXpert, MIMIC, VinDr): "ignore", "zeros", "ones", "smoothed".
        blank: what findings that a report does not mention become (CheXpert, MIMIC): "zeros", "ignore".
        labeler: whose labels: "chexpert" or "negbio" (MIMIC), "all" or "physician" (PadChest).
        min_votes: how many readers must agree (VinDr).
        findings: what to label (PadChest, a table with `columns`).
        columns: from our columns to those of a CSV file (a table).
        patient_pattern: regular expression whose first group is the patient in a file's name (archives without ids).
        views: keep only these view positions (every source), as ("PA", "AP").
        engine: what reads headers (every source, those that read none too), see
            `monai_simclr.runtime.cluster.open_executor`.
    """

    uncertain: str | None = None
    blank: str | None = None
    labeler: str | None = None
    min_votes: int | None = None
    findings: Sequence[str] | None = None
    columns: Mapping[str, str] | None = None
    patient_pattern: str | None = None
    views: Sequence[str] | None = None
    engine: str | None = None


_OPTIONS = tuple(field.name for field in fields(SourceOptions))


def _check_options(options: Mapping[str, Any]) -> None:
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ValueError(f"there is no option {unknown} of a source; known are {sorted(_OPTIONS)}")


def options_from_text(texts: Sequence[str]) -> dict[str, Any]:
    """Options from ``NAME=VALUE`` texts: lists are joined by commas, columns are ``ours:theirs`` joined by commas.

    Raises:
        ValueError: if a text is not of that form (shows it).

    Example:
        >>> options_from_text(["uncertain=ones", "views=PA,AP", "columns=image:file,patient_id:pid", "min_votes=3"])
        {'uncertain': 'ones', 'views': ('PA', 'AP'), 'columns': {'image': 'file', 'patient_id': 'pid'}, 'min_votes': 3}
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise ValueError(f"an option is NAME=VALUE, as uncertain=ones; got {text!r}")
        options[name] = value
        if name in ("findings", "views"):
            options[name] = tuple(part.strip() for part in value.split(",") if part.strip())
        elif name == "columns":
            pairs = [part.partition(":") for part in value.split(",")]
            if not all(all(pair) for pair in pairs):
                raise ValueError(
                    f"columns are ours:theirs joined by commas, as image:file,patient_id:pid; got {value!r}"
                )
            options[name] = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
        elif name == "min_votes":
            if not value.isdigit():
                raise ValueError(f"min_votes must be a whole number, got {value!r}")
            options[name] = int(value)
    _check_options(options)
    return options


def open_index(dataset_dir: str | Path, *, check: bool = True, **options: Any) -> pd.DataFrame:
    """Image index of an archive of any kind; the log says how it was recognised.

    Args:
        dataset_dir: an ``index.csv`` of ours or its folder; a folder of NIH, CheXpert, MIMIC-CXR-JPG, PadChest,
            VinDr-CXR or RSNA pneumonia; ``chestmnist*.npz`` or ``pneumoniamnist*.npz``; a tree of DICOM files; folders
            of classes; a folder of images; or, with ``columns``, any CSV file.
        check: False returns the table as it is, valid or not and with or without its images, for the audit.
        options: see `monai_simclr.data.SourceOptions`.

    Returns:
        The index; ``attrs`` has how it was recognised ("recognised") and what was excluded ("excluded", by reason).

    Raises:
        FileNotFoundError: if the folder is missing, empty, or of no known kind, or images are missing.
        ValueError: if it is not a valid index (says where), or an option is not the source's.
    """
    _check_options(options)
    given = {name: value for name, value in options.items() if value is not None}
    views, engine = tuple(given.pop("views", ())), given.pop("engine", "")
    path = Path(dataset_dir)
    source, reason = _recognise(path, has_columns=bool(given.get("columns")))
    known = set(inspect.signature(source.read).parameters) & set(_OPTIONS)
    if "engine" in known:
        given["engine"] = engine
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(
            f"the archive was read as {source.name}, which has no option {unknown}; it takes "
            f"{sorted(known | {'views', 'engine'})}"
        )
    index = source.read(path, **given)
    excluded = dict(index.attrs.get("excluded", {}))
    if views:
        kept = index["view_position"].isin(views)
        excluded[f"views other than {', '.join(views)}"] = int((~kept).sum())
        index = index[kept].reset_index(drop=True)
    if check:
        index = check_index(index)
        if not int(os.environ.get("RANK", 0)):  # of a job of several ranks the first one looks
            check_images_exist(index, source.hint)
    index.attrs.update(recognised=f"{source.name}: {reason}", excluded=excluded)
    patients, laterals = index["patient_id"].nunique(), int((index["view_position"] == "LL").sum())
    logger.info(f"{shown(path)}: {reason}; read as {source.name}: {len(index)} images of {patients} patients")
    if 0 < laterals < len(index):
        logger.warning(f"{laterals} of {len(index)} images are laterals; keep frontal ones with views=('PA', 'AP')")
    return index


def _recognise(path: Path, has_columns: bool) -> tuple[Source, str]:
    """The source of an archive, and why it was recognised."""
    name = shown(path)
    if path.is_file() and path.suffix != ".npz":
        return (
            (_TABLE, "a map of its columns was given") if has_columns else (_INDEX, f"{shown(path.name)} is a CSV file")
        )
    if not path.is_dir() and not path.is_file():
        raise FileNotFoundError(f"there is no folder {name}; pass --dataset_dir with the archive's folder")
    if path.is_dir() and not any(path.iterdir()):
        raise FileNotFoundError(f"the folder {name} is empty; pass --dataset_dir with the archive's folder")
    index = path / "index.csv"
    columns = read_csv_header(index) if index.is_file() else []
    foreign = bool(columns) and "image" not in columns and len(set(columns) & set(COLUMNS)) < 3
    if index.is_file() and not foreign:
        return _INDEX, "it has an index.csv"
    for source in SOURCES:
        reason = source.recognise(path)
        if reason:
            if foreign:
                logger.warning(f"{name}: its index.csv has no column of ours, so it is ignored")
            return source, reason
    if foreign:
        return _INDEX, "it has an index.csv"
    raise FileNotFoundError(
        f"{name} has no index.csv, no table of {', '.join(source.name for source in SOURCES[:6])}, no DICOM file and "
        f"no image; it {_describe(path)}; see docs/how-to/own-dicom-archive.md"
    )


def _describe(path: Path) -> str:
    """Files by their suffix, and what is not listed as a file (links to nothing, folders that cannot be opened)."""
    if not path.is_dir():
        return "is a file of another kind"
    listing = list_files(path)
    kinds = Counter(shown(file.suffix.lower()) or "no suffix" for file in listing.paths)
    parts = [f"{count} files with {kind}" for kind, count in kinds.most_common(5)]
    parts += [f"{count} {reason}" for reason, count in listing.counts().items()]
    return f"contains {', '.join(parts) or 'only hidden files'}"


def _read_index(path: Path) -> pd.DataFrame:
    file = path / "index.csv" if path.is_dir() else path
    try:
        return read_index(file, check=False)
    except MissingColumnsError as error:
        raise ValueError(
            f"{error}; for a table of another form give columns={{'image': ..., 'patient_id': ...}}, from any of "
            f"{list(COLUMNS)} to the file's own columns"
        ) from error


_INDEX = Source("an index of ours", lambda folder: "", _read_index)
_TABLE = Source("a table", lambda folder: "", read_table)
