"""What a label that the publisher calls uncertain, or leaves blank, becomes: one policy for every source."""

from __future__ import annotations

import numpy as np
import pandas as pd

UNCERTAIN = ("ignore", "zeros", "ones", "smoothed")
BLANK = ("zeros", "ignore")
SMOOTHED = 0.7
"""Mean of the interval (0.55, 0.85) from which Pham et al. (Neurocomputing 2021, "U-Ones+LSR") draw smoothed labels."""


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `ValueError` naming the option when its value is not among the known ones."""
    if value not in known:
        raise ValueError(f"{option} must be one of {list(known)}, got {value!r}")


def plain_labels(table: pd.DataFrame, train: np.ndarray, uncertain: str, blank: str) -> pd.DataFrame:
    """CheXpert's 1, 0, -1 and blank as labels of an index.

    Args:
        table: text, one column a finding of which one may be "No Finding"; "1.0", "0.0", "-1.0" or "".
        train: which rows are for training, shape ``(N,)``.
        uncertain: what -1 becomes. "ignore": NaN. "zeros": 0. "ones": 1. "smoothed": 0.7 in train rows, NaN in the
            others, since scores need plain labels.
        blank: what a blank becomes. A blank means that the report does not mention the finding. "zeros": 0, as the
            authors of CheXpert train. "ignore": NaN, but for rows with "No Finding", whose blanks are 0 ("Support
            Devices" apart, which may be there without a finding).

    Returns:
        Floats in the same columns, without "No Finding".

    Raises:
        ValueError: if a policy is unknown, or a label is none of the four (names column and row).

    Example:
        >>> table = pd.DataFrame({"Mass": ["1.0", "-1.0", ""]})
        >>> plain_labels(table, np.array([True] * 3), "smoothed", "zeros")["Mass"].tolist()
        [1.0, 0.7, 0.0]
    """
    check_choice("uncertain", uncertain, UNCERTAIN)
    check_choice("blank", blank, BLANK)
    labels = table.apply(_numbers)
    nothing = labels["No Finding"] == 1 if "No Finding" in labels else pd.Series(False, index=labels.index)
    labels = labels.drop(columns="No Finding", errors="ignore")
    value = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0, "smoothed": SMOOTHED}[uncertain]
    others = np.nan if uncertain == "smoothed" else value
    blanks = labels.isna()
    unsure = labels == -1
    labels = labels.mask(unsure & train[:, None], value).mask(unsure & ~train[:, None], others)
    negative = blanks if blank == "zeros" else blanks & nothing.to_numpy()[:, None]
    if blank == "ignore" and "Support Devices" in labels:
        negative["Support Devices"] = False
    return labels.mask(negative, 0.0)


def _numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column.replace("", np.nan), errors="coerce")
    bad = np.flatnonzero((column != "") & ~numbers.isin([1, 0, -1]))
    if len(bad):
        raise ValueError(
            f"labels must be 1, 0, -1 or blank, got {column.iloc[bad[0]]!r} for {column.name!r} in row {bad[0]}"
        )
    return numbers.astype(float)
