"""Write the tables of docs/results.md that come from benchmarks/results, so that no number is copied by hand.

Run: python docs/result_tables.py     (after a run of benchmarks/tries.py, or a study and benchmarks/real_floor.py)
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)
Row = dict[str, str]

QUESTIONS = {
    "kermany Pneumonia": "Kermany Pneumonia",
    "kermany Bacteria": "bacteria / virus",
    "nih Pneumonia": "NIH Pneumonia",
}
"""Columns of the tries, and what they ask."""

STUDIES = {
    ("kermany", "Pneumonia"): "Kermany, Pneumonia",
    ("kermany", "Bacteria"): "Kermany, bacteria against virus",
    ("nih", "macro mean"): "NIH, Pneumonia",
}
"""Study and finding of its table, and their name; with one finding the macro mean is that finding."""

ARMS = ("scratch", "finetuned", "frozen", "random_frozen")
FLOORS = ("pixels", "tone")


def read(path: Path) -> list[Row]:
    """Rows of a CSV file below benchmarks/results."""
    with open(RESULTS / path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def gap(difference: float, low: float, high: float, places: int = 3) -> str:
    """A difference and its interval, bold where the interval leaves 0 out.

    Example:
        >>> gap(0.05, 0.01, 0.1), gap(-0.02, -0.05, 0.01)
        ('**+0.050 [0.010, 0.100]**', '-0.020 [-0.050, 0.010]')
    """
    text = f"{difference:+.{places}f} [{low:.{places}f}, {high:.{places}f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def tries(which: str) -> str:
    """Tries of a round of `benchmarks/tries.py`, the best mean first, and its floors."""
    head = ["try", *QUESTIONS.values(), "mean of nine", "minus base at 2 %", "at 10 %"]
    rows = []
    for row in read(Path(f"tries_{which}.csv")):
        areas = [" / ".join(f"{float(row[f'{name}, {share}%']):.2f}" for share in (2, 10, 100)) for name in QUESTIONS]
        gaps = [
            "" if row["name"] == "base" else gap(*ast.literal_eval(row[f"minus base, {share}%"])) for share in (2, 10)
        ]
        rows.append([row["name"], *areas, f"{float(row['mean']):.3f}", *gaps])
    return table(head, rows)


def study() -> str:
    """Every fraction of the two studies: the arms and floors, and the two differences that the study is about."""
    head = ["data, finding", "patients", "draws", "scratch", "fine-tuned", "frozen", "random, frozen", "pixels",
            "3 numbers", "fine-tuned minus scratch", "draws resampled too", "frozen minus random"]  # fmt: skip
    return table(head, [line for (name, finding), title in STUDIES.items() for line in _study(name, finding, title)])


def _study(name: str, finding: str, title: str) -> list[list[str]]:
    floors = {
        (row["fraction"], row["arm"]): float(row["mean"])
        for row in read(Path(f"real_pack/{name}_floors.csv"))
        if row["images"] == "all" and row["finding"] in (finding, "Pneumonia" if finding == "macro mean" else finding)
    }
    by: dict[str, dict[tuple[str, str], Row]] = {}
    for row in read(Path(f"real_pack/{name}.csv")):
        if row["finding"] == finding:
            by.setdefault(row["fraction"], {})[row["arm"], row["reference"]] = row
    lines = []
    for fraction, rows in by.items():
        against, frozen = rows["finetuned", "scratch"], rows["frozen", "random_frozen"]
        areas = [f"{float(rows[arm, 'scratch']['mean']):.3f}" for arm in ARMS]
        areas += [f"{floors[fraction, floor]:.3f}" for floor in FLOORS]
        share = f"{against['patients']} ({100 * float(fraction):g} %)"
        lines.append(
            [title, share, against["draws"], *areas, _tested(against), _gap_of(against, "_draws"), _tested(frozen)]
        )
    return lines


def _gap_of(row: Row, which: str = "") -> str:
    return gap(*(float(row[key]) for key in ("difference", f"low{which}", f"high{which}")))


def _tested(row: Row) -> str:
    return f"{_gap_of(row)}, p {float(row['p_holm']):.3f}"


MAKERS = {"tries_default": lambda: tries("default"), "tries_mild": lambda: tries("mild"), "study": study}
"""Name of a table in the page -> what makes it."""


def fill(page: str) -> str:
    """The page with every marked table as the results have it now."""
    return MARKED.sub(lambda found: f"{found[1]}{MAKERS[found[2]]()}{found[3]}", page)


def main() -> None:
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
