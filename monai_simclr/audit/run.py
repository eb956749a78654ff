"""One pass over an archive: facts to a table, to ``audit.json`` and to a page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.audit.confounders import confounders
from monai_simclr.audit.duplicates import near_duplicates, same_bytes
from monai_simclr.audit.flags import flag_rows
from monai_simclr.audit.page import write_page
from monai_simclr.audit.scan import scan
from monai_simclr.audit.splits import duplicate_facts, leaking_patients, prevalence, split_sizes
from monai_simclr.data.open import open_index
from monai_simclr.runtime.files import write_json
from monai_simclr.runtime.metrics import package_versions
from monai_simclr.runtime.progress import Wording, shown_progress
from monai_simclr.runtime.tables import write_table

_COUNTED = (
    "problem",
    "format",
    "modality",
    "sop_class",
    "transfer_syntax",
    "photometric",
    "presentation_lut",
    "intent",
    "bits",
    "window",
    "spacing",
    "burned_in",
    "manufacturer",
    "model",
    "damage",
)
_MOST = 30


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        content: what ``audit.json`` holds.
        page: the HTML page.
    """

    content: dict[str, Any]
    page: Path

    @property
    def leaks(self) -> list[str]:
        """A sentence for every kind of leak between splits; empty when there is none."""
        return list(self.content["leaks"]["sentences"])


def run_audit(
    dataset_dir: str | Path,
    output_dir: str | Path,
    *,
    pixels: bool = False,
    workers: int = 2,
    pictures: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Audit:
    """Audit an archive or an index, sound or not, and write ``audit.json``, ``images.csv`` and ``index.html``.

    Nothing that is written names a patient: images go by the number of their row in the index (from 0, in the order of
    `open_index`); no path, id, date or free text of a header is kept.

    Args:
        dataset_dir: anything that `open_index` recognises.
        output_dir: folder for the three files.
        pixels: read every image too: damage, duplicates by their look, polarity, unlike a chest, borders.
        workers: processes that read.
        pictures: small pictures (32 x 32) of flagged images and duplicates on the page, which then is patient data.
        options: see `SourceOptions`.

    Returns:
        What was found; `leaks` is empty when training may start.

    Raises:
        FileNotFoundError: if there is no such archive.
        ValueError: if it is no table of images, or pictures are wanted without pixels.
        OSError: if a worker dies.
    """
    if pictures and not pixels:
        raise ValueError("pictures are made of pixels; add --pixels")
    index = open_index(dataset_dir, check=False, **(options or {}))
    paths = index["image"].tolist()
    with shown_progress(Wording("reading files", "read")) as progress:
        facts, hashes, thumbs = scan(paths, pixels, workers, lambda done: progress(done, len(paths), 0))
    group = {"same_bytes": same_bytes(paths, facts["bytes"].to_numpy())}
    if pixels:
        group["same_look"] = near_duplicates(hashes, thumbs)
    content = _content(index, facts, group)
    output = Path(output_dir)
    write_table(pd.concat([facts, pd.DataFrame(group)], axis=1), output / "images.csv", index_label="row")
    write_json(output / "audit.json", content)
    write_page(output / "index.html", content, thumbs if pictures else None)
    return Audit(content, output / "index.html")


def _content(index: pd.DataFrame, facts: pd.DataFrame, group: Mapping[str, np.ndarray]) -> dict[str, Any]:
    duplicates = {name: duplicate_facts(index, groups) for name, groups in group.items()}
    patients = leaking_patients(index)
    twice = int(index["image"].duplicated().sum())
    return {
        "recognised": index.attrs.get("recognised", ""),
        "excluded": index.attrs.get("excluded", {}),
        "images": len(index),
        "patients": int(index["patient_id"].replace("", np.nan).nunique()),
        "rows_without_patient": int((index["patient_id"] == "").sum()),
        "rows_with_an_image_again": twice,
        "pixels": "same_look" in group,
        "leaks": {"patients": len(patients), "first": patients[:200], "sentences": _sentences(patients, duplicates)},
        "splits": split_sizes(index),
        "views": _counts(index["view_position"]),
        "files": {name: _counts(facts[name]) for name in _COUNTED if name in facts},
        "flags": flag_rows(index, facts),
        "duplicates": duplicates,
        "prevalence": prevalence(index),
        "confounders": confounders(index, facts),
        "versions": package_versions(),
    }


def _sentences(patients: list[dict[str, Any]], duplicates: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    if patients:
        found.append(f"{len(patients)} patients are in more than one split")
    names = {"same_bytes": "the same file", "same_look": "the same picture"}
    for kind, facts in duplicates.items():
        if facts["across_splits"]:
            found.append(f"{names[kind]} is in more than one split, {facts['across_splits']} times")
    return found


def _counts(column: pd.Series) -> dict[str, int]:
    """How often each value stands there, the 30 most frequent; "" is "(none)"."""
    counts = column.astype(str).replace({"": "(none)", "-1": "(none)"}).value_counts()
    named = {str(name): int(count) for name, count in counts.iloc[:_MOST].items()}
    return named if len(counts) <= _MOST else {**named, f"{len(counts) - _MOST} others": int(counts.iloc[_MOST:].sum())}
