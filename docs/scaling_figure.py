"""Draw what computing is worth in pretraining, from the tries on validation patients.

Run: python docs/scaling_figure.py     (after benchmarks/scaling.py; writes docs/images/scaling.png)
"""

from __future__ import annotations

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
    figure.axes[0].legend(fontsize=6, loc="upper left", frameon=False)
    return figure


def main() -> None:
    """Write the figure."""
    with write_atomically(Path(__file__).parent / "images" / "scaling.png") as part:
        figure_of().savefig(part, format="png", dpi=144, facecolor="white")


if __name__ == "__main__":
    main()
