"""The columns of an index, whoever wrote it: words to ours, ages to years, labels to numbers, or which row cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from monai_simclr.data.sources.wording import SPLIT_WORDS, UNKNOWN_WORDS, age_in_years, sex, split_word, view_position
from monai_simclr.runtime.names import shown

logger = logging.getLogger("monai_simclr.data")


def place(row: int, name: str = "") -> str:
    """Where a row stands, for a message: in a file by its line (the header is line 1), in a table by its number.

    Example:
        >>> place(0), place(0, "index.csv")
        ('row 0', 'index.csv, row 2')
    """
    return f"{shown(name)}, row {row + 2}" if name else f"row {row}"


def check_columns(columns: Sequence[str], needed: Sequence[str], name: str = "") -> None:
    """Raise `ValueError` if a needed column is missing, or one stands there twice."""
    said = f"{shown(name)}: " if name else ""
    missing = [one for one in needed if one not in columns]
    if missing:
        raise ValueError(f"{said}the index lacks the columns {missing}; it has {list(columns)}")
    twice = sorted({str(one) for one in columns if list(columns).count(one) > 1})
    if twice:
        raise ValueError(f"{said}the index has the columns {twice} more than once; keep one of each")


def split_column(column: pd.Series, name: str = "") -> pd.Series:
    """ "train", "val", "test" or "" of every entry.

    Raises:
        ValueError: if a word is none that we know: an image in no split would be trained on.
    """

    def known(text: str) -> str:
        word = split_word(text)
        if word is None:
            row = int(np.flatnonzero(column == text)[0])
            raise ValueError(
                f"{place(row, name)}: the split {shown(text)!r} is none of {sorted(SPLIT_WORDS)}; see the column "
                f"{column.name!r}"
            )
        return word

    return _mapped(column, known)


def view_column(column: pd.Series, name: str = "") -> pd.Series:
    """ "PA", "AP", "LL" or "" of every entry; what is none of them becomes "" and the log says so."""
    return _words(column, view_position, "view positions", name)


def sex_column(column: pd.Series, name: str = "") -> pd.Series:
    """ "M", "F" or "" of every entry; what is neither becomes "" and the log says so."""
    return _words(column, sex, "sexes", name)


def age_column(column: pd.Series, name: str = "") -> pd.Series:
    """Years of every entry, as a number or DICOM's "060Y"; NaN for blank, and for over 120.

    Raises:
        ValueError: if an entry is no age.
    """
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(float)

    def years(value: object) -> float:
        text = "" if value is None or value is pd.NA else str(value).strip()
        if text.upper() in UNKNOWN_WORDS:
            return float("nan")
        found = age_in_years(text)
        if found != found and not age_in_years(text, oldest=float("inf")) > 0:
            row = int(np.flatnonzero(column.astype(object) == value)[0])
            raise ValueError(
                f"{place(row, name)}: {shown(text)!r} in {column.name!r} is no age; write years (60), DICOM's 060Y, or "
                "leave it blank"
            )
        return found

    return _mapped(column, years).astype(float)


def label_column(column: pd.Series, name: str = "") -> pd.Series:
    """Labels from 0 to 1, NaN where unknown.

    Raises:
        ValueError: if a label is something else.
    """
    if not pd.api.types.is_numeric_dtype(column):
        text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
        column = column.astype(object).mask(text.str.upper().isin(UNKNOWN_WORDS), np.nan)
    values = pd.to_numeric(column, errors="coerce").astype(float)
    bad = np.flatnonzero(column.notna() & ~values.between(0, 1))
    if len(bad):
        raise ValueError(
            f"labels must be 1, 0 or NaN, got {shown(column.iloc[bad[0]])} for {column.name!r} in "
            f"{place(int(bad[0]), name)}; map uncertain labels first"
        )
    return values


def _words(column: pd.Series, word: Callable[[str], str], what: str, name: str) -> pd.Series:
    found = _mapped(column, word)
    lost = column[(found == "") & ~column.str.strip().str.upper().isin(UNKNOWN_WORDS)]
    if len(lost):
        shares = ", ".join(f"{shown(text)!r} ({count})" for text, count in lost.value_counts().head(5).items())
        where = f"{shown(name)}: " if name else ""
        logger.warning(f"{where}{len(lost)} {what} are none that we know and count as unknown: {shares}")
    return found


def _mapped(column: pd.Series, word: Callable) -> pd.Series:
    """Every different entry is looked at once."""
    values = column.tolist()
    words = {value: word(value) for value in dict.fromkeys(values)}
    return pd.Series([words[value] for value in values], column.index, name=column.name)
