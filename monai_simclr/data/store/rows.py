"""What training needs of the rows of a store, as columns: 28 bytes a row and 4 a label, where text takes hundreds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.index import finding_columns
from monai_simclr.runtime.files import write_atomically
from monai_simclr.runtime.names import encode_name

ROWS = "rows.npz"
"""File of the columns in a store; stores of before it had one get them from their tables."""


def text_keys(texts: Iterable[str]) -> np.ndarray:
    """Numbers of 64 bits that are equal where texts are.

    Two of 33 million patients share one with a probability of 0.00003.

    Example:
        >>> keys = text_keys(["p1", "p2", "p1"])
        >>> bool(keys[0] == keys[2] != keys[1]), keys.dtype.name
        (True, 'uint64')
    """
    encoded = np.array([encode_name(text) for text in texts], dtype=object)
    return np.asarray(pd.util.hash_array(encoded), dtype=np.uint64)


def row_columns(index: pd.DataFrame) -> dict[str, np.ndarray]:
    """The columns of an index.

    Returns:
        `image`, `patient_id` and `split` as `text_keys` (of an image its name without folders), `labels` float32
        ``(N, K)``, and the names of the K `findings`.
    """
    findings = list(finding_columns(index))
    return {
        "image": text_keys(map(os.path.basename, index["image"])),
        "patient_id": text_keys(index["patient_id"]),
        "split": text_keys(index["split"]),
        "labels": index[findings].to_numpy(dtype=np.float32).reshape(len(index), len(findings)),
        "findings": np.array(findings, dtype=str),
    }


def write_row_columns(path: Path, index: pd.DataFrame, pixels: np.ndarray) -> None:
    """Write `row_columns`, and the CRC-32 of every stored image as `pixels`, whole or not at all."""
    with write_atomically(path) as part, open(part, "wb") as file:
        columns: dict[str, Any] = {**row_columns(index), "pixels": pixels}
        np.savez(file, **columns)
