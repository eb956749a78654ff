"""Nearest neighbours in the embedding."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.preprocessing import normalize

from monai_simclr.evaluation.classes import class_rows, score_accuracy
from monai_simclr.evaluation.embeddings import Embeddings
from monai_simclr.evaluation.predictions import certain_labels, refuse_shared_patients, train_and_test
from monai_simclr.evaluation.scores import score_findings

logger = logging.getLogger("monai_simclr.evaluation")

_CHUNK = 1024
"""Test images compared with all training images at once."""
_CELLS = 2**28
"""Similarities that are in memory at once, of 16 bytes with their order: fewer test images where there are many."""
_FOR_FAISS = 1_000_000
"""Training images from which faiss searches, which is exact too and keeps no matrix of similarities."""


def nearest(train_features: np.ndarray, test_features: np.ndarray, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and cosines ``(m, k)``, unsorted, of the `k` training rows most similar to each of m test rows.

    The search is exact. From a million training rows it goes through faiss, where that is installed.
    """
    k = min(k, len(train_features))
    train = normalize(np.asarray(train_features, dtype=np.float32))
    test = normalize(np.asarray(test_features, dtype=np.float32))
    if len(train) >= _FOR_FAISS:
        try:
            import faiss
        except ImportError:
            logger.info(f"nearest of {len(train):,} images by NumPy; pip install 'monai-simclr[faiss]' takes less time")
        else:
            index = faiss.IndexFlatIP(train.shape[1])
            index.add(train)
            for start in range(0, len(test), _CHUNK):
                cosines, near = index.search(test[start : start + _CHUNK], k)
                yield near, cosines.astype(np.float64)
            return
    rows = max(1, min(_CHUNK, _CELLS // max(1, len(train))))
    for start in range(0, len(test), rows):
        similarity = test[start : start + rows] @ train.T
        near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        yield near, np.take_along_axis(similarity, near, axis=1).astype(np.float64)


def _votes(cosines: np.ndarray, temperature: float) -> np.ndarray:
    return np.exp((cosines - cosines.max(axis=1, keepdims=True)) / temperature)


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
        temperature: above 0; the larger, the more equal the votes.

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
    winners = [np.array([], dtype=int)]
    for near, cosines in nearest(train_features, test_features, k):
        cells = np.arange(len(near))[:, None] * len(names) + codes[near]
        votes = _votes(cosines, temperature)
        total = np.bincount(cells.ravel(), weights=votes.ravel(), minlength=len(near) * len(names))
        winners.append(total.reshape(len(near), len(names)).argmax(axis=1))
    return names[np.concatenate(winners)]


def knn_scores(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """Per finding, the weighted share of positive neighbours among those whose label is known: shape ``(M, K)``.

    Labels ``(N, K)`` are 1, 0 or NaN; a smoothed label counts as unknown. Where no neighbour's label is known, the
    score is the prevalence in train. The other arguments are those of `knn_predict`.
    """
    labels = certain_labels(train_labels)
    known = np.isfinite(labels)
    prevalence = np.nansum(labels, axis=0) / np.maximum(known.sum(axis=0), 1)
    parts = [np.zeros((0, labels.shape[1]))]
    for near, cosines in nearest(train_features, test_features, k):
        votes = _votes(cosines, temperature)[..., None] * known[near]
        total = votes.sum(axis=1)
        share = (votes * np.nan_to_num(labels)[near]).sum(axis=1) / np.maximum(total, 1e-300)
        parts.append(np.where(total > 0, share, prevalence))
    return np.concatenate(parts)


def knn_findings(
    embeddings: Embeddings, findings: Sequence[str], k: int = 20, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Many findings per image: every finding scored by its share among the `k` nearest training images.

    Args:
        embeddings, findings: index with `patient_id`, `split` and the findings, and their names.
        k: neighbours.
        n_bootstrap, seed: of the resampling of test patients.

    Returns:
        The table of `score_findings`; the mean of its `auprc` is the mAP.

    Raises:
        ValueError: if train or test is empty, or a patient is in both.
    """
    train, test = (embeddings.where(rows) for rows in train_and_test(embeddings.index))
    patients, train_patients = (part.index["patient_id"].to_numpy().astype(str) for part in (test, train))
    refuse_shared_patients({"train": train_patients, "test": patients})
    train_labels, labels = (part.index[list(findings)].to_numpy(dtype=float) for part in (train, test))
    scores = knn_scores(train.features, train_labels, test.features, k)
    return score_findings(labels, scores, patients, findings, n_bootstrap, seed)


def knn(
    embeddings: Embeddings,
    references: Mapping[str, np.ndarray],
    classes: np.ndarray,
    k: int = 20,
    n_bootstrap: int = 1000,
    n_permutations: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy at test patients of `k` nearest neighbours from train, with majority, null and references.

    Args:
        embeddings, references, classes: as for `evaluate_clusters`; rows with the class "" are not used.
        k: neighbours.
        n_bootstrap, n_permutations, seed: of the interval and the null.

    Returns:
        The table of `score_accuracy`.

    Raises:
        ValueError: if lengths differ, a patient is in train and test, or a split has no row with a class.
    """
    rows = class_rows(embeddings, references, classes)

    def predict(features: np.ndarray) -> np.ndarray:
        return knn_predict(features[rows.train], rows.classes[rows.train], features[rows.test], k)

    return score_accuracy(embeddings, references, rows, predict, n_bootstrap, n_permutations, seed)
