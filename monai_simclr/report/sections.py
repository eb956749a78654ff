"""What the sections of the report show, made from the material."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.findings import NO_FINDING
from monai_simclr.evaluation import Embeddings
from monai_simclr.evaluation.calibration import fit_temperature, reliability
from monai_simclr.evaluation.predictions import certain_labels, sigmoid
from monai_simclr.evaluation.subgroups import demographic_groups
from monai_simclr.report.figures import contact_sheet, embedding_map, place_on_map, reliability_diagrams
from monai_simclr.report.html import Table
from monai_simclr.report.material import ReportData

_NO_FINDINGS = {
    "image",
    "patient_id",
    "study_id",
    "view_position",
    "sex",
    "age",
    "split",
    "source",
    "manufacturer",
    "lung_mask",
}
_SHEET = 6
Figure = dict[str, str]


def runs_table(material: ReportData) -> Table:
    """What was run, on which patients."""
    rows = []
    for name, content in material.metrics.items():
        if "command" not in content:  # a comparison of runs, shown in a section of its own
            continue
        n = content.get("n") or {}
        counts = ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in n.items())
        rows.append(
            [name, str(content.get("split", "")), counts, str(content.get("seed", "")), str(content.get("created", ""))]
        )
    return Table("what was run", ["run", "scored on", "counts", "seed", "when"], rows)


def shown(embeddings: Embeddings) -> np.ndarray:
    """Positions of the test images, of all images where there are none."""
    index = embeddings.index
    test = np.flatnonzero(index["split"] == "test") if "split" in index else np.array([], dtype=int)
    return test if len(test) else np.arange(len(embeddings))


def classes(index: pd.DataFrame) -> np.ndarray:
    """The one finding of every image, "No Finding", "several", or "unknown"."""
    names = [name for name in index.columns if name not in _NO_FINDINGS]
    labels = certain_labels(index[names].to_numpy(dtype=float))
    positive = labels == 1
    found = np.full(len(index), "several", dtype=object)
    one = positive.sum(axis=1) == 1
    if names:
        found[one] = np.array(names, dtype=object)[positive[one].argmax(axis=1)]
    none = ~positive.any(axis=1)
    found[none] = np.where(np.isnan(labels[none]).any(axis=1) | (not names), "unknown", NO_FINDING)
    return found.astype(str)


def maps(embeddings: Embeddings) -> list[Figure]:
    """The same map, coloured by finding, view position, sex, age and source, as far as the index has them."""
    rows = shown(embeddings)
    if len(rows) < 4:
        return []
    placed, places = place_on_map(embeddings.features[rows])
    index = embeddings.index.iloc[rows[placed]]
    groups = {"finding": classes(index), **demographic_groups(index)}
    figures = []
    for name, values in groups.items():
        if len(set(values) - {""}) < 2 and name != "finding":
            continue
        named, title = np.where(values == "", "unknown", values), name.replace("_", " ")
        alt = f"embedding map of {len(index)} images by {title}"
        figures.append({"src": embedding_map(places, named, f"by {title}"), "alt": alt, "name": title})
    return figures


def cross_table(material: ReportData) -> list[Table]:
    """Test images by cluster and class."""
    if material.clusters is None or material.embeddings is None:
        return []
    rows = shown(material.embeddings)
    table = pd.crosstab(
        pd.Series(material.clusters[rows], name="cluster"),
        pd.Series(classes(material.embeddings.index.iloc[rows]), name="class"),
    )
    cells = [[str(name), *map(str, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return [Table("images by cluster and class", ["cluster", *map(str, table.columns)], cells)]


def sheets(material: ReportData) -> list[Figure]:
    """Of every cluster, the images nearest to its mean and those farthest from it."""
    embeddings, clusters, thumbnails = material.embeddings, material.clusters, material.thumbnails
    if embeddings is None or clusters is None or thumbnails is None:
        return []
    rows, found = shown(embeddings), []
    for cluster in np.unique(clusters[rows]):
        members = rows[clusters[rows] == cluster]
        features = embeddings.features[members]
        order = members[np.linalg.norm(features - features.mean(axis=0), axis=1).argsort(kind="stable")]
        near = order[:_SHEET]
        far = order[max(len(near), len(order) - _SHEET) :][::-1]
        alt = f"cluster {cluster}, {len(members)} images: the {len(near)} nearest to its mean"
        alt += f", then the {len(far)} farthest from it" if len(far) else ""
        found.append(
            {
                "src": contact_sheet(
                    [np.asarray(thumbnails[row]) for row in near], [np.asarray(thumbnails[row]) for row in far]
                ),
                "alt": alt,
            }
        )
    return found


def card_tables(card: pd.DataFrame | None) -> list[Table]:
    """Per finding, every score with its interval: ranking and operating points, then calibration."""
    if card is None:
        return []
    calibration = card["score"].str.contains("Brier|ECE|calibration")
    parts = {
        "ranking and operating points (thresholds fixed on validation patients)": card[~calibration],
        "calibration, before and after temperature scaling (fitted on validation)": card[calibration],
    }
    return [_pivot(part, title) for title, part in parts.items()]


def _pivot(card: pd.DataFrame, title: str) -> Table:
    names = list(dict.fromkeys(card["score"]))
    rows = []
    for finding, part in card.groupby("finding", sort=False):
        first = part.iloc[0]
        counts = [
            f"{first['n']:.0f}",
            _count(first["positives"], first["positive_patients"]),
            _percent(first["prevalence"]),
        ]
        cells = part.set_index("score")
        rows.append([str(finding), *counts, *(_interval(cells.loc[name]) for name in names)])
    return Table(title, ["finding", "images", "positive (patients)", "prevalence", *names], rows)


def subgroup_table(groups: pd.DataFrame | None, most: int = 200) -> list[Table]:
    """AUROC of every finding in every group, and the gaps."""
    if groups is None or groups.empty:
        return []
    rows = []
    for row in groups.head(most).to_dict("records"):
        counts = "" if np.isnan(row["n"]) else f"{row['n']:.0f} ({row['patients']:.0f})"
        value = _interval(pd.Series({"value": row["auroc"], "low": row["low"], "high": row["high"]}))
        shares = [_percent(row[name]) for name in ("sensitivity", "specificity")]
        rows.append([row["finding"], str(row["by"]).replace("_", " "), row["group"], counts, value, *shares])
    columns = ["finding", "by", "group", "images (patients)", "AUROC", "sensitivity", "specificity"]
    return [Table("subgroups, at the threshold of 90 % specificity on validation", columns, rows)]


def confounder_tables(material: ReportData) -> list[Table]:
    """What the clusters follow, and the model beside view, age and sex alone."""
    tables = []
    alignment = {
        name: row
        for name, row in material.metrics.get("cluster", {}).get("values", {}).get("alignment", {}).items()
        if isinstance(row, dict)
    }
    if alignment:
        rows = [[name, row["kind"], f"{row['ami']:.3f}", str(row["n"])] for name, row in alignment.items()]
        tables.append(Table("what the clusters follow", ["what", "kind", "AMI", "images"], rows))
    for name, content in material.metrics.items():
        baseline = (content.get("baselines") or {}).get("confounder_baseline") or []
        if baseline and "difference" in baseline[0]:
            cells = [
                [
                    row["finding"],
                    _number(row["model"]),
                    _number(row["baseline"]),
                    _interval(pd.Series({**row, "value": row["difference"]})),
                ]
                for row in baseline
            ]
            columns = ["finding", "model", "view + age + sex", "difference [95 %]"]
            tables.append(Table(f"{name}: AUROC beside the confounder baseline", columns, cells))
    return tables


def reliability_figure(material: ReportData) -> Figure | None:
    """Reliability diagrams of the findings with both labels, before and after temperature scaling."""
    test, val = material.test, material.val
    if test is None:
        return None
    curves: dict[str, list[Any]] = {}
    for k, name in enumerate(test.findings):
        if not test.both(k):
            continue
        labels, logits = test.labels[test.known(k), k], test.scores[test.known(k), k]
        bins = int(np.clip(len(labels) // 25, 2, 10))  # a point of fewer images is noise
        curves[name] = [reliability(labels, sigmoid(logits), bins)]
        if val is not None and val.both(k):
            temperature = fit_temperature(val.labels[val.known(k), k], val.scores[val.known(k), k])
            curves[name].append(reliability(labels, sigmoid(logits / temperature), bins))
    if not curves:
        return None
    alt = f"reliability diagrams of {', '.join(curves)}: share of positives over mean probability"
    return {"src": reliability_diagrams(curves), "alt": alt}


def _interval(row: pd.Series) -> str:
    value, low, high = (float("nan") if row[name] is None else float(row[name]) for name in ("value", "low", "high"))
    if np.isnan(value):
        return "-"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(low) else f"{value:.3f} [unknown]"


def _number(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.1%}"


def _count(images: float, patients: float) -> str:
    return "-" if np.isnan(images) else f"{images:.0f} ({patients:.0f})"
