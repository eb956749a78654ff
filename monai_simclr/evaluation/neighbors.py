"""Nearest neighbours in the embedding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.preprocessing import normalize

from monai_simclr.evaluation.class_rows import accuracy_rows, class_rows
from monai_simclr.evaluation.embeddings import Embeddings
from monai_simclr.evaluation.leaks import refuse_shared_patients
from monai_simclr.evaluation.predictions import certain_labels
from monai_simclr.evaluation.scores import score_findings

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
    answers = []
    for near, close in nearest(train_features, test_features, k):
        votes = np.exp((close - close.max(axis=1, keepdims=True)) / temperature)
        flat = np.arange(len(near))[:, None] * len(names) + codes[near]
        total = np.bincount(flat.ravel(), weights=votes.ravel(), minlength=len(near) * len(names))
        answers.append(total.reshape(len(near), len(names)).argmax(axis=1))
    return names[np.concatenate(answers) if answers else np.array([], dtype=int)]


def nearest(train_features: np.ndarray, test_features: np.ndarray, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The `k` most similar training rows of every test row and their cosines, 1024 test rows at a time.

    Args:
        train_features: shape ``(N, D)``.
        test_features: shape ``(M, D)``.
        k: neighbours; all of train when it has fewer.

    Yields:
        Positions and cosines, both ``(m, k)``, in no order within a row.
    """
    k = min(k, len(train_features))
    train = normalize(np.asarray(train_features, dtype=np.float32))
    test = normalize(np.asarray(test_features, dtype=np.float32))
    for start in range(0, len(test), _CHUNK):
        similarity = test[start : start + _CHUNK] @ train.T
        near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        yield near, np.take_along_axis(similarity, near, axis=1).astype(np.float64)


def knn_scores(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """For every finding the weighted share of positive neighbours among those whose label is known.

    Args:
        train_features: shape ``(N, D)``.
        train_labels: 1, 0 or NaN, shape ``(N, K)``; a smoothed label counts as unknown.
        test_features: shape ``(M, D)``.
        k: neighbours.
        temperature: of the weights, see `knn_predict`.

    Returns:
        Shape ``(M, K)``; the prevalence in train where no neighbour's label is known.

    Example:
        >>> knn_scores(np.eye(2), np.array([[1.0], [0.0]]), np.array([[0.9, 0.1]]), k=1).tolist()
        [[1.0]]
    """
    labels = certain_labels(train_labels)
    known = np.isfinite(labels)
    prior = np.nansum(labels, axis=0) / np.maximum(known.sum(axis=0), 1)
    parts = []
    for near, close in nearest(train_features, test_features, k):
        votes = np.exp((close - close.max(axis=1, keepdims=True)) / temperature)[..., None] * known[near]
        total = votes.sum(axis=1)
        share = (votes * np.nan_to_num(labels)[near]).sum(axis=1) / np.maximum(total, 1e-300)
        parts.append(np.where(total > 0, share, prior))
    return np.concatenate(parts) if parts else np.zeros((0, labels.shape[1]))


def knn_findings(
    embeddings: Embeddings, findings: Sequence[str], k: int = 20, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Many findings an image: every finding scored by its share among the nearest training images.

    Args:
        embeddings: index with `patient_id`, `split` and the findings.
        findings: columns of the index.
        k: neighbours.
        n_bootstrap: resamples of test patients.
        seed: of the resampling.

    Returns:
        The table of `score_findings`; the mean of its `auprc` is the mAP.

    Raises:
        ValueError: if train or test is empty, or a patient is in both.
    """
    train, test = embeddings.of_split("train"), embeddings.of_split("test")
    if not len(train) or not len(test):
        raise ValueError(f"{len(train)} train and {len(test)} test rows; nearest neighbours need both")
    refuse_shared_patients(
        {name: part.index["patient_id"].to_numpy().astype(str) for name, part in {"train": train, "test": test}.items()}
    )
    labels = [part.index[list(findings)].to_numpy(dtype=float) for part in (train, test)]
    scores = knn_scores(train.features, labels[0], test.features, k)
    return score_findings(labels[1], scores, test.index["patient_id"].to_numpy(), findings, n_bootstrap, seed)


def similar_images(embeddings: Embeddings, row: int, n: int = 10) -> pd.DataFrame:
    """The images most like one image, at most one a patient, its own patient left out.

    Args:
        embeddings: index with `image` and `patient_id`.
        row: position of the image.
        n: how many.

    Returns:
        Index rows with `similarity` (cosine after the mean of all was taken off) in front, the most similar first.

    Example:
        >>> index = pd.DataFrame({"image": list("xyz"), "patient_id": list("abc")})
        >>> similar_images(Embeddings(np.array([[1, 0], [0.9, 0.1], [0, 1]]), index), 0, n=1)["image"].tolist()
        ['y']
    """
    unit = normalize(embeddings.features - embeddings.features.mean(axis=0))
    patients = embeddings.index["patient_id"].to_numpy()
    table = embeddings.index.assign(similarity=unit @ unit[row])
    table = table[patients != patients[row]].sort_values("similarity", ascending=False, kind="stable")
    table = table.drop_duplicates("patient_id").head(n).round({"similarity": 6})
    return table[["similarity", *(name for name in table.columns if name != "similarity")]].reset_index(drop=True)


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
