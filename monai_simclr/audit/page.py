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
    """How a file is shown: its name, its row, and the ``src`` of its thumbnail; "" for what is not shown."""

    name: str
    row: str
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
    above = [row for row in content["confounders"] if row["auroc"] > row["chance"]]
    confounders = above[: max(30, min(strong, 120))]  # all strong ones, the strongest of the others
    root = os.path.commonpath([os.path.dirname(name) for name in paths]) if paths else ""

    def files(rows: Sequence[int]) -> list[_File]:
        return [
            _File(
                "" if paths is None else shown(os.path.relpath(paths[row], root)),
                f"row {row}",
                ""
                if thumbs is None or not thumbs[row].any()
                else png_source(png_bytes(thumbs[row])),  # 0: not readable
            )
            for row in rows[:_FILES]
        ]

    flags = [{**flag, "files": files(flag["rows"])} for flag in content["flags"].values()]
    found = [flag for flag in flags if flag["count"]]
    harmless = [flag for flag in found if flag["remedy"].startswith("nothing")]
    had = {row["finding"] for row in content["prevalence"] if row["positive images"]}
    absent = dict.fromkeys(row["finding"] for row in content["prevalence"] if row["finding"] not in had)
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
        asking=[flag for flag in found if flag not in harmless],
        harmless=harmless,
        nothing=[flag for flag in flags if not flag["count"]],
        leaks=_groups(content["leaks"]["first"], files),
        duplicates=_duplicates(content["duplicates"], files),
        titles=_TITLES,
        prevalence=_prevalence([row for row in content["prevalence"] if row["finding"] in had]),
        absent=list(absent),
        confounders=_table("how well a nuisance predicts a finding", [_in_words(row) for row in confounders]),
        weak=len(content["confounders"]) - len(above),
    )
    write_text(path, page)
    return Path(path)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table(title, list(rows[0]) if rows else [], [[_cell(value) for value in row.values()] for row in rows])


def _count_table(title: str, counts: Mapping[str, int]) -> Table:
    return _table(title, [{"": name, "images": count} for name, count in counts.items()])


def _prevalence(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row per finding, and a column per split: "285 of 3,068 (9.3 %), 133 patients"."""
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        share = f" ({row['prevalence']:.1%})" if row["known"] else ""
        cells = table.setdefault(row["finding"], {"finding": row["finding"]})
        n = row["positive patients"]
        patients = f"{n:,} patient{'s' * (n != 1)}"
        cells[row["split"]] = f"{row['positive images']:,} of {row['known']:,}{share}, {patients}"
    return _table("images with every finding, of those with a label for it", list(table.values()))


def _in_words(row: Mapping[str, Any]) -> dict[str, Any]:
    names = {"bytes": "size of the file", "pixels": "size of the picture", **COUNTED_FIELDS}
    nuisance = names.get(row["nuisance"], row["nuisance"].replace("_", " "))
    return {"AUROC" if name == "auroc" else name: value for name, value in {**row, "nuisance": nuisance}.items()}


def _duplicates(duplicates: Mapping[str, Mapping[str, Any]], files: Any) -> dict[str, list[dict[str, Any]]]:
    """The groups of each kind; one of the same file is not listed as the same picture again."""
    same_file = [group["rows"] for group in duplicates["same_bytes"]["first"]]
    return {
        kind: _groups([row for row in facts["first"] if kind == "same_bytes" or row["rows"] not in same_file], files)
        for kind, facts in duplicates.items()
    }


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
