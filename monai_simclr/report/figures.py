"""Figures of the report, each a PNG as text for an ``<img>``; their ground is white, for light, dark and print."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

__all__ = ["COLORS", "contact_sheet", "embedding_map", "few_label_figure", "place_on_map", "plain", "training_curve"]

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
    return _png(figure)


def contact_sheet(thumbnails: np.ndarray) -> str:
    """One row of grey images, uint8 ``(n, h, w)``."""
    figure = Figure(figsize=(1.1 * len(thumbnails), 1.1), layout="constrained")
    for i, image in enumerate(thumbnails):
        axes = figure.add_subplot(1, len(thumbnails), i + 1)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
    return _png(figure)


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
    return _png(figure)


def few_label_figure(rows: Sequence[Mapping[str, Any]]) -> str:
    """Macro AUROC over the label fraction, one line an arm, with the standard deviation over draws."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for i, arm in enumerate(dict.fromkeys(str(row["arm"]) for row in rows)):
        mine = sorted((row for row in rows if str(row["arm"]) == arm), key=lambda row: row["fraction"])
        spread = [row.get("sd") or 0.0 for row in mine]
        x, y = [100 * row["fraction"] for row in mine], [row["mean"] for row in mine]
        axes.errorbar(x, y, spread, marker="o", capsize=3, color=COLORS[i % len(COLORS)], label=plain(arm))
    axes.set(xscale="log", xlabel="train patients with labels (%)", ylabel="macro AUROC, mean and sd over draws")
    axes.legend()
    return _png(figure)


def plain(text: object) -> str:
    """Text for matplotlib as it is: a dollar sign would start mathematics, an underscore first hides a legend."""
    return " " + str(text).replace("$", r"\$")


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
