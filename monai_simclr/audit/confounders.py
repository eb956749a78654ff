"""How well facts other than anatomy predict a finding: view, sex, age, scanner, archive, even the file's size."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from monai_simclr.data.index import finding_columns
from monai_simclr.runtime.names import encode_name

_INDEX = ("view_position", "sex", "source")
_FACTS = ("manufacturer", "model", "format", "photometric", "bits", "spacing", "window")
_NUMBERS = ("age", "bytes", "pixels")
_MIN_IMAGES = 20
_STRONG = 0.65
_MAX_SOURCES = 12


def confounders(index: pd.DataFrame, facts: pd.DataFrame) -> list[dict[str, Any]]:
    """AUROC of every nuisance for every finding, the strongest first: over all images, and within each source.

    For a number (age, bytes, rows x columns) the AUROC is of the number itself, in the better direction. For a category
    it is of the category's prevalence, learnt on one half of the patients and scored on the other, both ways. Unknown
    views, sexes and ages are excluded. No pixel is read: a network may learn a strong nuisance instead of the finding.

    Returns:
        One mapping per finding and nuisance with at least 20 positive and 20 negative images: `finding, nuisance,
        within` ("all" or a source), `auroc, chance` (97.5th percentile of the AUROC of an unrelated nuisance, as if
        images were independent), `positive, negative, strong` (at least 0.65 and `chance`).
    """
    nuisances = _nuisances(index, facts)
    # by a hash of the patient, so that the halves do not depend on the order of rows
    digests = {patient: hashlib.sha256(encode_name(str(patient))).digest() for patient in index["patient_id"].unique()}
    half = np.array([digests[patient][0] < 128 for patient in index["patient_id"]])
    strata = [("all", np.ones(len(index), dtype=bool))]
    if "source" in index and index["source"].nunique() > 1:
        sources = index["source"].value_counts().index[:_MAX_SOURCES]
        strata += [(str(source), (index["source"] == source).to_numpy()) for source in sources]
    rows = []
    for within, inside in strata:
        for finding in finding_columns(index):
            labels = index[finding].to_numpy(dtype=float)
            for nuisance, values in nuisances.items():
                known = inside & ((labels == 0) | (labels == 1)) & ~pd.isna(values)
                scores = _score(values[known], labels[known] == 1, half[known])
                if scores:
                    rows.append({"finding": finding, "nuisance": nuisance, "within": within, **scores})
    return sorted(rows, key=lambda row: -row["auroc"])


def _nuisances(index: pd.DataFrame, facts: pd.DataFrame) -> dict[str, np.ndarray]:
    """Numbers as floats, NaN if unknown; categories as text. Those with only one value are dropped."""
    table = index[[name for name in (*_INDEX, "age") if name in index]].join(facts[[*_FACTS, "bytes"]])
    if "manufacturer" in index:
        table["manufacturer"] = index["manufacturer"].where(index["manufacturer"] != "", facts["manufacturer"])
    table["pixels"] = facts["rows"].astype(float) * facts["columns"].astype(float)
    nuisances = {}
    for name in (name for name in (*_INDEX, *_FACTS, *_NUMBERS) if name in table):
        values: pd.Series = table[name].astype(float if name in _NUMBERS else str)
        if name in _NUMBERS:
            values = values.where(values >= 0)
        elif name in ("view_position", "sex"):
            values = values.where(values != "")
        if values.nunique() > 1:
            nuisances[name] = values.to_numpy()
    return nuisances


def _score(values: np.ndarray, positive: np.ndarray, half: np.ndarray) -> dict[str, Any] | None:
    """How well known values predict a finding; None if it cannot be scored."""
    n, m = int(positive.sum()), int((~positive).sum())
    if min(n, m) < _MIN_IMAGES or pd.unique(values).size < 2:
        return None
    if values.dtype == float:
        auroc = float(roc_auc_score(positive, values))
        auroc = max(auroc, 1 - auroc)
    else:
        aurocs = []
        for scored in (half, ~half):
            if len(np.unique(positive[scored])) < 2:
                return None
            learnt = pd.Series(positive[~scored].astype(float)).groupby(values[~scored])
            rates = (learnt.sum() + positive.mean()) / (learnt.count() + 1)
            scores = pd.Series(values[scored]).map(rates).fillna(positive.mean())
            aurocs.append(roc_auc_score(positive[scored], scores.to_numpy(dtype=float)))
        auroc = float(np.mean(aurocs))
    chance = 0.5 + 1.96 * float(np.sqrt((n + m + 1) / (12 * n * m)))
    return {
        "auroc": auroc,
        "chance": chance,
        "positive": n,
        "negative": m,
        "strong": auroc >= max(_STRONG, chance),
    }
