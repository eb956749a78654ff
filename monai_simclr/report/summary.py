"""The report's first section: what ran on whom, a few statements with what would falsify them, and two figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from monai_simclr.evaluation.scores import MACRO
from monai_simclr.report.collect import ReportData
from monai_simclr.report.figures import ARM_NAMES, figure_source, interval_plot, label_curve
from monai_simclr.report.html import Picture, cell, counted
from monai_simclr.runtime.metrics import table_rows

_ARMS = ("finetuned", "pretrained", "frozen")
"""Arms that start from the pretrained encoder, the one that a reader asks about first."""

_COUNTS = (
    *("images", "patients", "train_images", "train_patients", "test_images", "test_patients"),
    *("labelled_images", "labelled_patients", "seen_patients", "files", "predicted", "runs"),
)


class Statement(NamedTuple):
    """A claim, whether these runs show it, their numbers, and the result that would falsify it."""

    claim: str
    shown: bool
    numbers: str
    falsifier: str


def what_ran(data: ReportData) -> list[str]:
    """One line per run: its name, its split, and how many images and patients it had."""
    lines = []
    for name, metrics in data.metrics.items():
        if "command" in metrics:  # a comparison of runs is no run
            n = metrics.get("n", {})
            split = str(metrics.get("split") or "").strip("+")
            counts = counted({key: n[key] for key in _COUNTS if key in n})
            lines.append(f"{name}{f' ({split})' if split else ''}: {counts}")
    return lines


def statements(data: ReportData) -> list[Statement]:
    """At most five statements, for which the runs have an interval; one that they do not show says so."""
    return [*_few_labels(data), *_ranking(data), *_confounders(data), *_neighbors(data), *_clusters(data)]


def figures(data: ReportData) -> list[Picture]:
    """The two figures that matter most of those that the runs have."""
    pictures = []
    if data.study:
        alt = "macro AUROC over the share of train patients with labels, with chance"
        rows = {str(row["arm"]): tuple(row.get(name) for name in _MEAN) for row in reversed(data.study)}
        one = len({row["fraction"] for row in data.study}) == 1  # a curve needs two
        figure = interval_plot(rows, "macro AUROC on test patients", 0.5) if one else label_curve(data.study)
        pictures.append(Picture(figure_source(figure), alt, _FEW_LABELS if one else _LABEL_CURVE))
    if data.scores is not None:
        scored = data.scores[data.scores["score"] == "AUROC"]
        baselines = {row["finding"]: row["baseline"] for row in _baseline_rows(data)}
        rows = {
            str(row["finding"]): (row["value"], row["low"], row["high"], baselines.get(row["finding"]))
            for row in scored.to_dict("records")
        }
        figure = interval_plot(rows, "AUROC on test patients", chance=0.5, baseline="view + age + sex alone")
        pictures.append(Picture(figure_source(figure), f"AUROC with its interval of {', '.join(rows)}", _AUROC))
    knn = _clustered(data).get("knn", {})
    known = {name: row for name, row in knn.items() if row.get("low") is not None}
    if known and len(pictures) < 2:
        rows = {name: (row["value"], row["low"], row["high"], None) for name, row in known.items()}
        chance = next(iter(known.values())).get("majority")
        figure = interval_plot(
            rows, "accuracy of the nearest neighbors' class", chance, chance_name="most frequent class"
        )
        pictures.append(Picture(figure_source(figure), f"kNN accuracy with its interval of {', '.join(rows)}", _KNN))
    return pictures


_MEAN = ("mean", "mean_low", "mean_high", "baseline")
_FEW_LABELS = "What pretraining is worth with few labels. Lines: 95 % interval over test patients, mean over draws."
_LABEL_CURVE = (
    "What pretraining is worth with few labels. Bars: standard deviation over draws of the labelled patients. Bands: "
    "95 % interval over test patients."
)
_AUROC = "How well the classifier ranks test images. Lines: 95 % interval, resampling patients."
_KNN = "What the features know without training on them. Lines: 95 % interval, resampling patients."


def _few_labels(data: ReportData) -> Iterator[Statement]:
    """The difference over all small fractions, or at the smallest: shown where it is beyond test patients and draws."""
    rows = [
        row
        for row in (*data.gain, *data.study)
        if row.get("finding", MACRO) == MACRO and row.get("low") is not None and row.get("difference") is not None
    ]
    arms = {str(row["arm"]) for row in rows if row["arm"] != row.get("reference", "scratch")}
    arm = next((name for name in _ARMS if name in arms), min(arms, default=""))
    compared = [row for row in rows if row["arm"] == arm]
    if compared:
        row = next((row for row in compared if "fractions" in row), None) or min(
            compared, key=lambda row: float(row["fraction"])
        )
        percents = row["fractions"] if "fractions" in row else f"{100 * row['fraction']:g}"
        reference = str(row.get("reference", "scratch"))
        several = row.get("low_draws") is not None
        low, high = (float(row[f"{end}_draws" if several else end]) for end in ("low", "high"))
        draws = f"and {row['draws']} draws of the labelled patients"
        over = draws if several else "of one draw of the labelled patients; what another would give is not known"
        yield Statement(
            f"Pretraining helps with {percents} % of the labels",
            several and low > 0,
            f"macro AUROC {cell(row['mean'])} {ARM_NAMES.get(arm, arm)}, {cell(row['mean'] - row['difference'])} "
            f"{ARM_NAMES.get(reference, reference)}; difference {row['difference']:+.3f} [{low:.3f}, {high:.3f}] over "
            f"test patients {over}",
            "an interval of the difference that reaches 0, here or on patients from elsewhere",
        )


def _ranking(data: ReportData) -> Iterator[Statement]:
    if data.scores is not None:
        scored = data.scores[(data.scores["score"] == "AUROC") & data.scores["low"].notna()]
        rows = table_rows(scored)
        row = _macro_or_last(rows)
        run = _scored(data)
        labelled = run.get("n", {}).get("labelled_patients", 0)
        if row:
            yield Statement(
                f"The classifier ranks {run.get('split') or 'test'} images better than chance",
                row["low"] > 0.5,
                f"AUROC {_with_interval(row)}, {row['finding']}{_except(rows, 0.5)}; chance 0.500"
                + (f"; one run, with the labels of {labelled:,} patients" if labelled else ""),
                "an interval that reaches 0.5",
            )


def _confounders(data: ReportData) -> Iterator[Statement]:
    rows = [row for row in _baseline_rows(data) if row.get("low") is not None]
    row = _macro_or_last(rows)
    if row:
        yield Statement(
            "The classifier knows more than view, age and sex tell",
            row["low"] > 0,
            f"AUROC {cell(row['model'])}, of view + age + sex {cell(row['baseline'])}, {row['finding']}; difference "
            f"{_with_interval({**row, 'value': row['difference']})}{_except(rows, 0)}",
            "an interval of the difference that reaches 0, or other facts of the acquisition that do as well",
        )


def _neighbors(data: ReportData) -> Iterator[Statement]:
    knn = _clustered(data).get("knn", {})
    own = knn.get("encoder", {})
    if own.get("low") is not None:
        name, other = _best(knn)
        chance = own.get("majority") or 0.0
        yield Statement(
            "Neighbors among the embeddings share their class, without any training on labels",
            own["low"] > max(chance, other),
            f"kNN accuracy {_with_interval(own)}; most frequent class {cell(chance)}"
            + (f"; {name} {cell(other)}" if name else ""),
            "an interval that reaches the most frequent class, or features without training that do as well",
        )


def _clusters(data: ReportData) -> Iterator[Statement]:
    by_features = _clustered(data).get("clusters", {})
    own = by_features.get("encoder", {})
    number = next((number for number in own if own[number].get("ami", {}).get("low") is not None), None)
    if number is not None:
        name, other = _best({name: rows.get(number, {}).get("ami", {}) for name, rows in by_features.items()})
        row = own[number]["ami"]
        chance = row.get("null_high") or 0.0
        yield Statement(
            "Clusters found without labels agree with the findings",
            row["low"] > max(chance, other),
            f"adjusted mutual information {_with_interval(row)} with {number} clusters; chance {cell(chance)}"
            + (f"; {name} {cell(other)}" if name else ""),
            "an interval that reaches chance, or features without training that agree as well",
        )


def _best(rows: Mapping[str, Mapping[str, Any]]) -> tuple[str, float]:
    """The best of the features that the encoder is compared with, and its value."""
    values = {name: row["value"] for name, row in rows.items() if name != "encoder" and row.get("value") is not None}
    return max(values.items(), key=lambda item: float(item[1]), default=("", 0.0))


def _clustered(data: ReportData) -> Mapping[str, Any]:
    """Values of the run whose embeddings and clusters are shown."""
    values: Mapping[str, Any] = data.of_run(data.clustered, "cluster").get("values", {})
    return values


def _scored(data: ReportData) -> Mapping[str, Any]:
    """Metrics of the run whose scores are shown."""
    return data.of_run(data.scored, "train", "evaluate")


def _baseline_rows(data: ReportData) -> list[Mapping[str, Any]]:
    """Rows of the comparison of the shown scores with view, age and sex."""
    rows: list[Mapping[str, Any]] = _scored(data).get("baselines", {}).get("confounder_baseline", [])
    return rows if rows and "baseline" in rows[0] else []


def _macro_or_last(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the macro mean, or the last one (of a single finding); empty without rows."""
    macro = [row for row in rows if row["finding"] == MACRO]
    return (macro or rows or [{}])[-1]


def _except(rows: Sequence[Mapping[str, Any]], bound: float) -> str:
    """The single findings of which it is not shown, in words."""
    names = [str(row["finding"]) for row in rows if row["finding"] != MACRO and row["low"] <= bound]
    return f" (not shown for {', '.join(names)})" if names else ""


def _with_interval(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
