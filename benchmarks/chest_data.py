"""Real chest radiographs in three parts of disjoint patients: to fit the chest check, to set its threshold, to report.

See the README of each pack in shared/ for sources and terms. A patient keeps its part in every pack and size.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from monai_simclr.ops.resize import pad_resize

__all__ = ["GROUPS", "PARTS", "plane_of", "read_table"]

PARTS = ("fit", "fit", "threshold", "report")
"""What a patient is used for, by the checksum of its id: half, a quarter, a quarter."""

PACKS = {
    "cxr": ("kermany", "hannover", "nih", "nih64"),
    "nih128": ("nih",),
    "nih224": ("nih",),
    "unlabelled": ("nih",),
}
"""Packs, and the data sets that are taken of each; in `unlabelled` only what has a patient's id."""

GROUPS = {"kermany": "children (Kermany)", "hannover": "adults (Hannover)"}
"""Populations that must each be served; everything else is NIH."""

_SIZE = 224


def read_table(shared: Path) -> pd.DataFrame:
    """One row an image: `path`, `patient`, `view`, `pack`, `group`, `part`; an image of NIH stands once a pack."""
    tables = []
    for pack, names in PACKS.items():
        table = pd.read_csv(shared / pack / "manifest.csv", dtype=str, keep_default_na=False)
        table = table[table["dataset"].isin(names) & (table["patient_id"] != "")]
        files = table["path" if "path" in table else "file"]
        kind = table["dataset"] if pack == "cxr" else pd.Series(pack, index=table.index)
        kind = kind.where(~files.str.startswith("64px"), f"{pack} at 64 px")
        columns = {"path": [str(shared / pack / file) for file in files], "patient": table["patient_id"]}
        tables.append(pd.DataFrame({**columns, "view": table["view"], "pack": kind}))
    whole = pd.concat(tables, ignore_index=True)
    whole["group"] = [GROUPS.get(pack, "adults (NIH)") for pack in whole["pack"]]
    whole["part"] = [PARTS[zlib.crc32(patient.encode()) % len(PARTS)] for patient in whole["patient"]]
    return whole


def plane_of(path: str) -> np.ndarray:
    """An image as inference sees it, padded to a square: float32 ``(224, 224)``, in [0, 255]."""
    pixels = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise FileNotFoundError(f"{path} cannot be read as an image")
    return pad_resize(pixels, _SIZE).astype(np.float32)
