"""Columns of an image index: the words, ages and labels of any archive, converted to those of the index."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.formats.exam import find_view
from monai_simclr.runtime.names import shown

logger = logging.getLogger("monai_simclr.data")

SPLIT_WORDS = {
    "": "",
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What publishers call the splits, in lower case, and what the index calls them."""
UNKNOWN_WORDS = frozenset(
    ("", "UNKNOWN", "UNSPECIFIED", "OTHER", "U", "O", "NA", "N/A", "NAN", "NONE", "NULL", "-", "?")
)
"""Words for "unknown", in upper case."""
_SEXES = {
    **dict.fromkeys(("M", "MALE", "MAN", "BOY"), "M"),
    **dict.fromkeys(("F", "FEMALE", "WOMAN", "GIRL"), "F"),
}
_AGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([YMWD]?)\s*", re.IGNORECASE)
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}
_MAX_AGE = 120


class MissingColumnsError(ValueError):
    """A table lacks columns."""


def check_columns(names: Sequence[str], needed: Sequence[str], table: str = "the index") -> None:
    """Raise `MissingColumnsError` if a table lacks a needed column, and `ValueError` if it has a column twice."""
    missing = [name for name in needed if name not in names]
    if missing:
        raise MissingColumnsError(f"{table} lacks the columns {missing}; it has {list(names)}")
    repeated = sorted({str(name) for name in names if list(names).count(name) > 1})
    if repeated:
        raise ValueError(f"{table} has the columns {repeated} more than once; keep one of each")


def describe_row(row: int, file: str = "") -> str:
    """Name a row in a message: by its line in a file (the header is line 1), by its number in a table.

    Example:
        >>> describe_row(0), describe_row(0, "index.csv")
        ('row 0', 'index.csv, row 2')
    """
    return f"{shown(file)}, row {row + 2}" if file else f"row {row}"


def check_rows(valid: pd.Series, message: str, file: str = "", values: pd.Series | None = None) -> None:
    """Raise `ValueError` for the first row that is not valid, with its value."""
    bad = np.flatnonzero(~valid.to_numpy(dtype=bool))
    if len(bad):
        value = "" if values is None else values.iloc[bad[0]]
        got = "" if values is None else f", got {value!r}" if isinstance(value, str) else f", got {value}"
        raise ValueError(f"{describe_row(int(bad[0]), file)}: {message}{got}")


def map_values(column: pd.Series, convert: Callable[[Any], Any], file: str = "") -> pd.Series:
    """Convert a column, each distinct value once; a `ValueError` of `convert` gets the first row of the value."""
    converted: dict[Any, Any] = {}
    values = column.tolist()
    for row, value in enumerate(values):
        if value not in converted:
            try:
                converted[value] = convert(value)
            except ValueError as error:
                raise ValueError(f"{describe_row(row, file)}: {error}") from error
    return pd.Series([converted[value] for value in values], column.index, name=column.name)


def view_positions(column: pd.Series) -> pd.Series:
    """View positions of any archive as "PA", "AP", "LL" (every lateral), or "" for all others.

    Example:
        >>> view_positions(pd.Series(["AP_horizontal", "lateral", "postero-anterior", "COSTAL"])).tolist()
        ['AP', 'LL', 'PA', '']
    """
    return map_values(column, lambda text: find_view(text).position)


def sexes(column: pd.Series) -> pd.Series:
    """Sexes of any archive as "M", "F", or "" for all others; whole words only, since "Mujer" begins with M too.

    Example:
        >>> sexes(pd.Series(["Male", " f", "Mujer", "Missing", "O"])).tolist()
        ['M', 'F', '', '', '']
    """
    return map_values(column, lambda text: _SEXES.get(text.strip().upper(), ""))


def ages(column: pd.Series) -> pd.Series:
    """Ages in years, from numbers or DICOM's AS (PS3.5 section 6.2); NaN for everything else, and for over 120.

    NIH's first table has patients of 412 years, RSNA's headers of 155.

    Example:
        >>> ages(pd.Series(["060Y", "006M", "58", "412", ""])).tolist()
        [60.0, 0.5, 58.0, nan, nan]
    """
    return column.astype(float) if pd.api.types.is_numeric_dtype(column) else map_values(column, _years).astype(float)


def _years(text: str) -> float:
    match = _AGE.fullmatch(text)
    years = float(match[1]) / _PER_YEAR[match[2].upper()] if match else float("nan")
    return years if years <= _MAX_AGE else float("nan")


def check_splits(column: pd.Series, file: str = "") -> pd.Series:
    """Splits as "train", "val", "test" or ""; raises for other words: an image in no split would be trained on."""
    words = column.str.strip().str.lower()
    check_rows(words.isin(list(SPLIT_WORDS)), f"{column.name!r} must be one of {sorted(SPLIT_WORDS)}", file, column)
    return words.map(SPLIT_WORDS)


def check_ages(column: pd.Series, file: str = "") -> pd.Series:
    """`ages` of a column; raises for an entry that is neither an age nor blank."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(float)
    text = _as_text(column)
    valid = text.str.upper().isin(UNKNOWN_WORDS) | text.map(_AGE.fullmatch).notna()
    check_rows(valid, f"{column.name!r} must be years (60), DICOM's 060Y, or blank", file, text)
    return ages(text)


def check_labels(column: pd.Series, file: str = "") -> pd.Series:
    """Labels from 0 to 1, NaN if unknown; raises for other values."""
    if not pd.api.types.is_numeric_dtype(column):
        column = column.astype(object).mask(_as_text(column).str.upper().isin(UNKNOWN_WORDS), np.nan)
    labels = pd.to_numeric(column, errors="coerce").astype(float)
    message = f"labels of {column.name!r} must be 1, 0 or NaN (map uncertain labels first)"
    check_rows(column.isna() | labels.between(0, 1), message, file, column)
    return labels


def _as_text(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "").astype(str).str.strip()


def warn_of_unknown(column: pd.Series, converted: pd.Series, kind: str, file: str = "") -> None:
    """Log which words became unknown ("") although they do not mean that."""
    lost = column[(converted == "") & ~column.str.strip().str.upper().isin(UNKNOWN_WORDS)]
    if len(lost):
        counts = ", ".join(f"{shown(text)!r} ({count})" for text, count in lost.value_counts().head(5).items())
        where = f"{shown(file)}: " if file else ""
        logger.warning(f"{where}{len(lost)} {kind} are not known words and count as unknown: {counts}")
