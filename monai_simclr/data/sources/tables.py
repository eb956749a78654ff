"""Publishers' CSV files as text, and the files that their rows name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

__all__ = ["find_table", "locate", "read_text_table"]


def find_table(folder: str | Path, *patterns: str) -> Path | None:
    """The first file in a folder that a pattern names, also when it ends in ``.gz``; None if there is none."""
    for pattern in patterns:
        found = sorted([*Path(folder).glob(pattern), *Path(folder).glob(f"{pattern}.gz")])
        if found:
            return found[0]
    return None


def read_text_table(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """Every cell of a CSV file as text, so that patient "00123" is not patient "123" and "None" stays a word.

    Raises:
        ValueError: if a needed column is missing, or a line does not fit (names the file).
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read as CSV in UTF-8: {error}") from error
    table.columns = [name.strip() for name in table.columns]
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(f"{path.name} lacks the columns {missing}; it has {list(table.columns)}")
    return table


def locate(folders: Sequence[Path], names: pd.Series, suffixes: Sequence[str] = ("",)) -> list[str]:
    """Absolute paths of the files that are called a name with one of the suffixes, in the first folder that has it.

    A name that no folder has is given the first folder and the first suffix, for the message about missing images.
    """
    here: dict[str, str] = {}
    for folder in reversed(list(folders)):
        if folder.is_dir():
            here |= {path.name: str(path.absolute()) for path in folder.iterdir()}
    ends = dict.fromkeys(suffixes)
    fallback = folders[0].absolute()
    found = []
    for name in names:
        hits = (here.get(name + end) for end in ends)
        found.append(next((hit for hit in hits if hit), str(fallback / f"{name}{suffixes[0]}")))
    return found
