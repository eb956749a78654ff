"""Radiographs with lung masks (see shared/cxr/README.md for sources and terms), and a phantom set to try things."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

__all__ = ["SETS", "MaskedSet", "read_masked_sets"]

SETS = {"kermany": ("kermany", "labels"), "hannover": ("hannover_square", "view")}
"""Our name of each set; its name in manifest.csv, and the column there that its images are grouped by."""


class MaskedSet(NamedTuple):
    """Images of one source with their lung masks."""

    images: list[np.ndarray]
    """uint8 ``(H, W)`` each."""
    masks: list[np.ndarray]
    """bool ``(H, W)`` each, True in the lungs; devices and markers ("ignore") are False."""
    boxes: np.ndarray
    """float64 ``(N, 4)``: tight box of each mask: left, top, right, bottom in shares of the image."""
    patients: np.ndarray
    """str ``(N,)``."""
    groups: np.ndarray
    """str ``(N,)``: normal or pneumonia for children, AP or PA for adults."""


def read_masked_sets(folder: Path) -> dict[str, MaskedSet]:
    """Read every masked image of `SETS` from the pack."""
    table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    sets = {}
    for name, (dataset, group) in SETS.items():
        rows = table[(table["dataset"] == dataset) & (table["mask"] != "")]
        images = [_gray(folder / path) for path in rows["path"]]
        masks = [_gray(folder / path) == 255 for path in rows["mask"]]
        boxes = np.stack([tight_box(mask) for mask in masks])
        groups = rows[group].str.partition("|")[0].str.lower().to_numpy()
        sets[name] = MaskedSet(images, masks, boxes, rows["patient_id"].to_numpy(), groups)
    return sets


def tight_box(mask: np.ndarray) -> np.ndarray:
    """Smallest box around a mask, shape ``(4,)``, in shares of the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return np.array([columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height])


def _gray(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise FileNotFoundError(f"{path} cannot be read as an image")
    return pixels
