"""Draw what computing is worth in pretraining, and how one pretraining went, from the tries on validation patients.

Run: python docs/scaling_figure.py     (after benchmarks/scaling.py; writes scaling.png and curve.png in docs/images)
"""

from __future__ import annotations

import itertools
from pathlib import Path

from matplotlib.figure import Figure
from result_tables import scaling_rows

from monai_simclr.report.figures import COLORS
from monai_simclr.runtime.files import write_atomically

FRACTIONS = ("2 %", "10 %", "100 %")
"""Of the train patients' labels; the areas of a row are in this order."""


STARTED = {False: (COLORS[0], "o"), True: (COLORS[1], "^")}
"""Color and marker of a try, by whether it continued from an encoder."""


def figure_of() -> Figure:
    """A panel a fraction of labels: AUROC against training compute, with the band of what was not pretrained."""
    rows = scaling_rows()
    tries = [row for row in rows if row["settings"]]
    floors = [row for row in rows if not row["settings"]]
    figure = Figure(figsize=(8.6, 2.9), layout="constrained")
    for k, (axes, fraction) in enumerate(zip(figure.subplots(1, 3), FRACTIONS, strict=True)):
        low, high = (bound(row["areas"][k] for row in floors) for bound in (min, max))
        axes.axhspan(low, high, color=COLORS[7], alpha=0.3, linewidth=0, label="not pretrained: pixels, random, tone")
        for row in tries:
            color, marker = STARTED[row["settings"]["start"] is not None]
            axes.scatter(row["tflop"], row["areas"][k], s=22, color=color, marker=marker)
        for continued, (color, marker) in STARTED.items():
            label = "continued from an encoder" if continued else "from random weights"
            axes.scatter([], [], s=22, color=color, marker=marker, label=label)
        axes.set_xscale("log")
        axes.set_title(f"probe with {fraction} of the labels", fontsize=8)
        axes.set_xlabel("training compute, TFLOP (estimated)", fontsize=7)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("macro AUROC of six findings,\nvalidation patients", fontsize=7)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False
    )
    return figure


def curve_of(name: str = "long, seed 1") -> Figure:
    """A panel each for the loss, the share of partners found and the probe, by epoch, with the size of the views."""
    points = next(row for row in scaling_rows() if row["name"] == name)["curve"]
    epochs = [point["epoch"] for point in points]
    probed = [point for point in points if "areas" in point]
    figure = Figure(figsize=(8.6, 2.7), layout="constrained")
    loss, found, area = figure.subplots(1, 3)
    loss.plot(epochs, [point["loss"] for point in points], color=COLORS[0])
    found.plot(epochs, [100 * point["top1"] for point in points], color=COLORS[0])
    for k, fraction in enumerate(FRACTIONS):
        values = [point["areas"][k] for point in probed]
        area.plot([point["epoch"] for point in probed], values, marker="o", markersize=3, color=COLORS[k])
        area.annotate(fraction, (probed[-1]["epoch"], values[-1]), (4, -2), textcoords="offset points", fontsize=7)
    titles = (
        "loss, mean of the epoch",
        "partner found, % of a batch's views",
        "probe, macro AUROC, validation patients",
    )
    for axes, title in zip((loss, found, area), titles, strict=True):
        for before, after in itertools.pairwise(points):
            if before["size"] != after["size"]:
                axes.axvline(before["epoch"] + 0.5, color=COLORS[7], linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("epoch", fontsize=7)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for size in dict.fromkeys(point["size"] for point in points):
        own = [point["epoch"] for point in points if point["size"] == size]
        loss.annotate(
            f"{size} px", (sum(own) / len(own), 0.93), xycoords=("data", "axes fraction"), fontsize=7, ha="center"
        )
    return figure


def main() -> None:
    """Write the figures."""
    for name, figure in (("scaling", figure_of()), ("curve", curve_of())):
        with write_atomically(Path(__file__).parent / "images" / f"{name}.png") as part:
            figure.savefig(part, format="png", dpi=144, facecolor="white")


if __name__ == "__main__":
    main()
