"""Write the tables of docs/concepts/abstention.md from benchmarks/results/chests.json: no number is copied by hand.

Run: python docs/abstention_tables.py     (after benchmarks/chests.py)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marked import fill as fill_marked
from marked import table

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "chests.json"
PAGE = ROOT / "docs" / "concepts" / "abstention.md"

TABLES = {
    "chests": ("chests", "chests that get no decision"),
    "spoiled": ("spoiled chests", "spoiled chests that get none"),
    "drawn": ("drawn", "drawings that get none"),
    "other": ("other", "others that get none"),
}
"""Name of each table: its key in the result, and its title."""


def fill(page: str) -> str:
    """The page with its tables made anew."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    made = {name: _shares(result[key], title) for name, (key, title) in TABLES.items()}
    return fill_marked(page, "table", made)


def _shares(rows: Mapping[str, Mapping[str, Any]], title: str) -> str:
    lines = [
        [kind, str(row["n"]), f"**{row['flagged']:.1%}**", f"{row['flagged_by_localizer_alone']:.1%}"]
        for kind, row in rows.items()
    ]
    return table([title, "images", "chest check", "lung localizer alone"], lines)


def main() -> None:
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
