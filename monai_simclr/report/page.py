"""The report: one self-contained HTML page, readable in light, dark and print, that needs no network and no script."""

from __future__ import annotations

from pathlib import Path

from monai_simclr.report import sections, summary
from monai_simclr.report.checklist import checklist
from monai_simclr.report.collect import ReportData
from monai_simclr.report.figures import ARM_NAMES, training_curves
from monai_simclr.report.html import page_template
from monai_simclr.runtime.files import write_text


def write_report(path: str | Path, *, title: str, notice: str, data: ReportData) -> Path:
    """Write the report, whole or not at all: a summary, then the sections for which there are data.

    The maps, clusters and contact sheets are of test images where the index has any, of all images otherwise. Contact
    sheets show patients' images: treat the page as patient data.

    Args:
        path: of the HTML file.
        title: of the page.
        notice: a banner ("phantoms: says nothing about patients"); "" for none.
        data: what it shows, from `collect_runs` or put together by hand.

    Returns:
        The path.
    """
    study = data.of_run("", "study").get("values", {})
    page = page_template("monai_simclr.report").render(
        title=title,
        notice=notice,
        data_there=bool(data.metrics or data.study or data.tables or data.scores is not None),
        ran=summary.what_ran(data),
        statements=summary.statements(data),
        tables=data.tables,
        figures=summary.figures(data),
        runs=[sections.runs_table(data), *sections.splits_table(data)] if data.metrics else [],
        sentence=sections.alignment_sentence(data),
        confounders=sections.confounder_tables(data),
        scores=sections.score_tables(data.scores),
        reliability=sections.reliability_pictures(data),
        subgroups=sections.subgroup_table(data.subgroups),
        maps=sections.embedding_maps(data),
        crosses=sections.cross_table(data),
        sheets=sections.cluster_sheets(data),
        few=sections.few_label_table(data.study),
        gains=[row["sentence"] for row in study.get("few_label_gain", []) if row["finding"] == "macro mean"],
        arms={arm: ARM_NAMES[arm] for arm in dict.fromkeys(str(row["arm"]) for row in data.study) if arm in ARM_NAMES},
        savings=study.get("label_saving", {}),
        curves=training_curves(data.history) if data.history else [],
        results=sections.results_tables(data.metrics),
        checklist=checklist(data),
        versions=sections.version_table(data.metrics),
        commands=data.commands,
    )
    write_text(path, page)
    return Path(path)
