"""Embeddings: what an encoder makes of an archive, with the index rows it belongs to, in one file."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.files import write_atomically
from monai_simclr.tables import table_text, unescaped_text

__all__ = ["Embeddings"]


@dataclass(frozen=True)
class Embeddings:
    """Features of N images and the index rows of the same images.

    Args:
        features: float32, shape ``(N, D)``, finite.
        index: N rows of an image index, in the same order.
        source: what made them, as plain text (encoder, checksum, size), for reports.

    Raises:
        ValueError: if the lengths differ, or a feature is not finite (says in which row).

    Note:
        Embeddings can re-identify a patient (Packhäuser et al. 2022: AUC 0.994 on NIH): treat the file as patient data.

    Example:
        >>> table = pd.DataFrame({"patient_id": ["a", "b"], "split": ["train", "test"]})
        >>> two = Embeddings(np.eye(2, dtype=np.float32), table)
        >>> two.of_split("test").features
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
        """The rows that a boolean mask or an array of positions names."""
        return Embeddings(self.features[keep], self.index.iloc[np.arange(len(self))[keep]], self.source)

    def of_split(self, split: str) -> Embeddings:
        """The rows of one split."""
        return self.where((self.index["split"] == split).to_numpy())

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz``, whole or not at all; nothing in it is pickled."""
        table = table_text(self.index)
        with write_atomically(path) as part, open(part, "wb") as file:
            np.savez(
                file, features=self.features, index=np.array(table), source=np.array(json.dumps(dict(self.source)))
            )

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not one of ours.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no embeddings at {path}; run configs/cluster.json first, it writes them")
        with np.load(path, allow_pickle=False) as file:
            missing = {"features", "index", "source"} - set(file.files)
            if missing:
                raise ValueError(f"{path} is not a file of embeddings: it lacks {sorted(missing)}")
            table = io.StringIO(str(file["index"]))
            index = pd.read_csv(
                table, dtype={"patient_id": str, "study_id": str}, keep_default_na=False, na_values=[""]
            )
            text = [name for name in ("image", "study_id", "view_position", "sex", "split", "source") if name in index]
            index[text] = index[text].astype(object).fillna("")
            return cls(file["features"], unescaped_text(index), json.loads(str(file["source"])))
