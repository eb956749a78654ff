"""Keyed hashes of patients and studies for what commands write: the same patient, the same hash, and no name."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.store import Store
from monai_simclr.runtime.files import write_atomically
from monai_simclr.runtime.names import encode_name
from monai_simclr.runtime.tables import table_text

KEY_VARIABLE = "MONAI_SIMCLR_HASH_KEY"
"""Environment variable with the key of hashes, for the same hashes in every folder."""


def index_for_outputs(store: Store) -> pd.DataFrame:
    """A store's index with keyed hashes in place of the ids of patients and studies.

    Only an archive's index, and the store as a copy of it, hold ids; no other file does. The same patient has the same
    hash in all outputs from one store, so that runs can be compared patient by patient.

    Example:
        >>> index = pd.DataFrame({"image": ["a.png"], "patient_id": ["Doe"], "study_id": [""], "split": ["test"]})
        >>> hashed = index_for_outputs(Store(np.zeros((1, 8, 8), np.uint8), index, pd.DataFrame(), {}))
        >>> len(hashed["patient_id"][0]), hashed["patient_id"][0] == "Doe", hashed["study_id"][0]
        (16, False, '')
    """
    hashed = {name: hash_patients(store, store.index[name].to_numpy(dtype=str)) for name in ("patient_id", "study_id")}
    return store.index.assign(**hashed)


def hash_patients(store: Store, ids: np.ndarray) -> np.ndarray:
    """Keyed hashes of ids ``(N,)``; an empty id stays empty.

    Without a key in the environment it is the checksum of the store's index: whoever has that index has the ids anyway,
    and nobody else can guess it.
    """
    key = os.environ.get(KEY_VARIABLE) or store.provenance.get("sha256", {}).get("index.csv")
    key = key or hashlib.sha256(table_text(store.index).encode()).hexdigest()
    names, codes = np.unique(ids.astype(str), return_inverse=True)
    return np.array([keyed_hash(key, name) if name else "" for name in names.tolist()], dtype=str)[codes]


def keyed_hash(key: str, text: str) -> str:
    """First 16 hexadecimal digits of the HMAC-SHA-256 of a text: only the key's owner can tell whose it is.

    Example:
        >>> keyed_hash("a key", "patient 1") == keyed_hash("a key", "patient 1")
        True
        >>> keyed_hash("a key", "patient 1") == keyed_hash("another key", "patient 1")
        False
    """
    return hmac.new(key.encode(), encode_name(text), hashlib.sha256).hexdigest()[:16]


def hash_key(folder: str | Path) -> str:
    """Key of a folder's hashes: that of the environment (`KEY_VARIABLE`), or the folder's own.

    Returns:
        The environment's key, or the content of ``hash_key.txt`` in `folder`, created if it is missing and readable by
        its owner only.

    Raises:
        ValueError: if the folder's key is damaged: with an empty one anybody could undo the hashes.
    """
    if os.environ.get(KEY_VARIABLE):
        return os.environ[KEY_VARIABLE]
    path = Path(folder) / "hash_key.txt"
    if not path.exists():
        with write_atomically(path) as part:
            part.write_text(secrets.token_hex(32), encoding="utf-8")
        path.chmod(0o600)
    remedy = "restore it, or remove it for a new key, which changes all hashes in this folder"
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a key of hashes ({error}); {remedy}") from error
    if not re.fullmatch(r"[\x21-\x7e]{16,}", key):
        raise ValueError(f"{path} is not a key of hashes (one word of 16 characters or more was expected); {remedy}")
    return key
