"""Tables and pictures of the report's sections, made from its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.index import finding_columns, image_classes
from monai_simclr.evaluation import Embeddings
from monai_simclr.evaluation.calibration import fit_temperature, reliability
from monai_simclr.evaluation.classes import ENCODER
from monai_simclr.evaluation.predictions import sigmoid
from monai_simclr.evaluation.subgroups import demographic_groups
from monai_simclr.report.collect import ReportData
from monai_simclr.report.figures import contact_sheet, embedding_map, place_on_map, png_bytes, reliability_diagram
from monai_simclr.report.html import Picture, Table, cell, counted, png_source
from monai_simclr.runtime.metrics import table_rows

_SHEET = 6
"""Images of a cluster that are nearest to its mean, and farthest from it."""

_LEVELS = {
    "clusters": ("features", "clusters", "measure"),
    "n_clusters": ("choice", "method", "clusters"),
    "follows": ("removed", "features", "what"),
    "prevalence": ("finding", "clusters"),
    "enrichment": ("cluster", "finding"),
}
"""What the keys of a group in metrics.json are, level by level; groups that are not listed have one level of names."""


def runs_table(data: ReportData) -> Table:
    """What was run, on which patients."""
    rows = [
        [name, counted(metrics.get("n", {})), cell(metrics.get("split") or None)]
        for name, metrics in data.metrics.items()
        if "command" in metrics  # a comparison of runs has a section of its own
    ]
    return Table("what was run", ["run", "counts", "split"], rows)


def splits_table(data: ReportData) -> list[Table]:
    """A column per split: images, patients, age, sex, view, and positives of every finding in images (patients)."""
    if data.embeddings is None or "split" not in data.embeddings.index:
        return []
    index = data.embeddings.index
    findings = [name for name in finding_columns(index) if (index[name] == 1).any()]
    columns: dict[str, list[str]] = {}
    for split in dict.fromkeys(["train", "val", "test", *index["split"].unique()]):
        part = index[index["split"] == split]
        if not len(part):
            continue
        age = part["age"].astype(float) if "age" in part else pd.Series(dtype=float)
        cells = [str(len(part)), str(part["patient_id"].nunique()) if "patient_id" in part else "-"]
        cells.append(f"{age.median():.0f}" if age.notna().any() else "-")
        for name, value in (("sex", "F"), ("view_position", "AP")):
            cells.append(f"{(part[name] == value).mean():.0%}" if name in part else "-")
        for finding in findings:
            positive = part[part[finding] == 1]
            patients = f" ({positive['patient_id'].nunique()})" if "patient_id" in part else ""
            cells.append(f"{len(positive)}{patients}")
        columns[split or "(none)"] = cells
    names = ["images", "patients", "median age", "female", "AP", *findings]
    rows = [[name, *cells] for name, *cells in zip(names, *columns.values(), strict=True)]
    title = "patients of each split; findings: positive images (patients)"
    return [Table(title, ["", *columns], rows)]


def alignment_sentence(data: ReportData) -> str:
    """What the clusters follow, in one sentence; "" without a cluster run."""
    sentence = data.of_run(data.clustered, "cluster").get("values", {}).get("alignment", {}).get("sentence", "")
    return str(sentence[:1].upper() + sentence[1:]).replace("_", " ")


def confounder_tables(data: ReportData) -> list[Table]:
    """What the clusters follow, and the model compared with view, age and sex alone."""
    tables = []
    values = data.of_run(data.clustered, "cluster").get("values", {})
    scored = values.get("follows", {}).get("nothing", {}).get(ENCODER, {})
    rows = []
    for name, row in values.get("alignment", {}).items():
        if name != "sentence":
            known = scored.get(name, {})
            ami = _interval(known) if known else cell(row["ami"])
            rows.append([name.replace("_", " "), row["kind"], ami, cell(known.get("null_high")), str(row["n"])])
    if rows:
        tables.append(Table("what the clusters follow", ["what", "kind", "AMI", "chance", "images"], rows))
    for name, metrics in data.metrics.items():
        baseline = metrics.get("baselines", {}).get("confounder_baseline", [])
        if baseline and "baseline" in baseline[0]:
            rows = [
                [
                    row["finding"],
                    cell(row["model"]),
                    cell(row["baseline"]),
                    _interval({**row, "value": row["difference"]}),
                ]
                for row in baseline
            ]
            columns = ["finding", "model", "view + age + sex", "difference [95 %]"]
            tables.append(Table(f"{name}: AUROC compared with the confounder baseline", columns, rows))
    return tables


def score_tables(scores: pd.DataFrame | None) -> list[Table]:
    """Per finding, every score with its interval: ranking, then calibration before and after scaling."""
    if scores is None:
        return []
    calibration = scores["score"].str.contains("Brier|ECE|calibration")
    scaled = scores["score"].str.endswith("after temperature scaling")
    scores = scores.assign(score=scores["score"].str.removesuffix(" after temperature scaling"))
    tables = []
    for title, part in {
        "ranking and operating points (thresholds fixed on validation patients)": scores[~calibration],
        "calibration": scores[calibration & ~scaled],
        "calibration after temperature scaling (fitted on validation patients)": scores[calibration & scaled],
    }.items():
        names, rows = list(dict.fromkeys(part["score"])), []
        for finding, of_finding in part.groupby("finding", sort=False):
            first, by_score = of_finding.iloc[0], of_finding.set_index("score")
            positives = _count(first["positives"], first["positive_patients"])
            counts = [f"{first['n']:.0f}", positives, _percent(first["prevalence"])]
            rows.append([str(finding), *counts, *(_interval(by_score.loc[name]) for name in names)])
        tables.append(Table(title, ["finding", "images", "positive (patients)", "prevalence", *names], rows))
    return tables


def reliability_pictures(data: ReportData) -> list[Picture]:
    """Reliability diagrams of the findings with both labels, before and after temperature scaling."""
    test, val = data.test, data.val
    pictures = []
    for k, name in enumerate(test.findings if test else ()):
        if test is None or not test.both(k):
            continue
        labels, logits = test.labels[test.known(k), k], test.scores[test.known(k), k]
        bins = int(np.clip(len(labels) // 25, 2, 10))  # a point of fewer images is noise
        curves = [reliability(labels, sigmoid(logits), bins)]
        if val is not None and val.both(k):
            temperature = fit_temperature(val.labels[val.known(k), k], val.scores[val.known(k), k])
            curves.append(reliability(labels, sigmoid(logits / temperature), bins))
        pictures.append(reliability_diagram(name, curves))
    return pictures


def subgroup_table(groups: pd.DataFrame | None, max_rows: int = 200) -> list[Table]:
    """AUROC of every finding in every group, and the gaps."""
    if groups is None or groups.empty:
        return []
    rows = []
    for row in table_rows(groups.head(max_rows)):
        auroc = _interval({**row, "value": row["auroc"]})
        group = [row["finding"], str(row["by"]).replace("_", " "), row["group"]]
        counts, shares = (
            _count(row["n"], row["patients"]),
            [_percent(row[name]) for name in ("sensitivity", "specificity")],
        )
        rows.append([*group, counts, auroc, *shares])
    columns = ["finding", "by", "group", "images (patients)", "AUROC", "sensitivity", "specificity"]
    return [Table("subgroups, at the threshold of 90 % specificity on validation", columns, rows)]


def few_label_table(study: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Macro AUROC of every arm and share of the labels, with the difference to the reference."""
    rows = []
    for row in study:
        share, mean = f"{100 * row['fraction']:g}%", {"value": row["mean"], "low": None, "high": None}
        mean |= {name: row[f"mean_{name}"] for name in ("low", "high") if f"mean_{name}" in row}
        difference = {"value": row.get("difference"), "low": row.get("low"), "high": row.get("high")}
        facts = [cell(row.get("sd")), "-" if row.get("p") is None else _interval(difference), cell(row.get("p_holm"))]
        reference = str(row.get("reference", "scratch"))
        rows.append([share, str(row["arm"]), str(row.get("draws", "-")), _interval(mean), *facts, reference])
    columns = ["labels", "arm", "draws", "macro AUROC", "SD over draws", "difference", "p (Holm)", "reference"]
    return [Table("few labels: intervals over test patients", columns, rows)] if rows else []


