"""Leaks between what was learned from and what is scored: the same patient, or the same picture under another name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.preprocessing import normalize

from monai_simclr.embeddings import Embeddings
from monai_simclr.runtime.files import keyed_hash

__all__ = ["check_unseen", "find_copies", "refuse_shared_patients", "seen_patients"]

_CHUNK = 1024


def seen_patients(patients: np.ndarray, key: str, seen: frozenset[str]) -> np.ndarray:
    """Which patients a checkpoint has seen, from the keyed hashes in its header: a mask of shape ``(N,)``.

    Example:
        >>> seen_patients(np.array(["a", "b"]), "key", frozenset({keyed_hash("key", "b")})).tolist()
        [False, True]
    """
    names, codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    return np.array([keyed_hash(key, str(name)) in seen for name in names], dtype=bool)[codes]


def check_unseen(patients: np.ndarray, key: str, seen: frozenset[str], allowed: bool = False) -> int:
    """Refuse to score patients from whom an encoder has already learned, unless that is stated.

    Args:
        patients: of the images to be scored.
        key: `patients_key` of the checkpoint's header; "" for a checkpoint that does not say whom it saw.
        seen: `patients_seen` of the header.
        allowed: state that seen patients may be scored; the number is then returned, to be reported.

    Returns:
        How many of the patients the checkpoint has seen.

    Raises:
        ValueError: if it has seen one and that was not allowed.

    Example:
        >>> check_unseen(np.array(["a", "b"]), "key", frozenset({keyed_hash("key", "b")}), allowed=True)
        1
    """
    known = seen_patients(patients, key, seen) if key else np.zeros(len(patients), dtype=bool)
    found = np.unique(np.asarray(patients).astype(str)[known])
    if len(found) and not allowed:
        raise ValueError(
            f"pretraining saw {len(found)} of the {len(np.unique(patients))} patients to be scored, the first is "
            f"{str(found[0])!r}, so their scores would flatter; score other patients, pretrain without them, or say "
            "so with --allow_seen_patients True"
        )
    return len(found)


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
            "image": index["image"].to_numpy()[first], "copy": index["image"].to_numpy()[second],
            "patient_id": index["patient_id"].to_numpy()[first],
            "copy_patient_id": index["patient_id"].to_numpy()[second], "similarity": [row[2] for row in rows],
        }
    )  # fmt: skip
