"""PadChest: the publisher's table to an image index; pixels are not read."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.columns import logger, map_values
from monai_simclr.data.sources import base

LABELS: dict[str, list[str]] = {
    finding: labels.split(", ")
    for finding, labels in {
        "Atelectasis": "atelectasis, total atelectasis, lobar atelectasis, segmental atelectasis, "
        "laminar atelectasis, round atelectasis, atelectasis basal",
        "Cardiomegaly": "cardiomegaly",
        "Effusion": "pleural effusion, loculated pleural effusion, loculated fissural effusion, hydropneumothorax",
        "Infiltration": "infiltrates, interstitial pattern, ground glass pattern, reticular interstitial pattern, "
        "reticulonodular interstitial pattern, miliary opacities, alveolar pattern, consolidation, air bronchogram",
        "Mass": "pulmonary mass",
        "Nodule": "nodule, multiple nodules",
        "Pneumonia": "pneumonia, atypical pneumonia",
        "Pneumothorax": "pneumothorax, hydropneumothorax",
        "Consolidation": "consolidation",
        "Edema": "pulmonary edema",
        "Emphysema": "emphysema",
        "Fibrosis": "pulmonary fibrosis",
        "Pleural_Thickening": "pleural thickening, apical pleural thickening, calcified pleural thickening",
        "Hernia": "hiatal hernia",
    }.items()
}
"""PadChest's labels (of 174) for each of NIH's findings: the label and its children in the authors' tree.

Labels are compared whole, never in part: "subcutaneous emphysema" is not Emphysema, "tube" is in "NSG tube"."""

_TABLE = "PADCHEST_chest_x_ray_images_labels_160K*.csv"
_COLUMNS = ("ImageID", "StudyID", "PatientID", "Projection", "Labels")
_DICOM = ("PatientSex_DICOM", "Manufacturer_DICOM", "StudyDate_DICOM", "PhotometricInterpretation_DICOM")
_UNINFORMATIVE = {"exclude", "unchanged", "suboptimal study"}


def read_padchest(folder: str | Path, findings: Sequence[str] = (), labeler: str = "all") -> pd.DataFrame:
    """Image index of a PadChest folder (Bustos et al., Medical Image Analysis 2020).

    The files are 16-bit PNG as the detector stored them; those whose row is MONOCHROME1 show dense tissue dark, and the
    log counts them, because a PNG cannot record it (``audit --pixels`` finds them by their look).

    Args:
        folder: with ``PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv`` (or ``.gz``) and the images next to it, in
            ``images/``, or in the numbered folders of the archive.
        findings: what to label: names of `LABELS`, or labels of PadChest's own as they are ("calcified granuloma");
            NIH's fourteen by default.
        labeler: "all", or "physician": labels that a network read from the report (73 %) become NaN.

    Returns:
        The index, without splits (the publisher has none: see `split_by_patient`). Labels of images whose study is
        excluded, unchanged or suboptimal, or has none, are NaN. Rib views (COSTAL) are excluded and counted.
    """
    base.check_choice("labeler", labeler, ("all", "physician"))
    folder = Path(folder)
    table, file = base.read_publisher_table(
        folder, _TABLE, needed=_COLUMNS, optional=(*_DICOM, "PatientBirth", "MethodLabel")
    )
    names = list(findings) or list(LABELS)
    wanted = [set(LABELS.get(name, (name.lower(),))) for name in names]

    def parse(text: str) -> list[float]:
        try:
            present = {str(label).strip().lower() for label in ast.literal_eval(text or "[]")} - {""}
        except (ValueError, SyntaxError, TypeError) as error:
            raise ValueError(f"Labels {text[:60]!r} is not a list of names") from error
        if "exclude" in present or not present - _UNINFORMATIVE:
            return [np.nan] * len(names)
        return [float(bool(present & group)) for group in wanted]

    ribs = table["Projection"].str.upper() == "COSTAL"
    rows = map_values(table["Labels"].mask(ribs, ""), parse, file)[~ribs]
    table = table[~ribs].reset_index(drop=True)
    labels = pd.DataFrame(rows.tolist(), columns=pd.Index(names))
    if labeler == "physician":
        labels[table["MethodLabel"].str.lower() != "physician"] = np.nan
    inverted = int((table["PhotometricInterpretation_DICOM"] == "MONOCHROME1").sum())
    if inverted:
        logger.warning(
            f"PadChest: {inverted} of {len(table)} rows are MONOCHROME1, which a PNG cannot record; dense tissue may "
            "be dark in them: look at them with `monai-simclr audit --pixels` before you train"
        )
    birth = pd.to_numeric(table["PatientBirth"], errors="coerce")
    age = pd.to_numeric(table["StudyDate_DICOM"].str[:4], errors="coerce") - birth
    numbered = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())
    index = base.make_index(
        labels,
        image=base.locate([folder / "images", folder, *numbered], table["ImageID"]),
        patient_id=table["PatientID"],
        study_id=table["StudyID"],
        view_position=table["Projection"],
        sex=table["PatientSex_DICOM"],
        age=age.where(age.between(0, 120)),
        manufacturer=table["Manufacturer_DICOM"],
    )
    index.attrs["excluded"] = {"rib views (COSTAL)": int(ribs.sum())} if ribs.any() else {}
    return index


PADCHEST = base.Source(
    "PadChest",
    lambda folder: base.has_table(folder, _TABLE),
    read_padchest,
    "PadChest ships 54 archives: are all of them unpacked there?",
)
