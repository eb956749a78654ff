"""How well things that are no anatomy tell a finding: view, sex, age, scanner, archive, even the file's size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from monai_simclr.data.index import finding_columns
from monai_simclr.runtime.names import encode_name

_CATEGORIES = (
    "view_position",
    "sex",
    "source",
    "manufacturer",
    "model",
    "format",
    "photometric",
    "bits",
    "spacing",
    "window",
)
_NUMBERS = ("age", "bytes", "pixels")
_FEWEST = 20
_STRONG = 0.65
_MOST_SOURCES = 12


def confounders(index: pd.DataFrame, facts: pd.DataFrame) -> list[dict[str, Any]]:
    """AUROC of every nuisance for every finding, the strongest first: over all images, and within each source.

    For a number (age, bytes, rows x columns) the AUROC is of the number itself, in the better direction. For a category
    it is of the category's prevalence, learnt on one half of the patients and scored on the other, both ways. An
    unknown view, sex or age is left out. A pixel is never looked at: what stands here, a network may learn instead of
    the finding.

    Args:
        index: N rows with labels.
        facts: `header_facts` of the same rows.

    Returns:
        One mapping for every finding and nuisance with 20 positive and 20 negative images or more: `finding, nuisance,
        within` ("all" or a source), `auroc, chance` (97.5th percentile of an AUROC that means nothing, as if images
        were independent), `positive, negative, strong` (0.65 or more, and over chance).
    """
    nuisances = _nuisances(index, facts)
    half = _halves(index["patient_id"])
    rows = []
    for within, inside in _strata(index):
        for finding in finding_columns(index):
            labels = index[finding].to_numpy(dtype=float)
            known = inside & ((labels == 0) | (labels == 1))
            if min((labels[known] == 1).sum(), (labels[known] == 0).sum()) < _FEWEST:
                continue
            for name, values in nuisances.items():
                row = _row(values[known], labels[known] == 1, half[known])
                if row:
                    rows.append({"finding": finding, "nuisance": name, "within": within, **row})
    return sorted(rows, key=lambda row: -row["auroc"])


def _nuisances(index: pd.DataFrame, facts: pd.DataFrame) -> dict[str, np.ndarray]:
    """Numbers as floats, NaN where unknown; categories as text. Those with one value only are left out."""
    table = facts.drop(columns=[name for name in facts if name in index and name != "manufacturer"])
    if "manufacturer" in index:
        table["manufacturer"] = index["manufacturer"].where(index["manufacturer"] != "", table["manufacturer"])
    table = pd.concat(
        [index[[name for name in ("view_position", "sex", "age", "source") if name in index]], table], axis=1
    )
    table["pixels"] = table["rows"].astype(float) * table["columns"].astype(float)
    found: dict[str, np.ndarray] = {}
    for name in (*_CATEGORIES, *_NUMBERS):
        if name in table:
            number = name in _NUMBERS
            values = table[name].astype(float if number else str)
            values = values.where(values >= 0) if number else values
            values = values.replace("", np.nan) if name in ("view_position", "sex") else values
            if values.nunique() > 1:
                found[name] = values.to_numpy()
    return found


def _strata(index: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    yield "all", np.ones(len(index), dtype=bool)
    if "source" in index and index["source"].nunique() > 1:
        for source in index["source"].value_counts().index[:_MOST_SOURCES]:
            yield str(source), (index["source"] == source).to_numpy()


def _row(values: np.ndarray, positive: np.ndarray, half: np.ndarray) -> dict[str, Any] | None:
    given = ~pd.isna(values)
    values, positive, half = values[given], positive[given], half[given]
    n, m = int(positive.sum()), int((~positive).sum())
    if min(n, m) < _FEWEST or pd.unique(values).size < 2:
        return None
    if values.dtype == float:
        area = _auroc(values, positive)
        area = max(area, 1 - area)
    else:
        area = _crossed(values, positive, half)
    if np.isnan(area):
        return None
    chance = 0.5 + 1.96 * float(np.sqrt((n + m + 1) / (12 * n * m)))
    strong = bool(area >= max(_STRONG, chance))
    return {"auroc": float(area), "chance": chance, "positive": n, "negative": m, "strong": strong}


def _crossed(values: np.ndarray, positive: np.ndarray, half: np.ndarray) -> float:
    """Mean over the halves of the AUROC of prevalences that the other half taught; NaN if one cannot be scored."""
    overall = positive.mean()
    areas = []
    for scored in (half, ~half):
        taught = pd.DataFrame({"value": values[~scored], "label": positive[~scored]}).groupby("value")["label"]
        rates = (taught.sum() + overall) / (taught.count() + 1)
        scores = pd.Series(values[scored]).map(rates).fillna(overall).to_numpy(dtype=float)
        areas.append(_auroc(scores, positive[scored]))
    return float(np.mean(areas))


def _auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mann-Whitney's U over its largest value, ties counted half; NaN without both classes."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))


def _halves(patients: pd.Series) -> np.ndarray:
    """Which half a patient is in, by a hash, so that it does not hang on the order of rows."""
    unique = {patient: hashlib.sha256(encode_name(str(patient))).digest()[0] < 128 for patient in patients.unique()}
    return patients.map(unique).to_numpy(dtype=bool)
