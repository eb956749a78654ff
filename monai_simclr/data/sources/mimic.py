"""MIMIC-CXR-JPG: three tables, joined on their keys, to an image index; pixels are not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.columns import check_rows, check_splits, logger
from monai_simclr.data.sources import base

_IMAGE = ["dicom_id", "study_id", "subject_id"]
_STUDY = ["subject_id", "study_id"]


def read_mimic(
    folder: str | Path, uncertain: str = "ignore", blank: str = "zeros", labeler: str = "chexpert"
) -> pd.DataFrame:
    """Image index of a MIMIC-CXR-JPG folder (Johnson et al., PhysioNet, version 2).

    Labels belong to a study, and every image of the study gets them. Splits are joined on dicom_id, study_id and
    subject_id. The publisher equalised the histograms of the JPEG files, so they look unlike DICOM files rendered here:
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
    """
    base.check_choice("labeler", labeler, ("chexpert", "negbio"))
    images = _read_table(folder, "metadata", _IMAGE, ["ViewPosition"])
    splits = _read_table(folder, "split", _IMAGE, ["split"])
    studies = _read_table(folder, labeler, _STUDY, ["No Finding", "Pleural Effusion"])
    images = images[[*_IMAGE, "ViewPosition"]].merge(splits, on=_IMAGE, how="left")
    images = images.merge(studies.assign(labelled="yes"), on=_STUDY, how="left").fillna("")
    labels = base.chexpert_labels(images, (images["split"] == "train").to_numpy(), uncertain, blank)
    labels[images["labelled"] != "yes"] = np.nan
    logger.info(f"MIMIC-CXR-JPG: labels of {labeler}, uncertain read as {uncertain!r}, blanks as {blank!r}")
    logger.warning("MIMIC-CXR-JPG files are histogram-equalised: do not mix them with images rendered from DICOM")
    root = Path(folder).absolute() / "files"
    keys = zip(images["subject_id"], images["study_id"], images["dicom_id"], strict=True)
    return base.make_index(
        labels,
        image=[str(root / f"p{patient[:2]}/p{patient}/s{study}/{name}.jpg") for patient, study, name in keys],
        patient_id=images["subject_id"],
        study_id=images["study_id"],
        view_position=images["ViewPosition"],
        split=images["split"],
    )


def _read_table(folder: str | Path, kind: str, key: list[str], columns: list[str]) -> pd.DataFrame:
    """One of the tables, with a key that no two rows share."""
    table, file = base.read_publisher_table(
        folder, f"mimic-cxr-2.*-{kind}.csv", needed=[*key, *columns], hint="the labels need every table"
    )
    check_rows(~table.duplicated(key), f"the same {' and '.join(key)} are in an earlier row", file)
    return table.assign(split=check_splits(table["split"], file)) if "split" in columns else table


MIMIC = base.Source(
    "MIMIC-CXR-JPG",
    lambda folder: base.has_table(folder, "mimic-cxr-2.*-metadata.csv"),
    read_mimic,
    "the folder files/ belongs next to the tables",
)
