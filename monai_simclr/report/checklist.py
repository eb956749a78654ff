"""A checklist after CLAIM 2024: what the runs answer, and what only the authors can."""

from __future__ import annotations

from monai_simclr.report.collect import ReportData
from monai_simclr.report.html import Table

_YOURS = "to be written by you"


def claim_checklist(data: ReportData) -> Table:
    """Topics of CLAIM 2024 (Tejani et al., Radiology: Artificial Intelligence 2024) in our words, and what is known."""
    metrics = data.metrics
    first = next(iter(metrics.values()), {})
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
        ("Subgroups", "in the table below" if data.subgroups is not None else "no scores were given"),
        ("Calibration", "in the table below" if data.scores is not None else "no scores were given"),
        ("External testing", _YOURS),
        ("Failure analysis", "outliers.csv and label_errors.csv of the cluster run; " + _YOURS),
        ("Limits, intended use", "research only, not for diagnosis; " + _YOURS),
        ("Code and weights", "monai-simclr, Apache-2.0; " + _YOURS),
        ("Funding, registration, protocol", _YOURS),
    ]
    return Table("checklist after CLAIM 2024", ["topic", "in these runs"], [list(row) for row in rows])
