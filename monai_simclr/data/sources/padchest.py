"""PadChest: the publisher's one table to an image index; pixels are not touched."""

from __future__ import annotations

import ast
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.index import coerce_index
from monai_simclr.data.sources.tables import find_table, locate, read_text_table
from monai_simclr.data.sources.uncertain import check_choice
from monai_simclr.data.sources.wording import sexes, view_positions

logger = logging.getLogger("monai_simclr.data")

LABELS: dict[str, tuple[str, ...]] = {
    "Atelectasis": (
        "atelectasis",
        "total atelectasis",
        "lobar atelectasis",
        "segmental atelectasis",
        "laminar atelectasis",
        "round atelectasis",
        "atelectasis basal",
    ),
    "Cardiomegaly": ("cardiomegaly",),
    "Effusion": ("pleural effusion", "loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax"),
    "Infiltration": (
        "infiltrates",
        "interstitial pattern",
        "ground glass pattern",
        "reticular interstitial pattern",
        "reticulonodular interstitial pattern",
        "miliary opacities",
        "alveolar pattern",
        "consolidation",
        "air bronchogram",
    ),
    "Mass": ("pulmonary mass",),
    "Nodule": ("nodule", "multiple nodules"),
    "Pneumonia": ("pneumonia", "atypical pneumonia"),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Consolidation": ("consolidation",),
    "Edema": ("pulmonary edema",),
    "Emphysema": ("emphysema",),
    "Fibrosis": ("pulmonary fibrosis",),
    "Pleural_Thickening": ("pleural thickening", "apical pleural thickening", "calcified pleural thickening"),
    "Hernia": ("hiatal hernia",),
}
"""Which of PadChest's 174 labels a finding of NIH's stands for: the label and its children in the authors' tree.

Labels are compared whole, never in part: "subcutaneous emphysema" is not Emphysema, "tube" is in "NSG tube"."""

_NEEDED = ("ImageID", "StudyID", "PatientID", "Projection", "Labels")
_SAY_NOTHING = {"exclude", "unchanged", "suboptimal study"}


def recognise_padchest(folder: Path) -> str:
    table = find_table(folder, "PADCHEST_chest_x_ray_images_labels_160K*.csv")
    return f"it has {table.name}, so it is a PadChest folder" if table else ""


def read_padchest(folder: str | Path, findings: Sequence[str] = (), labeler: str = "all") -> pd.DataFrame:
    """Image index of a PadChest folder (Bustos et al., Medical Image Analysis 2020).

    The files are 16-bit PNG as the detector stored them; those whose row says MONOCHROME1 show dense tissue dark, and
    the log counts them, because a PNG cannot say so itself (``audit --pixels`` finds them by their look).

    Args:
        folder: with ``PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv`` (or ``.gz``) and the images beside it, in
            ``images/``, or in the numbered folders of the archive.
        findings: what to label: names of `LABELS`, or labels of PadChest's own as they are ("calcified granuloma");
            NIH's fourteen by default.
        labeler: "all", or "physician": labels that a network read off the report (73 %) become NaN.

    Returns:
        The index, without splits (the publisher has none: see `split_by_patient`). Labels of images whose study is
        excluded, unchanged or suboptimal, or has none, are NaN. Rib views (COSTAL) are left out and counted.

    Raises:
        FileNotFoundError: if there is no table.
        ValueError: if it lacks a column, or a cell of labels is no list.
    """
    check_choice("labeler", labeler, ("all", "physician"))
    path = find_table(folder, "PADCHEST_chest_x_ray_images_labels_160K*.csv")
    if path is None:
        raise FileNotFoundError(f"there is no PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv in {folder}")
    table = read_text_table(path, _NEEDED)
    ribs = table["Projection"].str.upper() == "COSTAL"
    table = table[~ribs].reset_index(drop=True)
    index = pd.DataFrame(
        {
            "image": locate(_folders(Path(folder)), table["ImageID"]),
            "patient_id": table["PatientID"],
            "study_id": table["StudyID"],
            "view_position": view_positions(table["Projection"]),
            "sex": sexes(_column(table, "PatientSex_DICOM")),
            "age": _ages(table),
            "split": "",
            "manufacturer": _column(table, "Manufacturer_DICOM"),
        }
    )
    names = list(findings) or list(LABELS)
    index[names] = _labels(path, table["Labels"], names)
    if labeler == "physician":
        index.loc[_column(table, "MethodLabel").str.lower() != "physician", names] = np.nan
    _say(table)
    index = coerce_index(index)
    index.attrs["left_out"] = {"rib views (COSTAL)": int(ribs.sum())} if ribs.any() else {}
    return index


def _labels(path: Path, texts: pd.Series, names: Sequence[str]) -> np.ndarray:
    wanted = [set(LABELS.get(name, (name.lower(),))) for name in names]
    rows = np.full((len(texts), len(names)), np.nan)
    for row, text in enumerate(texts):
        try:
            said = {str(label).strip().lower() for label in ast.literal_eval(text or "[]")} - {""}
        except (ValueError, SyntaxError, TypeError) as error:
            raise ValueError(f"{path.name}, row {row + 2}: Labels {text[:60]!r} is no list of names") from error
        if said - _SAY_NOTHING and "exclude" not in said:
            rows[row] = [bool(said & group) for group in wanted]
    return rows


def _folders(folder: Path) -> list[Path]:
    numbered = sorted(
        (path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()), key=lambda p: p.name
    )
    return [folder / "images", folder, *numbered]


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    return table[name] if name in table else pd.Series("", index=table.index)


def _ages(table: pd.DataFrame) -> pd.Series:
    """Year of the study minus year of birth."""
    studied = pd.to_numeric(_column(table, "StudyDate_DICOM").str[:4], errors="coerce")
    age = studied - pd.to_numeric(_column(table, "PatientBirth"), errors="coerce")
    return age.where(age.between(0, 120)).astype(float)


def _say(table: pd.DataFrame) -> None:
    inverted = int((_column(table, "PhotometricInterpretation_DICOM") == "MONOCHROME1").sum())
    if inverted:
        logger.warning(
            f"PadChest: {inverted} of {len(table)} rows say MONOCHROME1, and a PNG cannot; dense tissue may be dark "
            "in them: look at them with `monai-simclr audit --pixels` before you train"
        )
