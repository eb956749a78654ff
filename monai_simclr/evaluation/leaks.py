"""Leaks between what was learned from and what is scored: the same patient, or the same picture under another name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.preprocessing import normalize

from monai_simclr.evaluation.embeddings import Embeddings

_CHUNK = 1024


def refuse_shared_patients(splits: Mapping[str, np.ndarray]) -> None:
    """Raise `ValueError` when a patient is in two of the named sets of patients.

    Example:
        >>> refuse_shared_patients({"train": np.array(["a"]), "test": np.array(["b"])})
    """
    names = list(splits)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = np.intersect1d(splits[first], splits[second])
            if len(both):
                raise ValueError(
                    f"{len(both)} patients are in {first} and in {second}, the first is {str(both[0])!r}; split by "
                    "patient with split_by_patient()"
                )


def find_copies(embeddings: Embeddings, similarity: float = 0.9999) -> pd.DataFrame:
    """Test images whose embedding is that of an image of another split: the same picture, perhaps renamed.

    Args:
        embeddings: index with `patient_id`, `split` and `image`.
        similarity: cosine, after the mean was taken off, from which two images count as one picture.

    Returns:
        One row a test image with a copy: `image, copy, patient_id, copy_patient_id, similarity`, highest first.

    Example:
        >>> index = pd.DataFrame({"image": list("xyz"), "patient_id": list("abc"), "split": ["train", "test", "test"]})
        >>> two = Embeddings(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), index)
        >>> find_copies(two)[["image", "copy"]].to_numpy().tolist()
        [['y', 'x']]
    """
    index = embeddings.index
    test = np.flatnonzero((index["split"] == "test").to_numpy())
    other = np.flatnonzero((index["split"] != "test").to_numpy())
    unit = normalize(embeddings.features - embeddings.features.mean(axis=0))
    rows = []
    for start in range(0, len(test) if len(other) else 0, _CHUNK):
        part = test[start : start + _CHUNK]
        close = unit[part] @ unit[other].T
        nearest = close.argmax(axis=1)
        for row, near, value in zip(part, other[nearest], close[np.arange(len(part)), nearest], strict=True):
            if value >= similarity:
                rows.append((row, near, float(value)))
    rows.sort(key=lambda row: -row[2])
    first, second = (np.array([row[i] for row in rows], dtype=int) for i in (0, 1))
    return pd.DataFrame(
        {
            "image": index["image"].to_numpy()[first],
            "copy": index["image"].to_numpy()[second],
            "patient_id": index["patient_id"].to_numpy()[first],
            "copy_patient_id": index["patient_id"].to_numpy()[second],
            "similarity": [row[2] for row in rows],
        }
    )
