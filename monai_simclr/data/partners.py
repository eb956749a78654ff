"""Which other film of the same patient the second view of a film is made of."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pandas as pd

SecondView = Literal["image", "patient", "study", "view_position"]
"""The second view is of the same film, or of another one of the patient that agrees in this."""

_COLUMNS = {
    "patient": ["patient_id"],
    "study": ["patient_id", "study_id"],
    "view_position": ["patient_id", "view_position"],
}


class Partners:
    """The other films of each film's patient that its second view may be made of (MedAug, Vu et al., MLHC 2021).

    Args:
        index: rows of an image index.
        second_view: ``"patient"`` for any other film of the patient, ``"study"`` for one of the same study,
            ``"view_position"`` for one of the same view position. Films whose patient, study or view position is
            unknown have no partner but themselves.

    Raises:
        ValueError: if `second_view` is none of these.

    Example:
        >>> index = pd.DataFrame({"patient_id": ["a", "b", "a", "a"]})
        >>> Partners(index, "patient").draw(np.array([0, 1, 2, 3]), np.array([0.0, 0.0, 0.9, 0.9])).tolist()
        [2, 1, 3, 2]
    """

    def __init__(self, index: pd.DataFrame, second_view: SecondView) -> None:
        if second_view not in _COLUMNS:
            raise ValueError(f"second_view must be one of {', '.join(get_args(SecondView))}, got {second_view!r}")
        columns = _COLUMNS[second_view]
        group = index.groupby(columns, sort=False).ngroup().to_numpy() if len(index) else np.zeros(0, dtype=int)
        unknown = (index[columns] == "").any(axis=1).to_numpy()
        group = np.where(unknown, len(index) + np.arange(len(index)), group)
        group = np.unique(group, return_inverse=True)[1]
        self._members = np.argsort(group, kind="stable")
        counts = np.bincount(group, minlength=1)
        starts = np.cumsum(counts) - counts
        self._start, self._count = starts[group], counts[group]
        self._place = np.empty(len(group), dtype=int)
        self._place[self._members] = np.arange(len(group)) - self._start[self._members]

    def draw(self, positions: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Choose a partner for each position, uniformly among the others of its group, or itself where it is alone.

        Args:
            positions: of films, shape ``(n,)``.
            u: uniform numbers in [0, 1), shape ``(n,)``.

        Returns:
            Positions, shape ``(n,)``.
        """
        others, own = self._count[positions] - 1, self._place[positions]
        pick = np.minimum((u * others).astype(int), np.maximum(others - 1, 0))
        pick = np.where(others > 0, pick + (pick >= own), own)
        return self._members[self._start[positions] + pick]
