"""What uncertain and blank labels become: one policy for every source."""

from __future__ import annotations

import numpy as np
import pandas as pd

UNCERTAIN = ("ignore", "zeros", "ones", "smoothed")
BLANK = ("zeros", "ignore")
SMOOTHED = 0.7
"""Mean of the interval (0.55, 0.85) from which Pham et al. (Neurocomputing 2021, "U-Ones+LSR") draw smoothed labels."""


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `ValueError` if the value of an option is not a known one."""
    if value not in known:
        raise ValueError(f"{option} must be one of {list(known)}, got {value!r}")


def plain_labels(table: pd.DataFrame, train: np.ndarray, uncertain: str, blank: str) -> pd.DataFrame:
    """CheXpert's 1, 0, -1 and blank as labels of an index.

    Args:
        table: text, one column per finding and perhaps "No Finding"; "1.0", "0.0", "-1.0" or "".
        train: which rows are for training, shape ``(N,)``.
        uncertain: what -1 becomes. "ignore": NaN. "zeros": 0. "ones": 1. "smoothed": 0.7 in train rows, NaN in others,
            since scores need plain labels.
        blank: what a blank becomes, which means that the report does not mention the finding. "zeros": 0, as CheXpert's
            authors train. "ignore": NaN, except in rows with "No Finding", whose blanks are 0 (but not of "Support
            Devices", which may be present without a finding).

    Returns:
        Floats in the same columns, without "No Finding".

    Raises:
        ValueError: if a policy is unknown, or a label is not one of the four (names column and row).

    Example:
        >>> table = pd.DataFrame({"Mass": ["1.0", "-1.0", ""]})
        >>> plain_labels(table, np.array([True] * 3), "smoothed", "zeros")["Mass"].tolist()
        [1.0, 0.7, 0.0]
    """
    check_choice("uncertain", uncertain, UNCERTAIN)
    check_choice("blank", blank, BLANK)
    labels = table.replace("", np.nan).apply(pd.to_numeric, errors="coerce").astype(float)
    for row, column in np.argwhere(((table != "") & ~labels.isin([1, 0, -1])).to_numpy())[:1]:
        raise ValueError(
            f"labels must be 1, 0, -1 or blank, got {table.iloc[row, column]!r} for {table.columns[column]!r} in row "
            f"{row}"
        )
    healthy = labels["No Finding"] == 1 if "No Finding" in labels else pd.Series(False, index=labels.index)
    labels = labels.drop(columns="No Finding", errors="ignore")
    unmentioned, unsure = labels.isna(), labels == -1
    value = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0, "smoothed": SMOOTHED}[uncertain]
    held_out = np.nan if uncertain == "smoothed" else value
    labels = labels.mask(unsure & train[:, None], value).mask(unsure & ~train[:, None], held_out)
    if blank == "ignore":
        unmentioned &= healthy.to_numpy()[:, None]
        unmentioned.loc[:, unmentioned.columns == "Support Devices"] = False
    return labels.mask(unmentioned, 0.0)
