"""Draw the README's figure from what a demo left: phantoms, the map of embeddings, scores next to their baselines.

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

from monai_simclr.data import image_classes
from monai_simclr.data.phantoms import FINDINGS, draw_phantom
from monai_simclr.evaluation import Embeddings
from monai_simclr.report.figures import COLORS, place_on_map
from monai_simclr.runtime.files import write_atomically
from monai_simclr.runtime.metrics import read_metrics

PATIENTS = (4, 0, 2, 5)
FEATURES = {"encoder": "pretrained encoder", "raw pixels": "raw pixels", "random encoder": "random encoder"}
WIDTH, HEIGHT, DPI = 8.6, 3.1, 144


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
    found = image_classes(test.index, several="several", unknown="unknown")[rows]
    for name, color in zip([*FINDINGS, "No Finding"], COLORS, strict=False):
        axes.scatter(*places[found == name].T, s=5, color=color, label=name)
    axes.set(xticks=[], yticks=[])
    axes.set_title("Held-out images, as the encoder sees them", fontsize=8)
    axes.legend(fontsize=5.5, markerscale=1.6, loc="best", framealpha=0.7, handletextpad=0.2)


def draw_scores(axes: Axes, knn: dict[str, Any], few: list[dict[str, Any]]) -> None:
    """Nearest neighbours and few labels, each beside what it must beat; lines are 95 % intervals, and sd over draws."""
    arms = {row["arm"]: row for row in few}
    bars = [(label, *(knn[name][key] for key in ("value", "low", "high"))) for name, label in FEATURES.items()]
    bars.append(("majority", *[knn["encoder"]["majority"]] * 3))
    for arm, label in (("pretrained", "pretrained, fine-tuned"), ("scratch", "from scratch")):
        mean, sd = arms[arm]["mean"], arms[arm]["sd"]
        bars.append((label, mean, mean - sd, mean + sd))
    places = [0, 1, 2, 3, 5, 6]
    colors = [COLORS[0] if "pretrained" in label else COLORS[7] for label, *_ in bars]
    axes.barh(places, [value for _, value, *_ in bars], color=colors, height=0.72)
    for place, (_, value, low, high) in zip(places, bars, strict=True):
        axes.plot([low, high], [place, place], color="black", linewidth=1)
        axes.text(1.24, place, f"{value:.2f}", va="center", ha="right", fontsize=7)
    axes.set_yticks(places, [label for label, *_ in bars], fontsize=7)
    for place, text in ((-0.75, "accuracy, 20 nearest neighbors"), (4.25, "macro AUROC, 10 % of the labels")):
        axes.text(1.24, place, text, fontsize=7, fontweight="bold", ha="right")
    axes.set(xlim=(0, 1.24), ylim=(6.6, -1.2), xticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)


def figure_of(demo: Path) -> Figure:
    """The whole figure, of a demo's folder."""
    output = demo / "bundle" / "output"
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=[1, 1.2, 1.2])
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
