"""Embeddings: features of an archive's images with their index rows, in one file."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.runtime.artefacts import read_arrays, reading, write_arrays
from monai_simclr.runtime.tables import table_text, unescaped_text

_WHAT, _REMEDY = "a file of embeddings", "make it again with configs/cluster.json"
_TEXT = ("image", "study_id", "view_position", "sex", "split", "source")


@dataclass(frozen=True)
class Embeddings:
    """Features of N images and the index rows of the same images.

    Args:
        features: float32, shape ``(N, D)``, finite.
        index: N rows of an image index, in the same order.
        source: where they come from, as plain text (encoder, checksum, size), for reports.

    Raises:
        ValueError: if the lengths differ, or a feature is not finite.

    Note:
        Embeddings can re-identify a patient (Packhäuser et al. 2022: AUC 0.994 on NIH): treat the file as patient data.

    Example:
        >>> table = pd.DataFrame({"patient_id": ["a", "b"], "split": ["train", "test"]})
        >>> Embeddings(np.eye(2, dtype=np.float32), table).of_split("test").features
        array([[0., 1.]], dtype=float32)
    """

    features: np.ndarray
    index: pd.DataFrame
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        features = np.ascontiguousarray(self.features, dtype=np.float32)
        if features.ndim != 2 or len(features) != len(self.index):
            raise ValueError(f"features of shape {features.shape} do not go with {len(self.index)} index rows")
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{len(bad)} rows of features are not finite, the first is row {bad[0]}; check the encoder"
            )
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "index", self.index.reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.features)

    def where(self, keep: np.ndarray) -> Embeddings:
        """The rows that a mask or an array of positions selects."""
        return Embeddings(self.features[keep], self.index.iloc[np.arange(len(self))[keep]], self.source)

    def of_split(self, split: str) -> Embeddings:
        """The rows of one split."""
        return self.where((self.index["split"] == split).to_numpy())

    def save(self, path: str | Path) -> None:
        """Write one ``.npz`` with a checksum, atomically and without pickles."""
        table, source = np.array(table_text(self.index)), np.array(json.dumps(dict(self.source)))
        write_arrays(path, {"features": self.features, "index": table, "source": source})

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not one of ours, or was altered.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no embeddings at {path}; run configs/cluster.json first, it writes them")
        arrays = read_arrays(path, _WHAT, _REMEDY, ["features", "index", "source"])
        with reading(path, _WHAT, _REMEDY):
            index = pd.read_csv(
                io.StringIO(str(arrays["index"])),
                dtype={"patient_id": str, "study_id": str},
                keep_default_na=False,
                na_values=[""],
            )
            text = [name for name in _TEXT if name in index]
            index[text] = index[text].astype(object).fillna("")
            source = json.loads(str(arrays["source"]))
            if not isinstance(source, dict) or arrays["features"].dtype != np.float32:
                raise ValueError("its features are not float32, or its source is not a mapping")
            return cls(arrays["features"], unescaped_text(index), source)


def sample_rows(rows: np.ndarray, max_rows: int, seed: int | np.random.Generator) -> np.ndarray:
    """At most `max_rows` of some positions, drawn without replacement and sorted."""
    if len(rows) <= max_rows:
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:max_rows])
