"""A checklist after CLAIM 2024: what the runs answer themselves, and what only the authors can."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_simclr.report.html import Table
from monai_simclr.report.material import ReportData

_YOURS = "to be written by you"


def claim_checklist(material: ReportData) -> Table:
    """Topics of CLAIM 2024 (Tejani et al., Radiology: Artificial Intelligence 2024) in our words, and what is known."""
    metrics = material.metrics
    first: dict[str, Any] = next((dict(content) for content in metrics.values()), {})
    versions = ", ".join(f"{name} {version}" for name, version in first.get("versions", {}).items() if version)
    seen = [content["n"]["seen_patients"] for content in metrics.values() if "seen_patients" in content.get("n", {})]
    alignment = metrics.get("cluster", {}).get("values", {}).get("alignment", {})
    rows = [
        ("Study design, aim, clinical setting", _YOURS),
        ("Data source, period, inclusion and exclusion", _YOURS + "; unreadable images are listed in the store"),
        ("De-identification", "this page has no names; contact sheets show images: treat it as patient data"),
        ("Preprocessing", "one recipe for training and inference; the settings are in the store's provenance.json"),
        ("Missing labels", "left out of that finding; counted in the tables as n"),
        ("Reference standard, annotators, their agreement", _YOURS),
        ("Partitions, and the level at which they are disjoint", "by patient; refused otherwise"),
        ("Test patients seen in pretraining", f"{max(seen)} (more than 0 only when stated)" if seen else "unknown"),
        ("Model, initial weights", _YOURS + "; the bundle's metadata.json names the encoder"),
        ("Software", versions or "not recorded"),
        ("Training, hyperparameters, choice of the final model", "commands below; epoch chosen on validation patients"),
        ("Metrics, uncertainty", "95 % intervals, resampling patients; thresholds fixed on validation"),
        ("Comparison with baselines", "majority, permutation null, raw pixels, random encoder, view + age + sex"),
        ("Confounders", str(alignment.get("sentence", "no cluster run was given"))),
        ("Subgroups", "in the table below" if material.subgroups is not None else "no scores were given"),
        ("Calibration", "in the table below" if material.card is not None else "no scores were given"),
        ("External testing", _YOURS),
        ("Failure analysis", "outliers.csv and label_errors.csv of the cluster run; " + _YOURS),
        ("Limits, intended use", "research only, not for diagnosis; " + _YOURS),
        ("Code and weights", "monai-simclr, Apache-2.0; " + _YOURS),
        ("Funding, registration, protocol", _YOURS),
    ]
    return Table("checklist after CLAIM 2024", ["topic", "in these runs"], [list(row) for row in rows])


def partitions(material: ReportData) -> Table | None:
    """Who is in which split: images, patients, age, sex, view, and positives of every finding in images (patients)."""
    if material.embeddings is None or "split" not in material.embeddings.index:
        return None
    index = material.embeddings.index
    plain = {
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
    findings = [name for name in index.columns if name not in plain]
    rows = []
    for split in dict.fromkeys(["train", "val", "test", *index["split"].unique()]):
        part = index[index["split"] == split]
        if not len(part):
            continue
        cells = [split or "(none)", str(len(part)), str(part["patient_id"].nunique()) if "patient_id" in part else "-"]
        age = part["age"].astype(float) if "age" in part else np.array([np.nan])
        cells.append(f"{np.nanmedian(age):.0f}" if np.isfinite(age).any() else "-")
        for name, value in (("sex", "F"), ("view_position", "AP")):
            cells.append(f"{(part[name] == value).mean():.0%}" if name in part else "-")
        for finding in findings:
            positive = part[part[finding] == 1]
            patients = f" ({positive['patient_id'].nunique()})" if "patient_id" in part else ""
            cells.append(f"{len(positive)}{patients}")
        rows.append(cells)
    columns = ["split", "images", "patients", "median age", "female", "AP", *findings]
    return Table("who is in which split; findings: positive images (patients)", columns, rows)
