"""Any CSV file with a map from its columns to ours; pixels are not touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.columns import place
from monai_simclr.data.findings import NO_FINDING, canonical_finding
from monai_simclr.data.index import COLUMNS, OPTIONAL_COLUMNS, coerce_index
from monai_simclr.data.sources.identity import patients_by_name
from monai_simclr.data.sources.tables import read_text_table

_WORDS = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "": np.nan}


def read_table(
    path: str | Path, columns: Mapping[str, str], findings: Sequence[str] = (), patient_pattern: str = ""
) -> pd.DataFrame:
    """Image index of a CSV file.

    Args:
        path: of the file.
        columns: from a column of ours to one of the file's; "image" is needed (relative paths start at the file's
            folder), `patient_id` should be there. "labels" names a column with findings joined by ``|``.
        findings: columns of the file that are labels (1, 0, true, false, yes, no, or blank for unknown); with "labels",
            which findings to label, all that occur when left out.
        patient_pattern: regular expression for the patient in an image's name, for a file without a column of patients.

    Returns:
        The index; columns of the file that are not named are left out.

    Raises:
        ValueError: if a column is missing or unknown, a split or a label is none that we know (says the row).

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp(), "cases.csv")
        >>> _ = path.write_text("file,pid,gender,opacity\\n1.png,007,Male,yes\\n2.png,008,Female,no\\n")
        >>> names = {"image": "file", "patient_id": "pid", "sex": "gender"}
        >>> read_table(path, names, ["opacity"])[["patient_id", "sex", "opacity"]].to_numpy().tolist()
        [['007', 'M', 1.0], ['008', 'F', 0.0]]
    """
    path = Path(path)
    known = {*COLUMNS, *OPTIONAL_COLUMNS, "labels"}
    unknown = sorted(set(columns) - known)
    if unknown or "image" not in columns:
        raise ValueError(f"columns must map image and any of {sorted(known)}, got {dict(columns)}; unknown: {unknown}")
    by_columns = [] if "labels" in columns else list(findings)
    table = read_text_table(path, [*columns.values(), *by_columns])
    names = table[columns["image"]]
    index = pd.DataFrame({ours: table[columns[ours]] if ours in columns else "" for ours in COLUMNS})
    index["image"] = [str((path.parent / name).absolute()) for name in names]
    if "patient_id" not in columns or patient_pattern:
        index["patient_id"] = patients_by_name(names.tolist(), patient_pattern, path.name)
    for name in OPTIONAL_COLUMNS:
        if name in columns:
            index[name] = table[columns[name]]
    if "labels" in columns:
        return coerce_index(pd.concat([index, _joined(table[columns["labels"]], findings)], axis=1), path.name)
    labels = [_labels(path, table[name]).rename(canonical_finding(name)) for name in by_columns]
    return coerce_index(pd.concat([index, *labels], axis=1), path.name)


def _labels(path: Path, column: pd.Series) -> pd.Series:
    labels = column.str.strip().str.lower().map({**_WORDS, "nan": np.nan, "-1": "?", "-1.0": "?"})
    bad = np.flatnonzero((labels == "?") | (labels.isna() & ~column.str.strip().str.lower().isin(["", "nan"])))
    if len(bad):
        raise ValueError(
            f"{place(int(bad[0]), path.name)}: the label {column.iloc[bad[0]]!r} for {column.name!r} is none of 1, 0, "
            "true, false, yes, no and blank; map uncertain labels first"
        )
    return labels.astype(float)


def _joined(column: pd.Series, findings: Sequence[str]) -> pd.DataFrame:
    said = [{canonical_finding(part) for part in text.split("|") if part.strip()} for text in column]
    names = list(findings) or sorted(set().union(*said) - {NO_FINDING})
    values = [[float(name in names_said) if names_said else np.nan for name in names] for names_said in said]
    return pd.DataFrame(values, columns=pd.Index(names))
