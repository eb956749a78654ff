"""Audit of an archive: facts of its files to a table, to ``audit.json`` and to a page that opens offline."""

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
from monai_simclr.audit.scan import COUNTED_FIELDS, scan
from monai_simclr.audit.splits import duplicate_facts, leaking_patients, prevalence, split_sizes
from monai_simclr.data.open import open_index
from monai_simclr.runtime.cluster import check_engine
from monai_simclr.runtime.files import write_json
from monai_simclr.runtime.metrics import package_versions
from monai_simclr.runtime.progress import Wording, shown_progress
from monai_simclr.runtime.tables import write_table

_MAX_VALUES = 30


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        content: of ``audit.json``.
        page: the HTML page.
    """

    content: dict[str, Any]
    page: Path

    @property
    def leaks(self) -> list[str]:
        """One message per kind of leak between splits; empty if there is none."""
        return list(self.content["leaks"]["messages"])


def run_audit(
    dataset_dir: str | Path,
    output_dir: str | Path,
    *,
    pixels: bool = False,
    workers: int = 2,
    pictures: bool = False,
    names: bool = False,
    options: Mapping[str, Any] | None = None,
    engine: str = "",
) -> Audit:
    """Audit an archive or an index, valid or not, and write ``audit.json``, ``images.csv`` and ``index.html``.

    Nothing that is written names a patient, unless it is asked for: images are identified by the number of their row in
    the index (from 0, in the order of `open_index`); no path, id, date or free text of a header is kept.

    Args:
        dataset_dir: anything that `open_index` recognises.
        output_dir: folder for the three files.
        pixels: read every image too: damage, duplicates by their look, polarity, unlike a chest, borders.
        workers: processes that read.
        pictures: thumbnails (32 x 32) of flagged images and duplicates on the page, which then is patient data.
        names: names of these files on the page, which then may name patients.
        options: see `monai_simclr.data.SourceOptions`.
        engine: what spreads the reading, see `monai_simclr.runtime.cluster.open_executor`.

    Returns:
        The result; `leaks` is empty if training may start.

    Raises:
        FileNotFoundError: if there is no such archive.
        ValueError: if it is not a table of images, or pictures are requested without pixels.
        SettingError: if there is no such engine.
        OSError: if a worker was killed twice.
    """
    if pictures and not pixels:
        raise ValueError("pictures are made of pixels; add --pixels")
    check_engine(engine)
    index = open_index(dataset_dir, check=False, **{"engine": engine, **(options or {})})
    paths = index["image"].tolist()
    with shown_progress(Wording("reading files", "read")) as progress:
        facts, hashes, thumbs = scan(paths, pixels, workers, lambda done: progress(done, len(paths), 0), engine)
    group = {"same_bytes": same_bytes(paths, facts["bytes"].to_numpy())}
    if pixels:
        group["same_look"] = near_duplicates(hashes, thumbs)
    patients = leaking_patients(index)
    duplicates = {kind: duplicate_facts(index, groups) for kind, groups in group.items()}
    messages = [f"patients in more than one split: {len(patients)}"] if patients else []
    for kind, name in (("same_bytes", "files"), ("same_look", "pictures")):
        times = duplicates[kind]["across_splits"] if kind in duplicates else 0
        messages += [f"{name} in more than one split: {times}"] if times else []
    content = {
        "recognised": index.attrs.get("recognised", ""),
        "excluded": index.attrs.get("excluded", {}),
        "images": len(index),
        "patients": int(index["patient_id"].replace("", np.nan).nunique()),
        "rows_without_patient": int((index["patient_id"] == "").sum()),
        "rows_with_an_image_again": int(index["image"].duplicated().sum()),
        "pixels": "same_look" in group,
        "leaks": {"patients": len(patients), "first": patients[:200], "messages": messages},
        "has_splits": bool((index["split"] != "").any()),
        "splits": split_sizes(index),
        "views": _value_counts(index["view_position"]),
        "files": {name: _value_counts(facts[name]) for name in COUNTED_FIELDS if name in facts},
        "flags": flag_rows(index, facts),
        "duplicates": duplicates,
        "prevalence": prevalence(index),
        "confounders": confounders(index, facts),
        "versions": package_versions(),
    }
    output = Path(output_dir)
    write_table(facts.assign(**group), output / "images.csv", index_label="row")
    write_json(output / "audit.json", content)
    page = output / "index.html"
    return Audit(content, write_page(page, content, thumbs if pictures else None, paths if names else None))


def _value_counts(column: pd.Series) -> dict[str, int]:
    """Number of rows of the 30 most frequent values; "" is "(none)"."""
    counts = column.astype(str).replace({"": "(none)", "-1": "(none)"}).value_counts()
    values = {str(name): int(count) for name, count in counts.iloc[:_MAX_VALUES].items()}
    others = counts.iloc[_MAX_VALUES:]
    return {**values, f"{len(others)} others": int(others.sum())} if len(others) else values
