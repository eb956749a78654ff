"""Patients and studies in what a command leaves: the same one has the same hash, and nobody has a name."""

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


def keyed_hash(key: str, text: str) -> str:
    """HMAC-SHA-256 of `text` under `key`, the first 16 hexadecimal digits: an identity that only the key's owner can
    check.

    Example:
        >>> keyed_hash("a key", "patient 1") == keyed_hash("a key", "patient 1")
        True
        >>> keyed_hash("a key", "patient 1") == keyed_hash("another key", "patient 1")
        False
    """
    return hmac.new(key.encode(), encode_name(text), hashlib.sha256).hexdigest()[:16]


KEY_VARIABLE = "MONAI_SIMCLR_HASH_KEY"
"""Environment variable with the key of hashes, for whoever wants the same hashes in every folder."""


_KEY = re.compile(r"[\x21-\x7e]{16,}")


_NEW_KEY = "restore it, or remove it for a new key, with which all hashes in this folder become others"


def hash_key(folder: str | Path) -> str:
    """The key of this folder's hashes: the environment's, the folder's own, or a new one that is left in the folder.

    Returns:
        What `KEY_VARIABLE` holds, or the content of ``hash_key.txt`` in `folder`, made when it is missing and readable
        by its owner only.

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
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a key of hashes ({error}); {_NEW_KEY}") from error
    if not _KEY.fullmatch(key):
        raise ValueError(f"{path} holds no key of hashes (one word of 16 characters or more was expected); {_NEW_KEY}")
    return key
