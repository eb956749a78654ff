"""Figures of the report, each a PNG as text for an ``<img>``; their ground is white, for light, dark and print."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from monai_simclr.report.html import png_source

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f", "#882255", "#44aa99")
"""Okabe and Ito's palette first: told apart by colour-blind readers."""
_MAP_ROWS = 3000


def place_on_map(features: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two coordinates for the features of at most 3000 images, by t-SNE (van der Maaten and Hinton, 2008).

    Args:
        features: shape ``(N, D)``, N at least 4.
        seed: of the choice of images and of t-SNE.

    Returns:
        Positions of the images that were placed ``(M,)``, and their coordinates ``(M, 2)``.
    """
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.permutation(len(features))[:_MAP_ROWS])
    chosen = features[rows]
    reduced = PCA(min(30, *chosen.shape), random_state=seed).fit_transform(chosen)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    spread = reduced.std() or 1.0  # t-SNE of features that are all alike is a single point, not an error
    start = reduced[:, :2] / spread * 1e-4 if reduced.shape[1] > 1 else "random"
    return rows, TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(reduced)


def embedding_map(places: np.ndarray, groups: np.ndarray, title: str) -> str:
    """Scatter plot of places ``(M, 2)``, coloured by group (text, shape ``(M,)``)."""
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for i, name in enumerate(np.unique(groups)):
        x, y = places[groups == name].T
        axes.scatter(x, y, s=8, c=COLORS[i % len(COLORS)], marker="os^Dv"[i // len(COLORS) % 5], label=plain(name))
    axes.set(xticks=[], yticks=[], title=plain(title))
    axes.legend(fontsize=7, markerscale=2, loc="best")
    return as_source(figure)


def contact_sheet(near: Sequence[np.ndarray], far: Sequence[np.ndarray] = ()) -> str:
    """One row of grey images, uint8 ``(h, w)`` each: the nearest, a gap, and the farthest."""
    places = len(near) + len(far) + (1 if len(far) else 0)
    figure = Figure(figsize=(1.1 * places, 1.1), layout="constrained")
    for place, image in [*enumerate(near, 1), *enumerate(far, len(near) + 2)]:
        axes = figure.add_subplot(1, places, place)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
    return as_source(figure)


def reliability_diagrams(curves: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]]) -> str:
    """One panel a finding: what `reliability` gave before and, where there is a second, after temperature scaling."""
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.6 * rows), layout="constrained")
    for i, (name, pair) in enumerate(curves.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.plot([0, 1], [0, 1], color="#7f7f7f", linewidth=0.8, linestyle=":")
        for (said, seen, _), label, color, marker in zip(pair, ("as they are", "scaled"), COLORS, "os", strict=False):
            axes.plot(said, seen, marker=marker, markersize=4, color=color, label=label)
        axes.set(title=plain(name), xlim=(0, 1), ylim=(0, 1), xlabel="mean probability", ylabel="share of positives")
        axes.legend(fontsize=6)
    return as_source(figure)


def training_curve(history: Sequence[Mapping[str, Any]]) -> str:
    """One panel a number of the history, over epochs (or entries, when there is no `epoch`)."""
    epochs = [float(entry.get("epoch", i + 1)) for i, entry in enumerate(history)]
    names = [name for name in history[0] if name != "epoch" and isinstance(history[0][name], int | float)][:8]
    columns = min(len(names), 3) or 1
    rows = -(-len(names) // columns) or 1
    figure = Figure(figsize=(3.2 * columns, 2.3 * rows), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.plot(epochs, [entry.get(name, np.nan) for entry in history], color=COLORS[0])
        axes.set(title=plain(name), xlabel="epoch")
    return as_source(figure)


def plain(text: object) -> str:
    """Text for matplotlib as it is: a dollar sign would start mathematics, an underscore first hides a legend."""
    return " " + str(text).replace("$", r"\$")


def as_source(figure: Figure) -> str:
    """A figure as PNG in the text of an ``src``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return png_source(buffer.getvalue())
