"""Patients and studies in what a command leaves: the same one has the same hash, and nobody has a name."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pandas as pd

from monai_simclr.data import Store
from monai_simclr.runtime.files import KEY_VARIABLE, keyed_hash
from monai_simclr.runtime.tables import table_text

__all__ = ["hash_patients", "index_for_outputs"]


def index_for_outputs(store: Store) -> pd.DataFrame:
    """A store's index with keyed hashes in place of the ids of patients and studies.

    Ids stand in an archive's index and in the store, which is a copy of it; nothing else that is written has them. The
    same patient has the same hash in all outputs from one store, so that runs can be compared patient by patient.

    Example:
        >>> index = pd.DataFrame({"image": ["a.png"], "patient_id": ["Doe"], "study_id": [""], "split": ["test"]})
        >>> made = index_for_outputs(Store(np.zeros((1, 8, 8), np.uint8), index, pd.DataFrame(), {}))
        >>> len(made["patient_id"][0]), made["patient_id"][0] == "Doe", made["study_id"][0]
        (16, False, '')
    """
    hashed = {name: hash_patients(store, store.index[name].to_numpy(dtype=str)) for name in ("patient_id", "study_id")}
    return store.index.assign(**hashed)


def hash_patients(store: Store, ids: np.ndarray) -> np.ndarray:
    """Keyed hashes of ids ``(N,)``; an empty one stays empty."""
    key = os.environ.get(KEY_VARIABLE) or _key_of(store)
    names, codes = np.unique(ids.astype(str), return_inverse=True)
    return np.array([keyed_hash(key, name) if name else "" for name in names.tolist()], dtype=str)[codes]


def _key_of(store: Store) -> str:
    """The checksum of the store's index: who has it has the ids, and who has not cannot guess it."""
    given = store.provenance.get("sha256", {}).get("index.csv")
    return given or hashlib.sha256(table_text(store.index).encode()).hexdigest()
