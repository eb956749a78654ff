"""The figure of a label-efficiency study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from monai_simclr.report.figures import COLORS, plain
from monai_simclr.runtime.files import write_atomically


def label_curve(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Macro AUROC over the share of labelled patients, one line an arm.

    The band is the 95 % interval over test patients; the bars are the standard deviation over draws. A second row of an
    arm (it is compared with two references) is left out.

    Args:
        rows: of `compare_arms`: `arm, fraction, mean, sd` and, where there are intervals, `mean_low, mean_high`.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for i, arm in enumerate(dict.fromkeys(str(row["arm"]) for row in rows)):
        mine = {row["fraction"]: row for row in reversed(rows) if str(row["arm"]) == arm}
        points = [mine[fraction] for fraction in sorted(mine)]
        x = 100 * np.array([row["fraction"] for row in points])
        mean, low, high, sd = (
            np.array([np.nan if row.get(name) is None else row[name] for row in points], dtype=float)
            for name in ("mean", "mean_low", "mean_high", "sd")
        )
        color = COLORS[i % len(COLORS)]
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        axes.errorbar(x, mean, np.nan_to_num(sd), marker="os^Dv"[i % 5], capsize=3, color=color, label=plain(arm))
    axes.axhline(0.5, color="#7f7f7f", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="train patients with labels (%)", ylabel="macro AUROC on test patients")
    shown = sorted({100 * float(row["fraction"]) for row in rows})
    axes.set_xticks(shown, [f"{percent:g}" for percent in shown])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    return figure


def write_label_curve(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write `label_curve` as PNG, whole or not at all."""
    with write_atomically(path) as part:
        label_curve(rows).savefig(part, format="png", dpi=130, facecolor="white")
    return Path(path)
