"""The audit as one HTML page that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_simclr.report.figures import contact_sheet, png_bytes
from monai_simclr.report.html import Table, cell, page_template, png_source
from monai_simclr.runtime.files import write_text

_PICTURED = ("polarity", "unlike_a_chest", "not_a_chest", "lateral_among_frontals", "flat")
_SHEET = 24
_ROWS_SHOWN = 12
_FILE_TITLES = {
    "problem": "problem with the header",
    "format": "format",
    "modality": "modality",
    "sop_class": "SOP class",
    "transfer_syntax": "transfer syntax",
    "photometric": "photometric interpretation",
    "presentation_lut": "presentation LUT shape",
    "intent": "presentation intent",
    "bits": "bits stored",
    "window": "window",
    "spacing": "pixel spacing",
    "burned_in": "burned-in annotation",
    "manufacturer": "manufacturer",
    "model": "model",
    "damage": "why the reader refuses an image",
}


def write_page(path: str | Path, content: Mapping[str, Any], thumbs: np.ndarray | None = None) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: of the file.
        content: what ``audit.json`` holds.
        thumbs: small pictures of all images, uint8 ``(N, h, w)``, for sheets of what is flagged; None for none.
    """
    page = page_template("monai_simclr.audit").render(
        content=content,
        files=_file_tables(content["files"]),
        views=_counted("view position", content["views"]),
        excluded=_counted("excluded from the index", content["excluded"]),
        splits=_records("splits", content["splits"]),
        flags=[{**flag, "some": _some(flag["rows"], flag["count"])} for flag in content["flags"].values()],
        leaks=_groups("patients in several splits", content["leaks"]["first"]),
        duplicates={kind: _duplicate_table(kind, facts) for kind, facts in content["duplicates"].items()},
        prevalence=_records("prevalence of every finding", [row for row in content["prevalence"] if row["known"]]),
        confounders=_confounders(content["confounders"]),
        sheets=_sheets(content, thumbs),
    )
    write_text(path, page)
    return Path(path)


def _file_tables(files: Mapping[str, Mapping[str, int]]) -> list[Table]:
    """Only what tells something: a field that no file has is left out."""
    return [_counted(_FILE_TITLES[name], counts) for name, counts in files.items() if set(counts) != {"(none)"}]


def _counted(title: str, counts: Mapping[str, int]) -> Table:
    return Table(title, [title, "images"], [[name, _cell(count)] for name, count in counts.items()])


def _records(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(rows[0]) if rows else []
    return Table(title, columns, [[_cell(row[name]) for name in columns] for row in rows])


def _groups(title: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    rows = [[", ".join(group["splits"]), _some(group["rows"], len(group["rows"]))] for group in groups[:_SHEET]]
    return Table(title, ["splits", "rows of the index"], rows)


def _duplicate_table(kind: str, facts: Mapping[str, Any]) -> Table:
    title = {"same_bytes": "the same file", "same_look": "the same picture"}[kind]
    rows = [
        [
            _some(group["rows"], len(group["rows"])),
            ", ".join(group["splits"]) or "(none)",
            *("yes" if group[name] else "" for name in ("across_splits", "across_patients", "labels_differ")),
        ]
        for group in facts["first"][:_SHEET]
    ]
    return Table(title, ["rows of the index", "splits", "across splits", "across patients", "labels differ"], rows)


def _confounders(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Everything strong, and the strongest of the rest."""
    strong = sum(row["strong"] for row in rows)
    shown = [dict(row) for row in rows[: max(30, min(strong, 120))]]
    for row in shown:
        row["strong"] = "strong" if row["strong"] else ""
    return _records("how well a nuisance tells a finding", shown)


def _some(rows: Sequence[int], count: int) -> str:
    text = ", ".join(str(row) for row in rows[:_ROWS_SHOWN])
    return f"{text}, ..." if count > _ROWS_SHOWN else text


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else cell(value)


def _sheets(content: Mapping[str, Any], thumbs: np.ndarray | None) -> list[dict[str, str]]:
    if thumbs is None:
        return []
    wanted = [(content["flags"][key]["title"], content["flags"][key]["rows"]) for key in _PICTURED]
    look_alike = [row for group in content["duplicates"]["same_look"]["first"] for row in group["rows"][:2]]
    wanted.append(("the same picture, two of each group side by side", look_alike))
    sheets = []
    for title, rows in wanted:
        if rows:
            images = thumbs[rows[:_SHEET]]
            pixels = contact_sheet([images[start : start + 12] for start in range(0, len(images), 12)], height=96)
            numbers = ", ".join(str(row) for row in rows[:_SHEET])
            sheets.append({"title": title, "rows": numbers, "src": png_source(png_bytes(pixels))})
    return sheets
