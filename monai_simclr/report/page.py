"""The report: one self-contained HTML page, readable in light, dark and print, that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from monai_simclr.embeddings import Embeddings
from monai_simclr.files import write_text
from monai_simclr.findings import NO_FINDING
from monai_simclr.report.figures import contact_sheet, embedding_map, few_label_figure, place_on_map, training_curve
from monai_simclr.report.tables import Table, results_tables, version_table

__all__ = ["write_report"]

_NO_FINDINGS = {"image", "patient_id", "study_id", "view_position", "sex", "age", "split", "source", "manufacturer",
                "lung_mask"}  # fmt: skip
_SHEET = 8


def write_report(
    path: str | Path,
    *,
    title: str,
    notice: str,
    metrics: Mapping[str, Mapping[str, Any]],
    embeddings: Embeddings | None = None,
    clusters: np.ndarray | None = None,
    thumbnails: np.ndarray | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    commands: Sequence[str] = (),
) -> Path:
    """Write the report, whole or not at all. A section without its input says so.

    The maps, clusters and contact sheets are of test images where the index has any, of all images otherwise. Contact
    sheets show patients' images: treat the page as patient data.

    Args:
        path: of the HTML file.
        title: of the page.
        notice: a banner ("phantoms: says nothing about patients"); "" for none.
        metrics: what `read_metrics` gave, by command; "few_label" holds the rows of `compare_arms` as its values.
        embeddings: of N images.
        clusters: of the same images, shape ``(N,)``.
        thumbnails: of the same images, uint8 ``(N, h, w)``.
        history: one mapping an epoch.
        commands: that made the results.

    Returns:
        The path.

    Raises:
        ValueError: if clusters or thumbnails do not go with the embeddings, or come without.
    """
    _check(embeddings, clusters, thumbnails)
    rows = np.array([], dtype=int) if embeddings is None else _shown(embeddings)
    classes = np.array([]) if embeddings is None else _classes(embeddings.index)
    few = metrics.get("few_label", {}).get("values")
    page = _template().render(
        title=title,
        notice=notice,
        results=results_tables(metrics),
        maps=[] if embeddings is None or len(rows) < 4 else _maps(embeddings, rows, classes),
        crosses=[] if clusters is None else [_cross(clusters[rows], classes[rows])],
        sheets=_sheets(embeddings, clusters, thumbnails, rows),
        few=few_label_figure(few) if few else "",
        curve=training_curve(history) if history else "",
        versions=[version_table(metrics)] if metrics else [],
        commands=commands,
    )
    write_text(path, page)
    return Path(path)


def _check(embeddings: Embeddings | None, clusters: np.ndarray | None, thumbnails: np.ndarray | None) -> None:
    images = 0 if embeddings is None else len(embeddings)
    for name, values in {"clusters": clusters, "thumbnails": thumbnails}.items():
        if values is not None and len(values) != images:
            raise ValueError(
                f"{len(values)} {name} do not go with {images} embeddings; pass the same images in one order"
            )


def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("monai_simclr.report", package_path=".")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "page.html"
    )


def _shown(embeddings: Embeddings) -> np.ndarray:
    test = (
        np.flatnonzero(embeddings.index["split"] == "test") if "split" in embeddings.index else np.array([], dtype=int)
    )
    return test if len(test) else np.arange(len(embeddings))


def _classes(index: pd.DataFrame) -> np.ndarray:
    """The one finding of every image, "No Finding", "several", or "unknown"."""
    names = [name for name in index.columns if name not in _NO_FINDINGS]
    labels = index[names].to_numpy(dtype=float)
    positive = labels == 1
    classes = np.full(len(index), "several", dtype=object)
    one = positive.sum(axis=1) == 1
    if names:
        classes[one] = np.array(names, dtype=object)[positive[one].argmax(axis=1)]
    none = ~positive.any(axis=1)
    classes[none] = np.where(np.isnan(labels[none]).any(axis=1) | (not names), "unknown", NO_FINDING)
    return classes.astype(str)


def _maps(embeddings: Embeddings, rows: np.ndarray, classes: np.ndarray) -> list[dict[str, str]]:
    placed, places = place_on_map(embeddings.features[rows])
    chosen = rows[placed]
    groups = {"class": classes[chosen]}
    if "view_position" in embeddings.index:
        view = embeddings.index["view_position"].astype(object).fillna("").astype(str).to_numpy()[chosen]
        groups["view position"] = np.where(view == "", "unknown", view)
    return [
        {"src": embedding_map(places, values, f"by {name}"), "alt": f"embedding map of {len(chosen)} images by {name}"}
        for name, values in groups.items()
    ]


def _cross(clusters: np.ndarray, classes: np.ndarray) -> Table:
    table = pd.crosstab(pd.Series(clusters, name="cluster"), pd.Series(classes, name="class"))
    rows = [
        [str(name), *(str(count) for count in row)] for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return Table("images by cluster and class", ["cluster", *(str(name) for name in table.columns)], rows)


def _sheets(
    embeddings: Embeddings | None, clusters: np.ndarray | None, thumbnails: np.ndarray | None, rows: np.ndarray
) -> list[dict[str, str]]:
    """Of every cluster, the images nearest to its mean."""
    if embeddings is None or clusters is None or thumbnails is None:
        return []
    sheets = []
    for cluster in np.unique(clusters[rows]):
        members = rows[clusters[rows] == cluster]
        features = embeddings.features[members]
        nearest = members[np.linalg.norm(features - features.mean(axis=0), axis=1).argsort(kind="stable")[:_SHEET]]
        alt = f"cluster {cluster}: the {len(nearest)} nearest of {len(members)} images"
        sheets.append({"src": contact_sheet(np.asarray(thumbnails[nearest])), "alt": alt})
    return sheets
