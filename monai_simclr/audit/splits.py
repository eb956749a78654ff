"""Images and patients of every split: counts, prevalence, and leaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.index import effective_splits, finding_columns, patients_in_several_splits

_MAX_GROUPS = 200


def _parts(index: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of every split: train, val, test, then others."""
    parts = {str(name): part for name, part in index.groupby("split", sort=True)}
    return [(name, parts[name]) for name in dict.fromkeys(["train", "val", "test", *parts]) if name in parts]


def split_sizes(index: pd.DataFrame) -> list[dict[str, Any]]:
    """Images and patients of every split, and the most images of one patient."""
    return [
        {
            "split": split or "(none)",
            "images": len(part),
            "patients": part["patient_id"].nunique(),
            "most images of a patient": int(part["patient_id"].value_counts().iloc[0]),
        }
        for split, part in _parts(index)
    ]


def prevalence(index: pd.DataFrame) -> list[dict[str, Any]]:
    """Positive images and patients of every finding and split, images with a known label, and the share."""
    rows = []
    for finding in finding_columns(index):
        for split, part in _parts(index):
            known = part[part[finding].isin([0, 1])]  # a smoothed label is not known
            positive = part[part[finding] == 1]
            rows.append(
                {
                    "finding": finding,
                    "split": split or "(none)",
                    "positive images": len(positive),
                    "positive patients": positive["patient_id"].nunique(),
                    "known": len(known),
                    "prevalence": float(known[finding].mean()) if len(known) else None,
                }
            )
    return rows


def leaking_patients(index: pd.DataFrame) -> list[dict[str, Any]]:
    """Patients in more than one split (`patients_in_several_splits`), as the rows of their images and without ids."""
    known = index[index["patient_id"] != ""]
    leaks = known[known["patient_id"].isin(patients_in_several_splits(known))]
    return [
        {"rows": [int(row) for row in part.index], "splits": _names(part["split"])}
        for _, part in leaks.groupby("patient_id", sort=False)
    ]


def _names(splits: pd.Series) -> list[str]:
    return sorted(split or "(none)" for split in set(splits))


def duplicate_facts(index: pd.DataFrame, group: np.ndarray) -> dict[str, Any]:
    """Count the groups of duplicates that cross splits or patients, or have different labels.

    `group` is that of every row, -1 for none, shape ``(N,)``. The first 200 groups are listed by their rows, those
    across patients first, then those across splits. An image without a split counts as train (`effective_splits`).
    """
    labels = list(finding_columns(index))
    splits, groups = effective_splits(index), list[dict[str, Any]]()
    for _, part in index[group >= 0].groupby(group[group >= 0], sort=True):
        groups.append(
            {
                "rows": [int(row) for row in part.index],
                "splits": _names(part["split"]) if index["split"].ne("").any() else [],
                "across_patients": bool(part["patient_id"].nunique() > 1),
                "across_splits": bool(splits[part.index].nunique() > 1),
                "labels_differ": bool((part[labels].nunique() > 1).any()),
            }
        )
    groups.sort(key=lambda facts: (not facts["across_patients"], not facts["across_splits"], facts["rows"]))
    kinds = ("across_splits", "across_patients", "labels_differ")
    counts: dict[str, Any] = {kind: sum(facts[kind] for facts in groups) for kind in kinds}
    return {"groups": len(groups), "images": int((group >= 0).sum()), **counts, "first": groups[:_MAX_GROUPS]}
