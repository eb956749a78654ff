"""Publishers' CSV files as text, and the files that their rows name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import read_cells


def find_table(folder: str | Path, *patterns: str) -> Path | None:
    """The first file in a folder that a pattern names, also when it ends in ``.gz``; None if there is none."""
    for pattern in patterns:
        found = sorted([*Path(folder).glob(pattern), *Path(folder).glob(f"{pattern}.gz")])
        files = [path for path in found if path.is_file()]
        if files:
            return files[0]
    return None


def read_text_table(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """`read_cells` of a table that must have some columns.

    Raises:
        ValueError: as `read_cells` does, and if a needed column is missing or there twice (names the file).
    """
    table = read_cells(path)
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(f"{shown(path.name)} lacks the columns {missing}; it has {list(table.columns)}")
    twice = [name for name in table.attrs.pop("repeated") if name in needed]
    if twice:
        raise ValueError(f"{shown(path.name)} has the columns {twice} more than once; keep one of each")
    return table


def base_name(name: str) -> str:
    r"""A file's name without folders, however a table writes them.

    Example:
        >>> base_name("images/0001.png"), base_name(r"images\0001.png"), base_name("0001.png ")
        ('0001.png', '0001.png', '0001.png')
    """
    return name.strip().replace("\\", "/").rpartition("/")[2]


def locate(folders: Sequence[Path], names: pd.Series, suffixes: Sequence[str] = ("",)) -> list[str]:
    """Absolute paths of the files that are called a name with one of the suffixes, in the first folder that has it.

    Folders before a name ("images/0001.png") do not count. A name that no folder has is given the first folder and the
    first suffix, for the message about missing images.
    """
    here: dict[str, str] = {}
    for folder in reversed(list(folders)):
        if folder.is_dir():
            here |= {path.name: str(path.absolute()) for path in folder.iterdir()}
    ends = dict.fromkeys((*suffixes, ""))
    fallback = folders[0].absolute()
    found = []
    for name in map(base_name, names):
        hits = (here.get(name + end) for end in ends)
        found.append(next((hit for hit in hits if hit), str(fallback / f"{name}{suffixes[0]}")))
    return found
