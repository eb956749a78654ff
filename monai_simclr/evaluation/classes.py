"""Images with one class: the rows, the accuracy of a classifier on them with its baselines, and how it is printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from monai_simclr.evaluation.embeddings import Embeddings
from monai_simclr.evaluation.intervals import (
    FEWEST_UNITS,
    bootstrap_interval,
    compare_to_null,
    patient_counts,
    permute_over_patients,
)
from monai_simclr.evaluation.predictions import refuse_shared_patients

ENCODER = "encoder"
"""The name of the embeddings themselves among their references."""


class ClassRows(NamedTuple):
    """Rows with a class: masks of train and test ``(N,)``, classes and patients as text, the names of the classes."""

    train: np.ndarray
    test: np.ndarray
    classes: np.ndarray
    patients: np.ndarray
    names: np.ndarray

    @property
    def n_train_classes(self) -> int:
        """Number of classes that train rows have; a class of test rows alone cannot be learned."""
        return len(np.unique(self.classes[self.train]))

    @property
    def codes(self) -> np.ndarray:
        """Classes as positions in `names`, a new array of shape ``(N,)``; 0 for rows in neither mask."""
        return np.searchsorted(self.names, np.where(self.train | self.test, self.classes, self.names[0]))


def class_rows(embeddings: Embeddings, references: Mapping[str, np.ndarray], classes: np.ndarray) -> ClassRows:
    """The rows that have a class: `classes` is text, shape ``(N,)``, "" for none.

    Raises:
        ValueError: if lengths differ, a patient is in train and test, a split has no row with a class, or train rows
            have one class only.
    """
    classes = np.asarray(classes).astype(str)
    for name, values in {**references, "classes": classes}.items():
        if len(values) != len(embeddings):
            raise ValueError(
                f"{name} has {len(values)} rows, not {len(embeddings)} as the embeddings; pass the same images"
            )
    if ENCODER in references:
        raise ValueError(f"a reference cannot be called {ENCODER!r}: the embeddings themselves are")
    split = embeddings.index["split"].to_numpy().astype(str)
    patients = embeddings.index["patient_id"].to_numpy().astype(str)
    train, test = (classes != "") & (split == "train"), (classes != "") & (split == "test")
    if not train.any() or not test.any():
        raise ValueError(
            f"{train.sum()} train and {test.sum()} test rows have a class (one finding is 1, or all are 0), and "
            "the evaluation needs both: give labels to images of both splits"
        )
    refuse_shared_patients({"train": patients[train], "test": patients[test]})
    names = np.unique(classes[train])
    if len(names) < 2:
        raise ValueError(
            f"all {train.sum()} train rows with a class are {str(names[0])!r}; two classes or more are needed. A row "
            "has a class where exactly one finding is 1 (its name), or all are 0 ('No Finding'): choose findings so"
        )
    return ClassRows(train, test, classes, patients, np.unique(classes[train | test]))


def score_accuracy(
    embeddings: Embeddings,
    references: Mapping[str, np.ndarray],
    rows: ClassRows,
    predict: Callable[[np.ndarray], np.ndarray],
    n_bootstrap: int,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    """Accuracy of one classifier on the embeddings and on every reference, with its interval, majority and null.

    Args:
        embeddings, references: features of N images, and name -> other features of the same.
        rows: from `class_rows`.
        predict: maps features ``(N, D)`` to a class for every test row.
        n_bootstrap, n_permutations, seed: of the resampling of test patients, and of the null: the test classes
            permuted over patients against the fixed predictions.

    Returns:
        One row per set of features: `features, n, value, low, high, majority, null_low, null_high, p`.
    """
    classes, patients = rows.classes[rows.test], rows.patients[rows.test]
    names, frequency = np.unique(rows.classes[rows.train], return_counts=True)
    majority = float((classes == names[frequency.argmax()]).mean())
    codes, counts = patient_counts(patients, n_bootstrap, seed)
    weights = counts[:, codes].astype(float)
    generator = np.random.default_rng(seed)
    permuted = [permute_over_patients(classes, codes, generator) for _ in range(n_permutations)]
    table = []
    for name, features in {ENCODER: embeddings.features, **references}.items():
        predicted = predict(np.asarray(features, dtype=np.float32).reshape(len(embeddings), -1))
        hits = (predicted == classes).astype(float)
        resamples = weights @ hits / weights.sum(axis=1)
        interval = bootstrap_interval(float(hits.mean()), resamples, units=counts.shape[1], share=True)
        null = compare_to_null(interval.value, np.array([(predicted == chance).mean() for chance in permuted]))
        table.append({"features": name, "n": len(classes), **interval.as_dict(), "majority": majority, **null})
    return pd.DataFrame(table)


def format_score(row: Mapping[str, Any], name: str = "ACC", baseline: str = "majority") -> str:
    """A row of `score_accuracy` or of a `ClusterReport` as text, with interval, baseline and the band of the null.

    Args:
        row: `value, low, high, majority, null_low, null_high`.
        name, baseline: of the score, and of what the majority is.

    Raises:
        ValueError: if a number is missing: an accuracy alone is meaningless.

    Example:
        >>> score = {"value": 0.67, "low": 0.61, "high": 0.72, "majority": 0.23, "null_low": 0.15, "null_high": 0.19}
        >>> format_score(score)
        'ACC 0.67 [0.61, 0.72] (majority 0.23, null 0.15-0.19)'
    """
    needed = ("majority", "null_low", "null_high")
    missing = [key for key in ("low", "high") if key not in row]
    missing += [key for key in needed if not math.isfinite(row.get(key, math.nan))]
    if missing:
        raise ValueError(
            f"{name} {row['value']:.2f} came without its {', '.join(missing)}, and a score alone is meaningless; "
            "compute them with evaluate_clusters() or knn()"
        )
    majority, null_low, null_high = (float(row[key]) for key in needed)
    known = row["low"] is not None and math.isfinite(row["low"])
    interval = f"[{row['low']:.2f}, {row['high']:.2f}]" if known else f"[no interval of under {FEWEST_UNITS} patients]"
    dash = "-" if min(null_low, null_high) >= 0 else " to "
    band = f"null {null_low:.2f}{dash}{null_high:.2f}"
    return f"{name} {row['value']:.2f} {interval} ({baseline} {majority:.2f}, {band})"
