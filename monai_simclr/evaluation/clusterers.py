"""Clustering methods, fitted on train rows and applied to all, and a number of clusters chosen without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize

from monai_simclr.evaluation.embeddings import sample_rows
from monai_simclr.evaluation.graph import spectral

_COMPONENTS = 50
_AGGLOMERATED = 2000
"""Largest number of train rows that are agglomerated: the work grows with their square."""
SILHOUETTE_ROWS = 2000
"""Largest number of rows that a silhouette is computed on."""


def reduce_features(features: np.ndarray, train: np.ndarray, seed: int = 0) -> np.ndarray:
    """L2-normalised features ``(N, D)`` on at most 50 principal components of train rows, float32 ``(N, d)``."""
    unit = normalize(np.asarray(features, dtype=np.float32).reshape(len(features), -1))
    size = min(_COMPONENTS, int(train.sum()))
    if unit.shape[1] <= size:
        return unit
    return PCA(size, random_state=seed).fit(unit[train]).transform(unit).astype(np.float32)


def fit_clusters(
    features: np.ndarray, train: np.ndarray, n_clusters: int, seed: int = 0, n_init: int = 10, method: str = "kmeans"
) -> np.ndarray:
    """Clusters of every row, fitted on L2-normalised, PCA-reduced train rows.

    Args:
        features: shape ``(N, D)``.
        train: the rows to fit on, a mask of shape ``(N,)``.
        n_clusters: number of clusters.
        seed: of everything random.
        n_init: starts, of which the best is kept.
        method: a key of `METHODS`.

    Returns:
        The cluster of every row, ``0 .. n_clusters - 1``, shape ``(N,)``.

    Raises:
        ValueError: if there are fewer train rows than clusters, or no such method.

    Example:
        >>> two = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> a, b, c, d = fit_clusters(two, np.array([True, False, True, False]), n_clusters=2)
        >>> bool(a == b and c == d and a != c)
        True
    """
    if method not in METHODS:
        raise ValueError(f"unknown clustering {method!r}; choose one of {list(METHODS)}")
    if not 1 <= n_clusters <= train.sum():
        raise ValueError(f"{n_clusters} clusters cannot be fitted on {train.sum()} train rows")
    return METHODS[method](reduce_features(features, train, seed), train, n_clusters, seed, n_init)


def choose_n_clusters(
    features: np.ndarray, train: np.ndarray, candidates: Sequence[int], method: str = "kmeans", n_seeds: int = 5
) -> tuple[int, pd.DataFrame]:
    """The number of clusters with the best silhouette, without labels, and the curve with the stability of each.

    Args:
        features: shape ``(N, D)``.
        train: the rows to fit on, a mask of shape ``(N,)``.
        candidates: numbers of clusters, at least 2 each.
        method: a key of `METHODS`.
        n_seeds: fits of every candidate.

    Returns:
        The chosen number, and one row per candidate: `n_clusters, silhouette, stability, chosen`. Stability is the mean
        adjusted Rand index between the clusters of two seeds on train rows: near 1, they are always the same clusters.

    Raises:
        ValueError: if no candidate is from 2 to the number of train rows minus one.

    Example:
        >>> three = np.random.default_rng(0).normal(size=(90, 4)) / 9 + np.eye(4)[np.arange(90) % 3]
        >>> best, curve = choose_n_clusters(three, np.ones(90, dtype=bool), [2, 3, 4])
        >>> best, float(curve["stability"].round(2).max())
        (3, 1.0)
    """
    reduced = reduce_features(features, train)
    sample = sample_rows(np.arange(int(train.sum())), SILHOUETTE_ROWS, 0)
    rows = []
    for count in sorted({count for count in candidates if 2 <= count < train.sum()}):
        fits = [METHODS[method](reduced, train, count, seed, 3)[train] for seed in range(n_seeds)]
        pairs = [adjusted_rand_score(a, b) for i, a in enumerate(fits) for b in fits[i + 1 :]]
        several = len(np.unique(fits[0][sample])) > 1
        score = float(silhouette_score(reduced[train][sample], fits[0][sample])) if several else float("nan")
        stability = float(np.mean(pairs)) if pairs else float("nan")
        rows.append({"n_clusters": count, "silhouette": score, "stability": stability})
    if not rows:
        raise ValueError(
            f"no number of clusters of {list(candidates)} is from 2 to {int(train.sum()) - 1}, the train rows minus one"
        )
    table = pd.DataFrame(rows)
    best = int(table["n_clusters"].to_numpy()[table["silhouette"].fillna(-1).to_numpy().argmax()])
    return best, table.assign(chosen=table["n_clusters"] == best)


def _kmeans(reduced: np.ndarray, train: np.ndarray, n_clusters: int, seed: int, n_init: int) -> np.ndarray:
    return KMeans(n_clusters, n_init=n_init, random_state=seed).fit(reduced[train]).predict(reduced)


def _spherical(reduced: np.ndarray, train: np.ndarray, n_clusters: int, seed: int, n_init: int) -> np.ndarray:
    """Spherical k-means (Dhillon and Modha 2001): centers are directions, closeness is the cosine."""
    unit = normalize(reduced)
    fitted, best_score, best = unit[train], -np.inf, np.empty(0)
    for start in range(n_init):
        first = KMeans(n_clusters, n_init=1, max_iter=1, random_state=seed * 1000 + start).fit(fitted)
        centers = normalize(first.cluster_centers_)
        for _ in range(100):
            sums = np.zeros_like(centers)
            np.add.at(sums, (fitted @ centers.T).argmax(axis=1), fitted)
            moved = np.where(np.linalg.norm(sums, axis=1, keepdims=True) > 1e-9, normalize(sums), centers)
            if np.allclose(moved, centers, atol=1e-6):
                break
            centers = moved
        score = float((fitted @ centers.T).max(axis=1).sum())
        if score > best_score:
            best_score, best = score, centers
    return (unit @ best.T).argmax(axis=1)


def _mixture(reduced: np.ndarray, train: np.ndarray, n_clusters: int, seed: int, n_init: int) -> np.ndarray:
    """Gaussian mixture with diagonal covariances: full ones need more rows than a cluster has."""
    starts = min(n_init, 3)
    model = GaussianMixture(n_clusters, covariance_type="diag", n_init=starts, reg_covar=1e-4, random_state=seed)
    return model.fit(reduced[train].astype(np.float64)).predict(reduced.astype(np.float64))


def _agglomerative(reduced: np.ndarray, train: np.ndarray, n_clusters: int, seed: int, n_init: int) -> np.ndarray:
    """Ward's agglomeration of train rows; every other row joins the nearest mean."""
    sample = sample_rows(np.flatnonzero(train), _AGGLOMERATED, seed)
    fitted = AgglomerativeClustering(n_clusters).fit_predict(reduced[sample])
    centers = np.stack([reduced[sample][fitted == cluster].mean(axis=0) for cluster in range(n_clusters)])
    clusters = (np.square(centers).sum(axis=1) - 2 * reduced @ centers.T).argmin(axis=1)
    clusters[sample] = fitted
    return clusters


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int, int, int], np.ndarray]] = {
    "kmeans": _kmeans,
    "spherical": _spherical,
    "mixture": _mixture,
    "agglomerative": _agglomerative,
    "spectral": spectral,
}
"""Names of clusterings; each takes reduced features, the train mask, n_clusters, a seed and a number of starts."""
