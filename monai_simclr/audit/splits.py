"""Who and what is in which split: counts, prevalence, and leaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data.index import finding_columns, patients_in_several_splits

_SHOWN = 200


def split_sizes(index: pd.DataFrame) -> list[dict[str, Any]]:
    """Images and patients of every split, and the most images that one patient has."""
    rows = []
    for split, part in index.groupby("split", sort=True):
        most = int(part["patient_id"].value_counts().iloc[0])
        rows.append(
            {
                "split": split or "(none)",
                "images": len(part),
                "patients": part["patient_id"].nunique(),
                "most images of a patient": most,
            }
        )
    return rows


def prevalence(index: pd.DataFrame) -> list[dict[str, Any]]:
    """For every finding and split: positive images and patients, images with a known label, and the share."""
    rows = []
    for finding in finding_columns(index):
        for split, part in index.groupby("split", sort=True):
            known, positive = part[finding].isin([0, 1]), part[finding] == 1  # a smoothed label is not known
            share = float(part.loc[known, finding].mean()) if known.any() else None
            rows.append(
                {
                    "finding": finding,
                    "split": split or "(none)",
                    "positive images": int(positive.sum()),
                    "positive patients": part.loc[positive, "patient_id"].nunique(),
                    "known": int(known.sum()),
                    "prevalence": share,
                }
            )
    return rows


def leaking_patients(index: pd.DataFrame) -> list[dict[str, Any]]:
    """Patients in more than one split, as the rows of their images; the patient's id stays out."""
    given = index[(index["split"] != "") & (index["patient_id"] != "")]
    leaks = given[given["patient_id"].isin(patients_in_several_splits(given))]
    return [
        {"rows": [int(row) for row in part.index], "splits": sorted(set(part["split"]))}
        for _, part in leaks.groupby("patient_id", sort=False)
    ]


def duplicate_facts(index: pd.DataFrame, group: np.ndarray) -> dict[str, Any]:
    """What groups of duplicates mean: how many cross splits or patients, or carry different labels.

    Args:
        index: N rows.
        group: of every row, -1 for none, shape ``(N,)``.

    Returns:
        Counts of groups, and the first 200 groups by their rows, those across splits first.
    """
    labels = list(finding_columns(index))
    groups = []
    for _, part in index[group >= 0].groupby(group[group >= 0], sort=True):
        splits = sorted(set(part["split"]) - {""})
        groups.append(
            {
                "rows": [int(row) for row in part.index],
                "splits": splits,
                "across_splits": len(splits) > 1,
                "across_patients": bool(part["patient_id"].nunique() > 1),
                "labels_differ": bool((part[labels].nunique() > 1).any()),
            }
        )
    groups.sort(key=lambda one: (not one["across_splits"], not one["across_patients"], one["rows"]))
    kinds = ("across_splits", "across_patients", "labels_differ")
    counts: dict[str, Any] = {kind: sum(one[kind] for one in groups) for kind in kinds}
    return {"groups": len(groups), "images": int((group >= 0).sum()), **counts, "first": groups[:_SHOWN]}
