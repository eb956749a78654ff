"""Figures of the pages, and contact sheets; the background of figures is white, for light, dark and print."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from monai_simclr.report.html import Picture, png_source
from monai_simclr.runtime.files import write_atomically

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f", "#882255", "#44aa99")
"""Okabe and Ito's palette first, which colour-blind readers can tell apart."""
_MARKERS = "os^Dv"
_MAP_ROWS = 3000


def place_on_map(features: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two coordinates for the features of at most 3000 images, by t-SNE (van der Maaten and Hinton, 2008).

    Args:
        features: shape ``(N, D)``, N at least 4.
        seed: of the choice of images and of t-SNE.

    Returns:
        Positions of the images that were placed ``(M,)``, and their coordinates ``(M, 2)``.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(features))[:_MAP_ROWS])
    reduced = PCA(min(30, *features[rows].shape), random_state=seed).fit_transform(features[rows])
    perplexity = min(30.0, (len(rows) - 1) / 3)
    spread = reduced.std() or 1.0  # t-SNE of identical features is a single point, not an error
    start = reduced[:, :2] / spread * 1e-4 if reduced.shape[1] > 1 else "random"
    return rows, TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(reduced)


def embedding_map(places: np.ndarray, groups: np.ndarray, title: str) -> str:
    """Scatter plot of places ``(M, 2)``, coloured by group (text, shape ``(M,)``)."""
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for i, name in enumerate(np.unique(groups)):
        marker = _MARKERS[i // len(COLORS) % len(_MARKERS)]
        x, y = places[groups == name].T
        axes.scatter(x, y, s=8, c=COLORS[i % len(COLORS)], marker=marker, label=_literal(name))
    axes.set(xticks=[], yticks=[], title=_literal(title))
    axes.legend(fontsize=7, markerscale=2, loc="best")
    return figure_source(figure)


def reliability_diagram(name: str, pair: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Picture:
    """The `reliability` of a finding before and, where there is a second, after temperature scaling."""
    figure = Figure(figsize=(3.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#7f7f7f", linewidth=0.8, linestyle=":", label=" calibrated")
    lines = zip(pair, (" as it is", " after temperature scaling"), COLORS, _MARKERS, strict=False)
    for (probability, share, _), label, color, marker in lines:
        axes.plot(probability, share, marker=marker, markersize=4, color=color, label=label)
    axes.set(title=_literal(name), xlim=(0, 1), ylim=(0, 1), xlabel="mean probability", ylabel="share of positives")
    figure.legend(fontsize=7, loc="outside lower center", ncols=3, columnspacing=1, frameon=False)
    return Picture(figure_source(figure), f"reliability diagram of {name}: share of positives over mean probability")


_CURVES = {
    "loss": ("contrastive loss", "chance_loss"),
    "top1": ("share of views whose partner is nearest", "chance"),
    "alignment": ("squared distance between the views of an image", ""),
    "uniformity": ("unevenness of the projections (lower is more even)", ""),
    "effective_rank": ("dimensions that the embeddings use (effective rank)", ""),
    "spread": ("spread of the embeddings (1: even in all directions)", ""),
    "images_per_second": ("images per second", ""),
    "data_share": ("share of the time waiting for data", ""),
}
"""Numbers of pretraining's history: in words, and the number beside it that is what chance gives."""
ARM_NAMES = {
    "scratch": "from random weights",
    "random_frozen": "linear probe on a random encoder",
    "frozen": "linear probe on the pretrained encoder",
    "finetuned": "pretrained, fine-tuned",
    "pretrained": "pretrained, fine-tuned",
    "shipped": "shipped encoder, fine-tuned",
    "random_start": "pretrained from random weights, fine-tuned",
}
"""Arms of a study in words."""


def training_curves(history: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """One per number of the history in words, over epochs (or entries, when there is no `epoch`), with chance."""
    epochs = [float(entry.get("epoch", i + 1)) for i, entry in enumerate(history)]
    hidden = {"epoch", "seconds", *(chance for _, chance in _CURVES.values())}
    names = [name for name in history[0] if name not in hidden and isinstance(history[0][name], int | float)][:8]
    pictures = []
    for name in names:
        figure = Figure(figsize=(3.6, 2.4), layout="constrained")
        axes = figure.add_subplot()
        words, chance = _CURVES.get(name, (name.replace("_", " "), ""))
        axes.plot(epochs, [entry.get(name, np.nan) for entry in history], color=COLORS[0], label=" measured")
        if chance in history[0]:
            line = [entry.get(chance, np.nan) for entry in history]
            axes.plot(epochs, line, color="#7f7f7f", linestyle=":", label=" chance")
            axes.legend(fontsize=7)
        axes.set_title(_literal(words), fontsize=8)
        axes.set(xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        pictures.append(Picture(figure_source(figure), f"{words}, over epochs"))
    return pictures


def interval_plot(
    rows: Mapping[str, Sequence[float | None]],
    label: str,
    chance: float | None,
    *,
    chance_name: str = "chance",
    baseline: str = "",
) -> Figure:
    """A line per name from top to bottom: its value, its interval and its baseline, with chance as a line across.

    Args:
        rows: value, lower and upper bound, and baseline, by name; None or NaN where there is none.
        label: of the values.
        chance: what chance gives; None if unknown.
        chance_name, baseline: what the line and the baselines are called.
    """
    figure = Figure(figsize=(6, max(2.2, 0.9 + 0.32 * len(rows))), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(rows))[::-1]
    value, low, high, other = np.array(list(rows.values()), dtype=float).reshape(-1, 4).T
    axes.hlines(places, low, high, color=COLORS[0], linewidth=2)
    axes.plot(value, places, "o", color=COLORS[0], label=" measured")
    if np.isfinite(other).any():
        axes.plot(other, places, "D", color=COLORS[1], markerfacecolor="white", label=_literal(baseline))
    if chance is not None:
        axes.axvline(chance, color="#7f7f7f", linestyle=":", label=_literal(chance_name))
    axes.set_yticks(places, [_literal(ARM_NAMES.get(name, name)) for name in rows])
    axes.set(xlabel=_literal(label), ylim=(-0.6, len(rows) - 0.4))
    figure.legend(fontsize=8, loc="outside upper center", ncols=3)
    return figure


def label_curve(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Macro AUROC over the share of labelled patients, one line per arm.

    The band is the 95 % interval over test patients; the bars are the standard deviation over draws. A second row of an
    arm (compared with another reference) is ignored.

    Args:
        rows: of `compare_arms`: `arm, fraction, mean, sd` and, where there are intervals, `mean_low, mean_high`.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for i, arm in enumerate(dict.fromkeys(str(row["arm"]) for row in rows)):
        points = {row["fraction"]: row for row in reversed(rows) if str(row["arm"]) == arm}
        x = 100 * np.array(sorted(points))
        mean, low, high, sd = (
            np.array([points[fraction].get(name) for fraction in sorted(points)], dtype=float)  # None becomes NaN
            for name in ("mean", "mean_low", "mean_high", "sd")
        )
        color, marker = COLORS[i % len(COLORS)], _MARKERS[i % len(_MARKERS)]
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        axes.errorbar(
            x, mean, np.nan_to_num(sd), marker=marker, capsize=3, color=color, label=_literal(ARM_NAMES.get(arm, arm))
        )
    axes.axhline(0.5, color="#7f7f7f", linewidth=0.8, linestyle=":", label=" chance")
    axes.set(xscale="log", xlabel="train patients with labels (%)", ylabel="macro AUROC on test patients")
    percents = sorted({100 * float(row["fraction"]) for row in rows})
    axes.set_xticks(percents, [f"{percent:g}" for percent in percents])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    return figure


def write_label_curve(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write `label_curve` as PNG, whole or not at all."""
    with write_atomically(path) as part:
        label_curve(rows).savefig(part, format="png", dpi=130, facecolor="white")
    return Path(path)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], height: int | None = None, gap: int = 2, ground: int = 128
) -> np.ndarray:
    """Images in rows, with gaps between them.

    Args:
        rows: images of each row, uint8 ``(h, w)`` or ``(h, w, 3)``, all of a row equally high; a row may be shorter.
        height: resize images to this many pixels; None leaves them as they are.
        gap: pixels between images.
        ground: grey level of the gaps.

    Example:
        >>> image = np.zeros((8, 6), np.uint8)
        >>> contact_sheet([[image, image], [image]], gap=2).shape
        (18, 14)
    """

    def pad(image: np.ndarray, bottom: int, right: int) -> np.ndarray:
        return np.pad(image, [(0, bottom), (0, right), (0, 0)][: image.ndim], constant_values=ground)

    def resize(image: np.ndarray) -> np.ndarray:
        if height is None:
            return image
        width = max(1, round(image.shape[1] * height / image.shape[0]))
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    lines = [
        np.concatenate([pad(resize(np.asarray(image)), gap, gap) for image in row], axis=1) for row in rows if len(row)
    ]
    width = max(line.shape[1] for line in lines)
    sheet = np.concatenate([pad(line, 0, width - line.shape[1]) for line in lines])
    return sheet[: sheet.shape[0] - gap, : width - gap]


def png_bytes(pixels: np.ndarray) -> bytes:
    """Pixels, uint8 ``(H, W)`` or ``(H, W, 3)``, as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def figure_source(figure: Figure) -> str:
    """A figure as the ``src`` of an ``<img>``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white")
    return png_source(buffer.getvalue())


def _literal(text: object) -> str:
    """Text that matplotlib shows as it is: a dollar sign starts mathematics, an underscore first hides a legend."""
    return " " + str(text).replace("$", r"\$")
