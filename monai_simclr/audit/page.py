"""The audit as one HTML page that needs no network and no script."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_simclr.audit.scan import COUNTED_FIELDS
from monai_simclr.report.figures import png_bytes
from monai_simclr.report.html import Table, cell, page_template, png_source
from monai_simclr.runtime.files import write_text
from monai_simclr.runtime.names import shown

_GROUPS = 24
_FILES = 12
_TITLES = {"same_bytes": "the same file", "same_look": "the same picture"}


class _File(NamedTuple):
    """How a file is shown: its name or the number of its row, and the ``src`` of its thumbnail ("" for none)."""

    name: str
    thumbnail: str


def write_page(
    path: str | Path,
    content: Mapping[str, Any],
    thumbs: np.ndarray | None = None,
    paths: Sequence[str] | None = None,
) -> Path:
    """Write the page of ``audit.json``'s content.

    Args:
        path: of the HTML file.
        content: of ``audit.json``.
        thumbs: thumbnails of all N images, uint8 ``(N, h, w)``; None shows none.
        paths: of all N images; their names below the folder that all share are shown. None shows the numbers of rows.

    Returns:
        The path.
    """
    strong = sum(row["strong"] for row in content["confounders"])
    confounders = content["confounders"][: max(30, min(strong, 120))]  # all strong ones, the strongest of the others
    root = os.path.commonpath([os.path.dirname(name) for name in paths]) if paths else ""

    def files(rows: Sequence[int]) -> list[_File]:
        return [
            _File(
                f"row {row}" if paths is None else f"{shown(os.path.relpath(paths[row], root))} (row {row})",
                ""
                if thumbs is None or not thumbs[row].any()
                else png_source(png_bytes(thumbs[row])),  # 0: not readable
            )
            for row in rows[:_FILES]
        ]

    flags = [{**flag, "files": files(flag["rows"])} for flag in content["flags"].values()]
    page = page_template("monai_simclr.audit").render(
        content=content,
        pictured=thumbs is not None,
        named=paths is not None,
        counts=[
            _count_table(COUNTED_FIELDS[name], counts)
            for name, counts in content["files"].items()
            if set(counts) != {"(none)"}
        ],
        views=_count_table("view position", content["views"]),
        excluded=_count_table("excluded from the index", content["excluded"]),
        splits=_table("splits", content["splits"]),
        flags=flags,
        leaks=_groups(content["leaks"]["first"], files),
        duplicates={kind: _groups(facts["first"], files) for kind, facts in content["duplicates"].items()},
        titles=_TITLES,
        prevalence=_table("prevalence of every finding", [row for row in content["prevalence"] if row["known"]]),
        confounders=_table("how well a nuisance predicts a finding", confounders),
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


def _groups(groups: Sequence[Mapping[str, Any]], files: Any) -> list[dict[str, Any]]:
    """The first groups of rows, with their files and what is known of them."""
    return [
        {
            "files": files(group["rows"]),
            "more": max(0, len(group["rows"]) - _FILES),
            "splits": ", ".join(group["splits"]) or "(none)",
            "facts": [name.replace("_", " ") for name, value in group.items() if value is True],
        }
        for group in groups[:_GROUPS]
    ]
