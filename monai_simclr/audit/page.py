"""The audit as one HTML page that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_simclr.audit.scan import COUNTED_FIELDS
from monai_simclr.report.figures import contact_sheet, png_bytes
from monai_simclr.report.html import Table, cell, page_template, png_source
from monai_simclr.runtime.files import write_text

_PICTURED = ("polarity", "unlike_a_chest", "not_a_chest", "lateral_among_frontals", "flat")
_MAX_PICTURES = 24
_PER_LINE = 12
_TITLES = {"same_bytes": "the same file", "same_look": "the same picture"}


def write_page(path: str | Path, content: Mapping[str, Any], thumbs: np.ndarray | None = None) -> Path:
    """Write the page of ``audit.json``'s content; with thumbnails, uint8 ``(N, h, w)``, it has contact sheets."""
    strong = sum(row["strong"] for row in content["confounders"])
    shown = content["confounders"][: max(30, min(strong, 120))]  # all strong ones, and the strongest of the others
    same = {kind: facts["first"] for kind, facts in content["duplicates"].items()}
    page = page_template("monai_simclr.audit").render(
        content=content,
        files=[
            _count_table(COUNTED_FIELDS[name], counts)
            for name, counts in content["files"].items()
            if set(counts) != {"(none)"}
        ],
        views=_count_table("view position", content["views"]),
        excluded=_count_table("excluded from the index", content["excluded"]),
        splits=_table("splits", content["splits"]),
        flags=[{**flag, "first": _numbers(flag["rows"], flag["count"])} for flag in content["flags"].values()],
        leaks=_table("patients in several splits", _groups(content["leaks"]["first"])),
        duplicates={kind: _table(_TITLES[kind], _groups(groups)) for kind, groups in same.items()},
        prevalence=_table("prevalence of every finding", [row for row in content["prevalence"] if row["known"]]),
        confounders=_table("how well a nuisance predicts a finding", shown),
        sheets=[] if thumbs is None else _sheets(content, thumbs),
    )
    write_text(path, page)
    return Path(path)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table(title, list(rows[0]) if rows else [], [[_cell(value) for value in row.values()] for row in rows])


def _count_table(title: str, counts: Mapping[str, int]) -> Table:
    return _table(title, [{title: name, "images": count} for name, count in counts.items()])


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:,}" if isinstance(value, int) else cell(value)


def _groups(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first groups of rows, as rows of a table."""
    rows = []
    for group in groups[:_MAX_PICTURES]:
        row = {"rows of the index": _numbers(group["rows"], len(group["rows"])), "splits": group["splits"] or "(none)"}
        rows.append(row | {name.replace("_", " "): group[name] for name in group if name not in ("rows", "splits")})
    return rows


def _numbers(rows: Sequence[int], count: int) -> str:
    return ", ".join(map(str, rows[:_PER_LINE])) + ", ..." * (count > _PER_LINE)


def _sheets(content: Mapping[str, Any], thumbs: np.ndarray) -> list[dict[str, str]]:
    """Contact sheets of flagged images and duplicates."""
    shown = {content["flags"][key]["title"]: content["flags"][key]["rows"] for key in _PICTURED}
    copies = [row for group in content["duplicates"]["same_look"]["first"] for row in group["rows"][:2]]
    shown["the same picture, two of each group next to each other"] = copies
    sheets = []
    for title, rows in shown.items():
        if rows:
            images = thumbs[rows[:_MAX_PICTURES]]
            lines = [images[start : start + _PER_LINE] for start in range(0, len(images), _PER_LINE)]
            source = png_source(png_bytes(contact_sheet(lines, height=96)))
            sheets.append({"title": title, "rows": ", ".join(map(str, rows[:_MAX_PICTURES])), "src": source})
    return sheets
