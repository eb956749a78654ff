"""Images that are unlike all others, and labels that the images around them contradict: lists to look at, not facts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from monai_simclr.evaluation.embeddings import Embeddings
from monai_simclr.evaluation.predictions import certain_labels, sigmoid
from monai_simclr.evaluation.selection import typicality


def find_outliers(embeddings: Embeddings, n: int = 20) -> pd.DataFrame:
    """The images least like their nearest others: wrong body parts, inverted or damaged ones come first.

    Returns:
        `image, patient_id, typicality` of `n` images, the oddest first.

    Example:
        >>> index = pd.DataFrame({"image": list("wxyz"), "patient_id": list("abcd")})
        >>> features = np.array([[1, 0.01], [1, 0], [1, -0.01], [0, 1]])
        >>> find_outliers(Embeddings(features, index), n=1)["image"].tolist()
        ['z']
    """
    dense = typicality(embeddings.features)
    rows = np.argsort(dense, kind="stable")[:n]
    return (
        embeddings.index.iloc[rows][["image", "patient_id"]]
        .assign(typicality=dense[rows].round(6))
        .reset_index(drop=True)
    )


def find_label_errors(embeddings: Embeddings, findings: Sequence[str], n: int = 20, folds: int = 5) -> pd.DataFrame:
    """Labels that a probe of other patients finds least credible (in the spirit of Northcutt et al., JAIR 2021).

    The probability of every label comes from a logistic regression on the other folds of patients, so no image judges
    itself. Findings with fewer than 2 x `folds` patients of either label are left out.

    Args:
        embeddings: index with `image`, `patient_id` and the findings.
        findings: columns of the index.
        n: rows of the table.
        folds: of patients.

    Returns:
        `image, patient_id, finding, label, probability` (of the label as it stands), the least credible first.
    """
    patients = embeddings.index["patient_id"].to_numpy().astype(str)
    parts = []
    for finding in findings:
        labels = certain_labels(embeddings.index[finding].to_numpy(dtype=float))
        known = np.flatnonzero(np.isfinite(labels))
        least = min(len(np.unique(patients[known][labels[known] == value])) for value in (0, 1))
        if least < 2 * folds:
            continue
        credible = np.zeros(len(known))
        for fit, judge in GroupKFold(folds).split(known, groups=patients[known]):
            if len(np.unique(labels[known[fit]])) < 2:
                credible[judge] = np.nan
                continue
            scaler = StandardScaler().fit(embeddings.features[known[fit]])
            model = LogisticRegression(C=1e-2, max_iter=1000, class_weight="balanced")
            model.fit(scaler.transform(embeddings.features[known[fit]]), labels[known[fit]])
            logits = model.decision_function(scaler.transform(embeddings.features[known[judge]]))
            credible[judge] = np.where(labels[known[judge]] == 1, logits, -logits)
        rows = embeddings.index.iloc[known][["image", "patient_id"]]
        parts.append(rows.assign(finding=finding, label=labels[known], credible=credible))
    if not parts:
        return pd.DataFrame(columns=["image", "patient_id", "finding", "label", "probability"])
    table = pd.concat(parts).sort_values("credible", kind="stable").head(n).reset_index(drop=True)
    return table.assign(probability=sigmoid(table.pop("credible").to_numpy()).round(6))
