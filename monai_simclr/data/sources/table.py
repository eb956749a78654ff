"""Any CSV file with a map from its columns to ours; pixels are not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.columns import check_rows
from monai_simclr.data.findings import NO_FINDING, canonical_finding
from monai_simclr.data.index import COLUMNS, OPTIONAL_COLUMNS, coerce_index
from monai_simclr.data.sources.base import patients_by_name, read_text_table

_LABELS = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), 1.0),
    **dict.fromkeys(("0", "0.0", "false", "no"), 0.0),
    **dict.fromkeys(("", "nan"), np.nan),
}


def read_table(
    path: str | Path, columns: Mapping[str, str], findings: Sequence[str] = (), patient_pattern: str = ""
) -> pd.DataFrame:
    """Image index of a CSV file.

    Args:
        path: of the file.
        columns: from a column of ours to one of the file's; "image" is needed (relative paths start at the file's
            folder), `patient_id` is recommended. "labels" names a column with findings joined by ``|``.
        findings: columns of the file that are labels (1, 0, true, false, yes, no, or blank for unknown); with "labels",
            which findings to label, by default all that occur.
        patient_pattern: regular expression for the patient in an image's name, for a file without a column of patients.

    Returns:
        The index; columns of the file that are not named are dropped.

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
    label_columns = [] if "labels" in columns else list(findings)
    table = read_text_table(path, [*columns.values(), *label_columns])
    ours = [*COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in columns)]
    index = pd.DataFrame({name: table[columns[name]] if name in columns else "" for name in ours})
    if "patient_id" not in columns or patient_pattern:
        index["patient_id"] = patients_by_name(index["image"].tolist(), patient_pattern, path.name)
    index["image"] = [str((path.parent / name).absolute()) for name in index["image"]]
    if "labels" in columns:
        present = [
            {canonical_finding(part) for part in text.split("|") if part.strip()} for text in table[columns["labels"]]
        ]
        names = list(findings) or sorted(set().union(*present) - {NO_FINDING})
        rows = [[float(name in labels) if labels else np.nan for name in names] for labels in present]
        labels = pd.DataFrame(rows, columns=pd.Index(names))
    else:
        labels = pd.DataFrame(index=index.index)
        for name in label_columns:
            words = table[name].str.strip().str.lower()
            message = f"{name!r} must be 1, 0, true, false, yes, no or blank (map uncertain labels first)"
            check_rows(words.isin(list(_LABELS)), message, path.name, table[name])
            labels[name] = words.map(_LABELS).astype(float)
        labels = labels.rename(columns=canonical_finding)
    return coerce_index(pd.concat([index, labels], axis=1), path.name)
