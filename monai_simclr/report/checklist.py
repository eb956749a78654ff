"""A checklist after CLAIM 2024 and TRIPOD+AI: what the runs answer, and what only the authors can."""

from __future__ import annotations

from monai_simclr.report.collect import ReportData
from monai_simclr.report.html import Table

_YOURS = "to be written by you"


def checklist(data: ReportData) -> Table:
    """Topics of two guidelines in our words, and what is known of them.

    CLAIM 2024: Tejani et al., Radiology: Artificial Intelligence 2024. TRIPOD+AI: Collins et al., BMJ 2024;385:e078378,
    whose checklist (PMC11019967) numbers its items ("-": it has none on that topic).
    """
    metrics = data.metrics
    first = next(iter(metrics.values()), {})
    versions = ", ".join(f"{name} {version}" for name, version in first.get("versions", {}).items() if version)
    seen = [content["n"]["seen_patients"] for content in metrics.values() if "seen_patients" in content.get("n", {})]
    alignment = data.of_run(data.clustered, "cluster").get("values", {}).get("alignment", {})
    rows = [
        ("Aim, clinical setting, intended users, known inequalities", "yes", "3a-c, 4", _YOURS),
        (
            "Data source, period, inclusion and exclusion",
            "yes",
            "5a-b, 6a-b",
            _YOURS + "; the store lists unreadable images",
        ),
        ("De-identification", "yes", "-", "no names here; contact sheets show images: treat it as patient data"),
        ("Preprocessing", "yes", "7, 12b", "one recipe for all uses; the settings are in the store's provenance.json"),
        ("Reference standard, annotators, their agreement", "yes", "8a-c", _YOURS),
        ("Sample size, and why", "yes", "10", "images and patients in the summary; " + _YOURS),
        ("Missing labels", "yes", "11", "left out of that finding; the tables count the images that are left"),
        ("Partitions, and the level at which they are disjoint", "yes", "12a", "by patient; refused otherwise"),
        (
            "Test patients seen in pretraining",
            "yes",
            "12a",
            f"{max(seen)} (more than 0 only when stated)" if seen else "unknown",
        ),
        ("Model, initial weights", "yes", "12c, 22", _YOURS + "; the bundle's metadata.json names the encoder"),
        (
            "Training, hyperparameters, choice of the final model",
            "yes",
            "12c",
            "commands below; epoch chosen on validation patients",
        ),
        (
            "Metrics, uncertainty",
            "yes",
            "12e, 23a",
            "95 % intervals, resampling patients; thresholds fixed on validation",
        ),
        (
            "Comparison with baselines",
            "yes",
            "12e",
            "majority, permutation null, raw pixels, random encoder, view + age + sex",
        ),
        ("Class imbalance", "-", "13", "the setting balance in each run's config.json; prevalence in the tables"),
        (
            "Subgroups, fairness",
            "yes",
            "14, 23a",
            "in the table above" if data.subgroups is not None else "no scores were given",
        ),
        (
            "Differences between sites or sources",
            "-",
            "12d, 16, 23b",
            "subgroups by source, where the index has one; " + _YOURS,
        ),
        (
            "Calibration",
            "yes",
            "12e, 23a",
            "in the table above" if data.scores is not None else "no scores were given",
        ),
        ("Confounders", "yes", "-", "in the section of that name" if alignment else "no cluster run was given"),
        ("Output, thresholds", "-", "15", "logits of findings; thresholds fixed on validation patients"),
        ("Patients in each split, and their findings", "yes", "20a-c, 21", "in the table of splits"),
        ("External testing", "yes", "16, 20c", _YOURS),
        ("Failure analysis", "yes", "-", "outliers.csv and label_errors.csv of the cluster run; " + _YOURS),
        (
            "Interpretation, limits, intended use",
            "yes",
            "3b, 25, 26, 27b-c",
            "research only, not for diagnosis; " + _YOURS,
        ),
        ("Poor or missing input at the time of use", "-", "27a", "refused or flagged with a reason, see inference"),
        ("Software", "yes", "-", versions or "not recorded"),
        ("Code and weights, data", "yes", "12g, 18e, 18f, 22", "monai-simclr, Apache-2.0; " + _YOURS),
        ("Ethics, funding, conflicts, registration, protocol", "yes", "17, 18a-d", _YOURS),
        ("Patient and public involvement", "-", "19", _YOURS),
    ]
    return Table(
        "checklist after CLAIM 2024 and TRIPOD+AI",
        ["topic", "CLAIM", "TRIPOD+AI items", "in these runs"],
        [list(row) for row in rows],
    )
