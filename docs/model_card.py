"""Write the figures of a trained classifier into the bundle: `eval_metrics` of metadata.json, the table of its page.

Run: python docs/model_card.py BUNDLE/output/evaluate     (after configs/evaluate.json, before the bundle is given away)
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
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
    n, rows = metrics["n"], metrics["values"]["findings"]
    baselines = {row["finding"]: row["baseline"] for row in metrics["baselines"]["confounder_baseline"]}
    lines = [
        [
            name.replace("_", " "),
            "" if row.get("positives") is None else f"{row['positives']:.0f}",
            auroc(row),
            f"{baselines[name]:.3f}" if baselines.get(name) is not None else "-",
        ]
        for name, row in rows.items()
        if row.get("auroc") is not None
    ]
    unsure = [name.replace("_", " ") for name, row in rows.items() if name != "macro mean" and not _above_chance(row)]
    warning = f"\n**Not shown to be above chance here: {', '.join(unsure)}.** Do not use them.\n" if unsure else ""
    head = [f"finding ({n['images']} images, {n['patients']} patients)", "positives", "AUROC [95 %]", "view, age, sex"]
    return f"AUROC on the split `{metrics['split']}`, held-out patients:\n\n{marked.table(head, lines)}{warning}"


def auroc(row: dict[str, Any]) -> str:
    """AUROC and its interval, where it has one."""
    interval = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['auroc']:.3f}{interval}"


def _above_chance(row: dict[str, Any]) -> bool:
    """Whether the interval is known and all of it above 0.5."""
    return row.get("low") is not None and row["low"] > 0.5


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
