"""Images with one class: the rows, the accuracy of a classifier on them with its baselines, and how it is printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from monai_simclr.evaluation.embeddings import Embeddings
from monai_simclr.evaluation.intervals import (
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


def class_rows(embeddings: Embeddings, references: Mapping[str, np.ndarray], classes: np.ndarray) -> ClassRows:
    """Check what an evaluation by class starts from.

    Args:
        embeddings: index with `patient_id` and `split`.
        references: name -> features of the same rows.
        classes: as text, shape ``(N,)``; "" is in neither mask.

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
            f"{train.sum()} train and {test.sum()} test rows have a class; the evaluation needs both splits"
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
        embeddings: of N images.
        references: name -> features of the same rows.
        rows: from `class_rows`.
        predict: maps features ``(N, D)`` to a class for every test row.
        n_bootstrap: resamples of test patients.
        n_permutations: of the test classes over patients, against the fixed predictions.
        seed: of both.

    Returns:
        One row per set of features: `features, n, value, low, high, majority, null_low, null_high, p`.
    """
    classes, patients = rows.classes[rows.test], rows.patients[rows.test]
    names, frequency = np.unique(rows.classes[rows.train], return_counts=True)
    majority = float((classes == names[frequency.argmax()]).mean())
    codes, counts = patient_counts(patients, n_bootstrap, seed)
    weights = counts[:, codes].astype(float)
    generator = np.random.default_rng(seed)
    permuted = [permute_over_patients(classes, patients, generator) for _ in range(n_permutations)]
    table = []
    for name, features in {ENCODER: embeddings.features, **references}.items():
        predicted = predict(np.asarray(features, dtype=np.float32).reshape(len(embeddings), -1))
        hits = (predicted == classes).astype(float)
        interval = bootstrap_interval(float(hits.mean()), weights @ hits / weights.sum(axis=1), units=counts.shape[1])
        null = compare_to_null(interval.value, np.array([(predicted == chance).mean() for chance in permuted]))
        table.append({"features": name, "n": len(classes), **interval.as_dict(), "majority": majority, **null})
    return pd.DataFrame(table)


def format_score(
    value: float,
    low: float,
    high: float,
    majority: float | None,
    null: tuple[float, float] | None,
    name: str = "ACC",
    baseline: str = "majority",
) -> str:
    """A score as text, with its interval, the majority baseline and the 95 % band of the permutation null.

    Args:
        value: the score.
        low: of its interval.
        high: of its interval.
        majority: score of a constant answer, the commonest training class.
        null: the band of the same procedure under permuted labels.
        name: of the score.
        baseline: name of the majority.

    Raises:
        ValueError: if the interval, the majority or the null is missing: an accuracy alone is meaningless.

    Example:
        >>> format_score(0.67, 0.61, 0.72, 0.23, (0.15, 0.19))
        'ACC 0.67 [0.61, 0.72] (majority 0.23, null 0.15-0.19)'
    """
    needed = {"low": low, "high": high, "majority": majority, "null": None if null is None else sum(null)}
    missing = [key for key, number in needed.items() if number is None or not math.isfinite(number)]
    if missing or majority is None or null is None:
        raise ValueError(
            f"{name} {value:.2f} came without its {', '.join(missing)}, and a score alone is meaningless; "
            "compute them with evaluate_clusters() or knn()"
        )
    dash = "-" if min(null) >= 0 else " to "
    band = f"null {null[0]:.2f}{dash}{null[1]:.2f}"
    return f"{name} {value:.2f} [{low:.2f}, {high:.2f}] ({baseline} {majority:.2f}, {band})"
