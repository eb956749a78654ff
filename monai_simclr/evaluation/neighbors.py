"""Nearest neighbours in the embedding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.preprocessing import normalize

from monai_simclr.embeddings import Embeddings
from monai_simclr.evaluation.class_rows import accuracy_rows, class_rows

__all__ = ["knn", "knn_accuracy", "knn_predict"]

_CHUNK = 1024
"""Test images compared with all training images at once."""


def knn_predict(
    train_features: np.ndarray,
    train_classes: np.ndarray,
    test_features: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """The class that the `k` most similar training images vote for.

    Similarity is the cosine; a neighbour's vote is ``exp(similarity / temperature)`` (Wu et al., CVPR 2018).
    Equal votes go to the class that sorts first.

    Args:
        train_features: shape ``(N, D)``.
        train_classes: shape ``(N,)``.
        test_features: shape ``(M, D)``.
        k: neighbours; all of train when it has fewer.
        temperature: above 0; large for votes that are all alike.

    Returns:
        A class for every test row, shape ``(M,)``.

    Raises:
        ValueError: if there is no training row, or `k` or `temperature` is not positive.

    Example:
        >>> knn_predict(np.eye(2), np.array(["Mass", "Edema"]), np.array([[0.9, 0.1], [0.2, 0.9]]), k=1).tolist()
        ['Mass', 'Edema']
    """
    if not len(train_features) or k < 1 or temperature <= 0:
        raise ValueError(f"{len(train_features)} training rows, k={k}, temperature={temperature}: all must be above 0")
    names, codes = np.unique(train_classes, return_inverse=True)
    k = min(k, len(codes))
    train = normalize(np.asarray(train_features, dtype=np.float32))
    test = normalize(np.asarray(test_features, dtype=np.float32))
    answers = np.empty(len(test), dtype=np.int64)
    for start in range(0, len(test), _CHUNK):
        similarity = test[start : start + _CHUNK] @ train.T
        near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        close = np.take_along_axis(similarity, near, axis=1).astype(np.float64)
        votes = np.exp((close - close.max(axis=1, keepdims=True)) / temperature)
        flat = np.arange(len(near))[:, None] * len(names) + codes[near]
        total = np.bincount(flat.ravel(), weights=votes.ravel(), minlength=len(near) * len(names))
        answers[start : start + _CHUNK] = total.reshape(len(near), len(names)).argmax(axis=1)
    return names[answers]


def knn_accuracy(
    train_features: np.ndarray,
    train_classes: np.ndarray,
    test_features: np.ndarray,
    test_classes: np.ndarray,
    k: int = 20,
) -> float:
    """Share of the test images whose neighbours' vote (`knn_predict`, temperature 0.07) is right.

    For watching a training run; print `knn`, which has the interval and the baselines beside it.

    Example:
        >>> knn_accuracy(np.eye(2), np.array([0, 1]), np.eye(2), np.array([0, 0]), k=1)
        0.5
    """
    answers = knn_predict(train_features, train_classes, test_features, k)
    return float((answers == np.asarray(test_classes)).mean())


def knn(
    embeddings: Embeddings,
    references: Mapping[str, np.ndarray],
    classes: np.ndarray,
    k: int = 20,
    n_bootstrap: int = 1000,
    n_permutations: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Nearest-neighbour accuracy at test patients, neighbours from train, beside majority, null and references.

    The null permutes the test classes over patients against the fixed answers.

    Args:
        embeddings: index with `patient_id` and `split`.
        references: name -> features of the same rows, ``(N, D)``.
        classes: as text, shape ``(N,)``; "" is left out.
        k: neighbours.
        n_bootstrap: resamples of test patients.
        n_permutations: of the null.
        seed: of everything random.

    Returns:
        One row a set of features: `features, n, value, low, high, majority, null_low, null_high`.

    Raises:
        ValueError: if lengths differ, a patient is in train and test, or a split has no row with a class.
    """
    rows = class_rows(embeddings, references, classes)

    def answer(features: np.ndarray) -> np.ndarray:
        return knn_predict(features[rows.train], rows.classes[rows.train], features[rows.test], k)

    return accuracy_rows(embeddings, references, rows, answer, n_bootstrap, n_permutations, seed)
