"""Write the figures of a trained classifier into the bundle: `eval_metrics` of metadata.json, the table of its page.

Run: python docs/model_card.py BUNDLE/output/evaluate     (after configs/evaluate.json, before the bundle is given away)
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import marked

BUNDLE = Path(__file__).resolve().parent.parent / "bundles" / "chest_xray_simclr"


def eval_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """AUROC of every finding that has one, and their mean, as the zoo shows them."""
    rows = metrics["values"]["findings"]
    known = {name: row["auroc"] for name, row in rows.items() if row.get("auroc") is not None}
    return {f"{name} AUROC": round(value, 3) for name, value in known.items()}


def performance(metrics: dict[str, Any]) -> str:
    """The table, and the sentence above it."""
    n = metrics["n"]
    rows = metrics["values"]["findings"]
    baselines = {row["finding"]: row for row in metrics["baselines"]["confounder_baseline"]}
    lines = [
        [
            name.replace("_", " "),
            "" if row.get("positives") is None else f"{row['positives']:.0f}",
            auroc(row),
            *against(baselines.get(name, {})),
        ]
        for name, row in rows.items()
        if row.get("auroc") is not None
    ]
    head = [f"finding ({n['images']} images, {n['patients']} patients)", "positives", "AUROC [95 %]"]
    head += ["view, age, sex", "difference [95 %]"]
    table = marked.table(head, lines)
    told = [f"AUROC on the split `{metrics['split']}`, held-out patients:", table, *warnings(rows, baselines)]
    return "\n\n".join(part.strip() for part in told) + "\n"


def warnings(rows: Mapping[str, Mapping[str, Any]], baselines: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Which findings are not shown to be above chance, and which of the others not above view, age and sex."""
    findings = [name for name in rows if name != "macro mean"]
    chance = [name for name in findings if not _above(rows[name].get("low"), 0.5)]
    known = [name for name in findings if name not in chance]
    facts = [name for name in known if not _above(baselines.get(name, {}).get("low"), 0)]
    if chance:
        yield fill(f"**Not shown to be above chance here: {_words(chance)}.** Do not use them.", 120)
    if facts:
        yield fill(
            f"**Above chance, but not shown to be above view, age and sex: {_words(facts)}.** Their difference, paired "
            "by patient, has an interval that is not above 0, so that the film may add nothing. Do not use them.",
            120,
        )
    without = [name for name in findings if baselines.get(name, {}).get("baseline") is None]
    if without and len(without) < len(findings):
        yield f"The macro means leave out, for want of patients: {_words(without)}."


def against(baseline: Mapping[str, Any]) -> tuple[str, str]:
    """The baseline's AUROC, and how far above it the model is, with the interval of the difference."""
    if baseline.get("baseline") is None:
        return "-", "-"
    low, high = baseline.get("low"), baseline.get("high")
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    return f"{baseline['baseline']:.3f}", f"{baseline['difference']:+.3f}{interval}"


def auroc(row: dict[str, Any]) -> str:
    """AUROC and its interval, where it has one."""
    interval = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['auroc']:.3f}{interval}"


def _above(low: float | None, value: float) -> bool:
    """Whether the lower end of an interval is known and above a value."""
    return low is not None and low > value


def _words(findings: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in findings)


def write(run: Path, bundle: Path = BUNDLE) -> None:
    """Fill both places from the metrics.json of a run."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8")) | {"eval_metrics": eval_metrics(metrics)}
    text = json.dumps(metadata, indent=4, ensure_ascii=False)
    text = re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text)  # pairs stand in one line
    path.write_text(text + "\n", encoding="utf-8")
    page = bundle / "docs" / "README.md"
    filled = marked.fill(page.read_text(encoding="utf-8"), "figures", {"performance": performance(metrics)})
    page.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
