"""CSV: one way to write tables, which spreadsheets open safely, and one strict way to read them, ours and others'."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.runtime.files import write_atomically
from monai_simclr.runtime.names import encodable, escape, shown, unescape

_LARGEST = 2**31
"""Bytes that a table may have when inflated."""
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def table_text(table: pd.DataFrame, index_label: str | None = None) -> str:
    """A table as CSV, its text and names of columns escaped by `names.escape`; with its index if that has a label.

    Example:
        >>> table_text(pd.DataFrame({"image": ["=1.png"], "change": [-0.5]})).splitlines()
        ['image,change', "'=1.png,-0.5"]
    """
    safe = table.copy(deep=False)
    safe.columns = pd.Index([_cell(name) for name in table.columns], dtype=object)
    for place, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            values = table.iloc[:, place].tolist()
            text = {value: escape(value) for value in set(filter(_is_text, values))}
            cells = [text[value] if _is_text(value) else value for value in values]
            safe.isetitem(place, pd.Series(cells, dtype=object).array)
    return str(safe.to_csv(index=index_label is not None, index_label=index_label, lineterminator="\n"))


def write_table(table: pd.DataFrame, path: str | Path, index_label: str | None = None) -> Path:
    """Write a table as `table_text` gives it, whole or not at all."""
    with write_atomically(path) as part:
        part.write_bytes(table_text(table, index_label).encode())
    return Path(path)


def write_rows(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write rows as CSV as they come, whole or not at all; text is escaped as in `table_text`."""
    with write_atomically(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([_cell(name) for name in header])
        table.writerows([_cell(value) for value in row] for row in rows)
    return Path(path)


def read_text(path: str | Path) -> str:
    """A text file of anyone's: UTF-8, or UTF-16 and UTF-32 with a byte order mark; ``.gz`` is inflated.

    Raises:
        ValueError: if it is in another encoding, or damaged (names the file).
    """
    path = Path(path)
    zipped = path.suffix == ".gz"
    try:
        with (gzip.open if zipped else open)(path, "rb") as file:
            data = file.read(_LARGEST + 1 if zipped else -1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{shown(path.name)} is a damaged .gz file ({error}); download it again") from error
    if zipped and len(data) > _LARGEST:
        raise ValueError(f"{shown(path.name)} inflates to more than {_LARGEST:,} bytes, which no table of images has")
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{shown(path.name)} is not {encoding.upper().removesuffix('-SIG')}: line {line} has bytes that are not "
            "text; save the file as UTF-8"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"{shown(path.name)} holds NUL characters: it is damaged, or UTF-16 without a byte order mark; save it as "
            "UTF-8"
        )
    return text


def _encoding(data: bytes) -> str:
    return next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")


def read_cells(path: str | Path) -> pd.DataFrame:
    """Every cell of a CSV file as text, so that patient "00123" is not patient "123" and "None" is not missing.

    Names of columns are stripped. The second column of a name is called ``name.1``, and ``attrs["repeated"]`` lists
    such names. For encodings see `read_text`.

    Raises:
        ValueError: if it is not CSV, or a line has fewer or more cells than the header, or the last line was cut (names
            the file and the line).
    """
    path = Path(path)
    text = read_text(path)
    header, n_last = _check_shape(text, path)
    columns = [name.strip() for name in header]
    names = [name or f"column {place + 1}" for place, name in enumerate(columns)]
    unique = [
        f"{name}.{names[:place].count(name)}" if name in names[:place] else name for place, name in enumerate(names)
    ]
    try:
        table = pd.read_csv(
            io.StringIO(text), dtype=str, keep_default_na=False, index_col=False, names=unique, header=0
        ).astype(object)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{shown(path.name)} cannot be read as CSV: {error}") from error
    if not text.endswith(("\n", "\r")):
        _check_end(table, min(n_last, len(names)) - 1, path)
    table.attrs["repeated"] = sorted({name for name in columns if name and columns.count(name) > 1})
    return table


def read_table(path: str | Path) -> pd.DataFrame:
    """`read_cells` of a table of ours, its cells and names of columns unescaped."""
    return unescaped_text(read_cells(path))


def unescaped_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table with the text and the names of columns that it had before `table_text` escaped them."""
    plain = table.copy(deep=False)
    for place, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            values = [unescape(value) if _is_text(value) else value for value in table.iloc[:, place]]
            if values != table.iloc[:, place].tolist():
                hold_odd_names(filter(_is_text, values))
                plain.isetitem(place, np.array(values, dtype=object))
    return plain.rename(columns=lambda name: unescape(str(name)))


def hold_odd_names(names: Iterable[str]) -> None:
    """Let pandas keep names that are not UTF-8, if there is one among these.

    Where pyarrow is installed, pandas 3 keeps text in Arrow's memory, which cannot hold them and raises. From then on
    this process keeps new text in Python objects, which behaves the same.
    """
    if any(encodable(name) != name for name in names):
        pd.set_option("mode.string_storage", "python")


def read_csv_header(path: str | Path) -> list[str]:
    """Names of a CSV file's columns, stripped; [] for a file of any other kind."""
    path = Path(path)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            data = file.read(1 << 16)
        text = data.decode(_encoding(data), "replace")
        return [] if "\0" in text else [name.strip() for name in next(csv.reader(text.splitlines()), [])]
    except (OSError, EOFError, zlib.error, csv.Error):
        return []


def _cell(value: Any) -> Any:
    return escape(value) if _is_text(value) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _check_shape(text: str, path: Path) -> tuple[list[str], int]:
    """The header, and how many cells the last line has; raises if a line does not fit the header."""
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next((line for line in lines if line), [])
        if not any(name.strip() for name in header):
            raise ValueError(f"{shown(path.name)} is empty: it has no header")
        needed = max(place for place, name in enumerate(header) if name.strip()) + 1
        n_last = needed
        for line in lines:
            if line and (len(line) < needed or any(line[len(header) :])):
                short = len(line) < needed
                raise ValueError(
                    f"{shown(path.name)}, line {lines.line_num}: {len(line)} cells, but the header has {len(header)}; "
                    + ("the line was cut: write or download the file again" if short else "quote the cells")
                )
            n_last = len(line) or n_last
    except csv.Error as error:
        raise ValueError(f"{shown(path.name)}, line {lines.line_num}: not CSV ({error})") from error
    return header, n_last


def _check_end(table: pd.DataFrame, place: int, path: Path) -> None:
    """Raise if the last cell of a file without a last line end looks cut: empty, or a part of the others' form."""
    if len(table) < 2:
        return
    *others, cell = map(str, table.iloc[:, place])
    filled = [value for value in others if value]
    one_length = len(filled) > 2 and len({len(value) for value in filled}) == 1
    part = one_length and any(len(value) > len(cell) and value.startswith(cell) for value in filled)
    if (cell == "" and len(filled) == len(others)) or (cell != "" and part):
        raise ValueError(
            f"{shown(path.name)}, line {len(table) + 1}: the file ends within the line, after {cell!r} in the column "
            f"{table.columns[place]!r}, so it was cut; write or download it again (a whole file ends with a line end)"
        )