def embedding_maps(data: ReportData) -> list[Picture]:
    """The same map, coloured by finding, view position, sex, age and source, as far as the index has them."""
    rows = _test_rows(data.embeddings)
    if data.embeddings is None or len(rows) < 4:
        return []
    placed, places = place_on_map(data.embeddings.features[rows])
    index = data.embeddings.index.iloc[rows[placed]]
    pictures = []
    for key, values in {"finding": _classes(index), **demographic_groups(index)}.items():
        name = key.replace("_", " ")
        if name == "finding" or len(set(values) - {""}) > 1:
            groups = np.where(values == "", "unknown", values)
            alt = f"embedding map of {len(index)} images by {name}"
            pictures.append(Picture(embedding_map(places, groups, f"by {name}"), alt, name))
    return pictures


def cross_table(data: ReportData) -> list[Table]:
    """Test images by cluster and class."""
    if data.clusters is None or data.embeddings is None:
        return []
    rows = _test_rows(data.embeddings)
    table = pd.crosstab(data.clusters[rows], _classes(data.embeddings.index.iloc[rows]))
    cells = [[str(name), *map(str, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return [Table("images by cluster and class", ["cluster", *map(str, table.columns)], cells)]


def cluster_sheets(data: ReportData) -> list[Picture]:
    """Of every cluster, the images nearest to its mean and those farthest from it."""
    if data.embeddings is None or data.clusters is None or data.thumbnails is None:
        return []
    rows, pictures = _test_rows(data.embeddings), []
    for cluster in np.unique(data.clusters[rows]):
        members = rows[data.clusters[rows] == cluster]
        features = data.embeddings.features[members]
        order = members[np.linalg.norm(features - features.mean(axis=0), axis=1).argsort(kind="stable")]
        near = order[:_SHEET]
        far = order[max(len(near), len(order) - _SHEET) :][::-1]
        alt = f"cluster {cluster}, {len(members)} images: the {len(near)} nearest to its mean"
        alt += f", then the {len(far)} farthest from it" if len(far) else ""
        images = [[data.thumbnails[row] for row in part] for part in (near, far)]
        pictures.append(Picture(png_source(png_bytes(contact_sheet(images, height=120, ground=255))), alt))
    return pictures


def results_tables(metrics: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Tables of the values and baselines of every command: one per group of records, one of the single numbers.

    Args:
        metrics: by command, what `read_metrics` returned.

    Example:
        >>> values = {"loss": 1.5, "clusters": {"encoder": {"6": {"ami": {"value": 0.7, "low": 0.6, "high": 0.8}}}}}
        >>> numbers, table = results_tables({"cluster": {"values": values, "split": "test"}})
        >>> numbers.rows, table.title
        ([['loss', '1.500']], 'cluster (test): clusters')
        >>> dict(zip(table.columns, table.rows[0]))
        {'features': 'encoder', 'clusters': '6', 'measure': 'ami', 'value': '0.700', 'low': '0.600', 'high': '0.800'}
    """
    tables = []
    for command, content in metrics.items():
        split = f" ({content['split']})" if content.get("split") else ""
        for part in ("values", "baselines"):
            numbers: list[list[str]] = []
            grouped: list[Table] = []
            for group, value in content.get(part, {}).items():
                title, levels = f"{command}{split}: {group}", _LEVELS.get(group, ("name",))
                if isinstance(value, list) and value and isinstance(value[0], Mapping):
                    grouped.append(_record_table(title, (), [((), record) for record in value]))
                    continue
                entries = list(_walk(value, len(levels)))
                numbers += [
                    [" ".join([group, *keys]), cell(leaf)] for keys, leaf in entries if not isinstance(leaf, Mapping)
                ]
                records = [(keys, leaf) for keys, leaf in entries if isinstance(leaf, Mapping)]
                grouped += [_record_table(title, levels, records)] if records else []
            tables += [Table(f"{command}{split}: {part}", ["", "value"], numbers)] if numbers else []
            tables += grouped
    return tables


def version_table(metrics: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Seed, time and versions of every run."""
    rows = [
        [
            run,
            cell(content.get("seed")),
            str(content.get("created", "-")).replace("T", "\u00a0").removesuffix("+00:00"),
            f"{cell(content.get('versions'))}, Python {content.get('python')}, {content.get('platform')}",
        ]
        for run, content in metrics.items()
        if "command" in content
    ]
    return [Table("how the results were produced", ["run", "seed", "when (UTC)", "software"], rows)] if rows else []


def _record_table(
    title: str, levels: Sequence[str], records: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]]
) -> Table:
    """A table with a row per record, after the keys that lead to it; records of a group may differ in their keys."""
    columns = dict.fromkeys(key for _, record in records for key in record)
    rows = [[*keys, *(cell(record.get(name, "")) for name in columns)] for keys, record in records]
    return Table(title, [*levels, *columns], rows)


def _walk(value: Any, depth: int, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What a nested mapping holds `depth` levels down, with the keys that lead there; single values at any level."""
    if depth and isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, depth - 1, (*keys, str(key)))
    else:
        yield keys, value


def _test_rows(embeddings: Embeddings | None) -> np.ndarray:
    """Positions of the test images, of all images where there are none."""
    if embeddings is None:
        return np.array([], dtype=int)
    index = embeddings.index
    test = np.flatnonzero(index["split"] == "test") if "split" in index else np.array([], dtype=int)
    return test if len(test) else np.arange(len(embeddings))


def _classes(index: pd.DataFrame) -> np.ndarray:
    return image_classes(index, several="several", unknown="unknown")


def _interval(row: Mapping[str, Any] | pd.Series) -> str:
    value, low, high = (cell(row[name]) for name in ("value", "low", "high"))
    if value == "-":
        return value
    if low == "-":
        return f"{value} [unknown]"
    return f"{value} [{low},\u00a0{high}]"  # a no-break space, so that it is on two lines at most


def _percent(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.1%}"


def _count(images: float, patients: float) -> str:
    return "-" if np.isnan(images) else f"{images:.0f} ({patients:.0f})"
