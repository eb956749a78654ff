"""How archives write views, sexes and ages, and how the index writes them."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from monai_simclr.data.formats.exam import find_view

_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}
_OLDEST = 120
_SEXES = {
    "M": "M",
    "MALE": "M",
    "MAN": "M",
    "BOY": "M",
    "F": "F",
    "FEMALE": "F",
    "WOMAN": "F",
    "GIRL": "F",
}
UNKNOWN_WORDS = frozenset(
    ("", "UNKNOWN", "UNSPECIFIED", "OTHER", "U", "O", "NA", "N/A", "NAN", "NONE", "NULL", "-", "?")
)
"""Words for "nobody knows", in capitals."""
SPLIT_WORDS = {
    "": "",
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "test": "test",
    "testing": "test",
}
"""What publishers and people call the splits, in small letters, and what the index calls them."""


def view_position(text: str) -> str:
    """The index's word for a view: "PA", "AP", "LL" for every lateral, or "" for what is none of them.

    Example:
        >>> view_position("AP_horizontal"), view_position("lateral"), view_position("postero-anterior")
        ('AP', 'LL', 'PA')
        >>> view_position("COSTAL")
        ''
    """
    return find_view(text).position


def view_positions(column: pd.Series) -> pd.Series:
    """`view_position` of every entry."""
    return column.map({text: view_position(text) for text in column.unique()})


def sex(text: str) -> str:
    """ "M", "F", or "" for everything else: whole words only, since "Mujer", "Mixed" and "Missing" begin with M too.

    Example:
        >>> [sex(text) for text in ("Male", " f", "Mujer", "Missing")]
        ['M', 'F', '', '']
    """
    return _SEXES.get(text.strip().upper(), "")


def sexes(column: pd.Series) -> pd.Series:
    """`sex` of every entry.

    Example:
        >>> sexes(pd.Series(["Male", "f", "Unknown", "O"])).tolist()
        ['M', 'F', '', '']
    """
    return column.map({text: sex(text) for text in column.unique()})


def split_word(text: str) -> str | None:
    """The index's word for a split, "" for none; None for a word that we do not know.

    Example:
        >>> split_word("Valid"), split_word(" TEST"), split_word(""), split_word("holdout")
        ('val', 'test', '', None)
    """
    return SPLIT_WORDS.get(text.strip().lower())


def age_in_years(text: str, oldest: float = _OLDEST) -> float:
    """Years of an age as a number or as DICOM AS (PS3.5 section 6.2): "060Y", "010M", "003W", "010D"; NaN if neither.

    Ages over 120 (`oldest`) are NaN: NIH's first table has patients of 412 years, RSNA's headers of 155.

    Example:
        >>> age_in_years("060Y"), age_in_years("006M"), age_in_years("58"), age_in_years("412"), age_in_years("")
        (60.0, 0.5, 58.0, nan, nan)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([YMWDymwd]?)\s*", text)
    if match is None:
        return float("nan")
    years = float(match[1]) / _PER_YEAR[match[2].upper() or "Y"]
    return years if years <= oldest else float("nan")


def ages(column: pd.Series) -> pd.Series:
    """`age_in_years` of every entry, float."""
    return column.map({text: age_in_years(text) for text in column.unique()}).astype(np.float64)
