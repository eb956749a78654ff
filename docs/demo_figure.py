"""Draw the README's figure from what a demo left: phantoms, the map of embeddings, scores beside their floors.

Run: monai-simclr demo && python docs/demo_figure.py demo     (writes docs/images/demo.png)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_simclr.data.phantom import FINDINGS, draw_phantom
from monai_simclr.embeddings import Embeddings
from monai_simclr.files import write_atomically
from monai_simclr.report.figures import COLORS, place_on_map
from monai_simclr.report.sections import classes
from monai_simclr.results import read_metrics

PATIENTS = (4, 0, 2, 5)
FLOORS = {"embeddings": "pretrained encoder", "raw pixels": "raw pixels", "random encoder": "random encoder"}
WIDTH, HEIGHT, DPI = 8.6, 3.1, 120


def draw_archive(panels: list[Axes]) -> None:
    """A few of the phantoms."""
    for axes, patient in zip(panels, PATIENTS, strict=True):
        phantom = draw_phantom(patient, 0, 160)
        axes.imshow(phantom.pixels, cmap="gray", vmin=0, vmax=1)
        axes.set_title(phantom.finding, fontsize=7, pad=2)
        axes.set_axis_off()


def draw_map(axes: Axes, embeddings: Embeddings) -> None:
    """The report's map of the test images by their finding."""
    test = embeddings.of_split("test")
    rows, places = place_on_map(test.features)
    found = classes(test.index)[rows]
    for name, color in zip([*FINDINGS, "No Finding"], COLORS, strict=False):
        axes.scatter(*places[found == name].T, s=5, color=color, label=name)
    axes.set(xticks=[], yticks=[])
    axes.set_title("Held-out images, by what no label told", fontsize=8)
    axes.legend(fontsize=5.5, markerscale=1.6, loc="best", framealpha=0.7, handletextpad=0.2)


def draw_scores(axes: Axes, knn: dict[str, Any], few: list[dict[str, Any]]) -> None:
    """Nearest neighbours and few labels, each beside what it must beat."""
    arms = {row["arm"]: row for row in few}
    bars = [(label, knn[name]["value"], COLORS[0 if name == "embeddings" else 7]) for name, label in FLOORS.items()]
    bars.append(("majority", next(iter(knn.values()))["majority"], COLORS[7]))
    bars += [
        ("pretrained, 10 % of labels", arms["pretrained"]["mean"], COLORS[0]),
        ("from scratch, 10 %", arms["scratch"]["mean"], COLORS[7]),
    ]
    places = [0, 1, 2, 3, 5, 6]
    axes.barh(places, [value for _, value, _ in bars], color=[color for *_, color in bars], height=0.72)
    for place, (_, value, _) in zip(places, bars, strict=True):
        axes.text(value + 0.02, place, f"{value:.2f}", va="center", fontsize=7)
    axes.set_yticks(places, [label for label, *_ in bars], fontsize=7)
    axes.text(0, -0.72, "accuracy of 20 nearest neighbors", fontsize=7, fontweight="bold")
    axes.text(0, 4.28, "macro AUROC of a classifier", fontsize=7, fontweight="bold")
    axes.set(xlim=(0, 1.12), ylim=(6.6, -1.15), xticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def figure_of(demo: Path) -> Figure:
    """The whole figure, of a demo's folder."""
    output = demo / "bundle" / "output"
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=[1, 1.15, 1.25])
    draw_archive(list(np.ravel(left.subplots(2, 2))))
    draw_map(middle.subplots(), Embeddings.load(output / "cluster" / "embeddings.npz"))
    few = json.loads((output / "few_label" / "comparison.json").read_text(encoding="utf-8"))
    draw_scores(right.subplots(), read_metrics(output / "cluster")["values"]["knn"], few)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder that monai-simclr demo left")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images" / "demo.png")
    arguments = parser.parse_args()
    with write_atomically(arguments.out) as part:
        figure_of(arguments.demo).savefig(part, format="png", dpi=DPI, facecolor="white")


if __name__ == "__main__":
    main()
