"""MIMIC-CXR-JPG: three tables, joined on their keys, to an image index; pixels are not touched."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.findings import CHEXPERT14, canonical_finding
from monai_simclr.data.index import coerce_index
from monai_simclr.data.sources.tables import find_table, read_text_table
from monai_simclr.data.sources.uncertain import check_choice, plain_labels
from monai_simclr.data.sources.wording import view_positions

logger = logging.getLogger("monai_simclr.data")

_IMAGE = ["dicom_id", "study_id", "subject_id"]
_STUDY = ["subject_id", "study_id"]
_SPLITS = {"train": "train", "validate": "val", "test": "test", "": ""}
_LABELERS = ("chexpert", "negbio")


def recognise_mimic(folder: Path) -> str:
    table = find_table(folder, "mimic-cxr-2*-metadata.csv")
    return f"it has {table.name}, so it is a MIMIC-CXR-JPG folder" if table else ""


def read_mimic(
    folder: str | Path, uncertain: str = "ignore", blank: str = "zeros", labeler: str = "chexpert"
) -> pd.DataFrame:
    """Image index of a MIMIC-CXR-JPG folder (Johnson et al., PhysioNet, version 2).

    Labels belong to a study, and every image of the study gets them. Splits are joined on dicom_id, study_id and
    subject_id. The JPEG files were histogram-equalised by the publisher, so they look unlike DICOM files rendered here:
    the log says so.

    Args:
        folder: with ``mimic-cxr-2.0.0-metadata.csv.gz`` (or 2.1.0, or not compressed), ``...-split.csv.gz``,
            ``...-chexpert.csv.gz`` or ``...-negbio.csv.gz``, and ``files/p10/p10000032/s50414267/<dicom_id>.jpg``.
        uncertain: what -1 becomes: "ignore" (NaN), "zeros", "ones" or "smoothed" (0.7, train rows only).
        blank: what a finding that the report does not mention becomes: "zeros" or "ignore" (NaN). A study that is not
            in the table of labels has NaN throughout, whatever the policy.
        labeler: which program read the reports, "chexpert" or "negbio".

    Returns:
        The index, with 13 findings; sex and age are unknown (they are in MIMIC-IV).

    Raises:
        FileNotFoundError: if a table is missing.
        ValueError: if a table lacks a column, a key stands twice, or a policy, split or label is unknown.
    """
    check_choice("labeler", labeler, _LABELERS)
    images = _table(folder, "metadata", [*_IMAGE, "ViewPosition"], _IMAGE)[[*_IMAGE, "ViewPosition"]]
    splits = _table(folder, "split", [*_IMAGE, "split"], _IMAGE)
    studies = _table(folder, labeler, [*_STUDY, "No Finding", "Pleural Effusion"], _STUDY)
    images = images.merge(splits, on=_IMAGE, how="left").fillna("")
    unknown = sorted(set(images["split"].str.lower()) - set(_SPLITS))
    if unknown:
        raise ValueError(f"the split table has the splits {unknown}; known are {sorted(_SPLITS)[1:]}")
    images = images.merge(studies.assign(labelled="yes"), on=_STUDY, how="left").fillna("")
    split = images["split"].str.lower().map(_SPLITS).to_numpy(dtype=str)
    index = pd.DataFrame(
        {
            "image": _paths(Path(folder), images),
            "patient_id": images["subject_id"],
            "study_id": images["study_id"],
            "view_position": view_positions(images["ViewPosition"]),
            "sex": "",
            "age": np.nan,
            "split": split,
        }
    )
    labels = images[[name for name in studies.columns if canonical_finding(name) in CHEXPERT14]]
    labels = plain_labels(labels.rename(columns=canonical_finding), split == "train", uncertain, blank)
    labels.loc[(images["labelled"] != "yes").to_numpy()] = np.nan
    logger.info(f"MIMIC-CXR-JPG: labels of {labeler}, uncertain read as {uncertain!r}, blanks as {blank!r}")
    logger.warning("MIMIC-CXR-JPG files are histogram-equalised: do not mix them with images rendered from DICOM")
    return coerce_index(pd.concat([index, labels], axis=1))


def _table(folder: str | Path, kind: str, needed: list[str], key: list[str]) -> pd.DataFrame:
    path = find_table(folder, f"mimic-cxr-2*-{kind}.csv")
    if path is None:
        raise FileNotFoundError(f"there is no mimic-cxr-2.*-{kind}.csv.gz in {folder}; the labels need every table")
    table = read_text_table(path, needed)
    twice = np.flatnonzero(table.duplicated(key))
    if len(twice):
        raise ValueError(f"{path.name}, row {twice[0] + 2}: the same {' and '.join(key)} stand in an earlier row")
    return table


def _paths(folder: Path, images: pd.DataFrame) -> list[str]:
    root = folder.absolute() / "files"
    rows = zip(images["subject_id"], images["study_id"], images["dicom_id"], strict=True)
    return [
        str(root / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{name}.jpg") for subject, study, name in rows
    ]
