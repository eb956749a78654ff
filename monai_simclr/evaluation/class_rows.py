"""The rows that have a class, and the accuracy of any classifier on them beside its baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from monai_simclr.evaluation.bootstrap import bootstrap_interval, p_value, patient_counts, permute_over_patients
from monai_simclr.evaluation.embeddings import Embeddings

ENCODER = "encoder"
"""The name of the embeddings themselves beside their references."""


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
        classes: as text, shape ``(N,)``; "" is left out of both masks.

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
    both = np.intersect1d(patients[train], patients[test])
    if len(both):
        raise ValueError(
            f"{len(both)} patients are in train and in test, the first is {str(both[0])!r}; split by patient with "
            "split_by_patient()"
        )
    names = np.unique(classes[train])
    if len(names) < 2:
        raise ValueError(
            f"all {train.sum()} train rows with a class are {str(names[0])!r}; two classes or more are needed. A row "
            "has a class where exactly one finding is 1 (its name), or all are 0 ('No Finding'): choose findings so"
        )
    return ClassRows(train, test, classes, patients, np.unique(classes[train | test]))


def accuracy_rows(
    embeddings: Embeddings,
    references: Mapping[str, np.ndarray],
    rows: ClassRows,
    answer: Callable[[np.ndarray], np.ndarray],
    n_bootstrap: int,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    """Accuracy of one classifier on the embeddings and on every reference, with its interval, majority and null.

    Args:
        embeddings: of N images.
        references: name -> features of the same rows.
        rows: from `class_rows`.
        answer: takes features ``(N, D)`` and gives a class for every test row.
        n_bootstrap: resamples of test patients.
        n_permutations: of the test classes over patients.
        seed: of both.

    Returns:
        One row a set of features: `features, n, value, low, high, majority, null_low, null_high, p`.
    """
    right, patients = rows.classes[rows.test], rows.patients[rows.test]
    names, counts_of = np.unique(rows.classes[rows.train], return_counts=True)
    majority = float((right == names[counts_of.argmax()]).mean())
    codes, counts = patient_counts(patients, n_bootstrap, seed)
    weights = counts[:, codes].astype(float)
    generator = np.random.default_rng(seed)
    permuted = [permute_over_patients(right, patients, generator) for _ in range(n_permutations)]
    table = []
    for name, features in {ENCODER: embeddings.features, **references}.items():
        answers = answer(np.asarray(features, dtype=np.float32).reshape(len(embeddings), -1))
        hits = (answers == right).astype(float)
        interval = bootstrap_interval(float(hits.mean()), weights @ hits / weights.sum(axis=1), units=counts.shape[1])
        null = np.array([(answers == chance).mean() for chance in permuted])
        low, high = np.quantile(null, [0.025, 0.975])
        beside = {"majority": majority, "null_low": float(low), "null_high": float(high)}
        beside["p"] = p_value(interval.value, null)
        table.append({"features": name, "n": len(right), **interval.as_dict(), **beside})
    return pd.DataFrame(table)
