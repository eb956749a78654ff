"""The report: one self-contained HTML page, readable in light, dark and print, that needs no network and no script."""

from __future__ import annotations

from pathlib import Path

from monai_simclr.report import sections
from monai_simclr.report.checklist import claim_checklist, partitions
from monai_simclr.report.figures import as_source, training_curve
from monai_simclr.report.html import page_template
from monai_simclr.report.label_curve import label_curve
from monai_simclr.report.material import ReportData
from monai_simclr.report.tables import results_tables, version_table
from monai_simclr.runtime.files import write_text


def write_report(path: str | Path, *, title: str, notice: str, material: ReportData) -> Path:
    """Write the report, whole or not at all. A section without its material says so.

    The maps, clusters and contact sheets are of test images where the index has any, of all images otherwise. Contact
    sheets show patients' images: treat the page as patient data.

    Args:
        path: of the HTML file.
        title: of the page.
        notice: a banner ("phantoms: says nothing about patients"); "" for none.
        material: what it shows, from `collect_runs` or put together by hand.

    Returns:
        The path.
    """
    figure = sections.reliability_figure(material)
    split_table = partitions(material)
    clusters = material.metrics.get("cluster", {}).get("values", {})
    page = page_template("monai_simclr.report").render(
        title=title,
        notice=notice,
        runs=[sections.runs_table(material), *([split_table] if split_table else [])] if material.metrics else [],
        sentence=clusters.get("alignment", {}).get("sentence", ""),
        confounders=sections.confounder_tables(material),
        cards=sections.card_tables(material.card),
        reliability=figure,
        subgroups=sections.subgroup_table(material.subgroups),
        maps=[] if material.embeddings is None else sections.maps(material.embeddings),
        crosses=sections.cross_table(material),
        sheets=sections.sheets(material),
        few=as_source(label_curve(material.study)) if material.study else "",
        gains=_gains(material),
        savings=material.metrics.get("study", {}).get("values", {}).get("label_saving", {}),
        curve=training_curve(material.history) if material.history else "",
        results=results_tables(material.metrics),
        checklist=claim_checklist(material),
        versions=[version_table(material.metrics)] if material.metrics else [],
        commands=material.commands,
    )
    write_text(path, page)
    return Path(path)


def _gains(material: ReportData) -> list[str]:
    """What a study gains where labels are few, a sentence an arm; findings by themselves are in its table."""
    rows = material.metrics.get("study", {}).get("values", {}).get("few_label_gain", [])
    return [row["sentence"] for row in rows if row["finding"] == "macro mean"]
