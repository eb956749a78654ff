"""Ways to cluster, all fitted on train rows and applied to the rest, and a choice of k that needs no labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize

from monai_simclr.evaluation.graph import spectral

_COMPONENTS = 50
_AGGLOMERATED = 2000
"""Train rows that are agglomerated at most: the work grows with their square."""
_SILHOUETTE_ROWS = 2000


def reduce_features(features: np.ndarray, train: np.ndarray, seed: int = 0) -> np.ndarray:
    """L2-normalised features on at most 50 principal components, fitted on train rows; float32 ``(N, d)``.

    Args:
        features: shape ``(N, D)``, or images ``(N, H, W)``.
        train: the rows to fit on, a mask of shape ``(N,)``.
        seed: of the PCA.
    """
    unit = normalize(np.asarray(features, dtype=np.float32).reshape(len(features), -1))
    size = min(_COMPONENTS, int(train.sum()))
    if unit.shape[1] <= size:
        return unit
    return PCA(size, random_state=seed).fit(unit[train]).transform(unit).astype(np.float32)


def fit_clusters(
    features: np.ndarray, train: np.ndarray, k: int, seed: int = 0, n_init: int = 10, method: str = "kmeans"
) -> np.ndarray:
    """Clusters of every row, fitted on L2-normalised, PCA-reduced train rows.

    Args:
        features: shape ``(N, D)``.
        train: the rows to fit on, a mask of shape ``(N,)``.
        k: number of clusters.
        seed: of everything random.
        n_init: starts, of which the best is kept.
        method: a key of `METHODS`.

    Returns:
        The cluster of every row, ``0 .. k - 1``, shape ``(N,)``.

    Raises:
        ValueError: if there are fewer train rows than clusters, or no such method.

    Example:
        >>> two = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> a, b, c, d = fit_clusters(two, np.array([True, False, True, False]), k=2)
        >>> bool(a == b and c == d and a != c)
        True
    """
    if method not in METHODS:
        raise ValueError(f"there is no clustering {method!r}; choose one of {list(METHODS)}")
    if not 1 <= k <= train.sum():
        raise ValueError(f"{k} clusters cannot be fitted on {train.sum()} train rows")
    return METHODS[method](reduce_features(features, train, seed), train, k, seed, n_init)


def silhouette(reduced: np.ndarray, clusters: np.ndarray, rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """Silhouette (Rousseeuw 1987) of every chosen row, and their positions ``(M,)``; at most 2000, NaN for one cluster.

    Args:
        reduced: from `reduce_features`.
        clusters: shape ``(N,)``.
        rows: a mask of the rows to look at.
        seed: of their choice.
    """
    from sklearn.metrics import silhouette_samples

    chosen = _some(rows, _SILHOUETTE_ROWS, seed)
    if not 1 < len(np.unique(clusters[chosen])) < len(chosen):
        return np.array([chosen, np.full(len(chosen), np.nan)])
    return np.array([chosen, silhouette_samples(reduced[chosen], clusters[chosen])])


def choose_k(
    features: np.ndarray, train: np.ndarray, k: Sequence[int], method: str = "kmeans", seeds: int = 5
) -> tuple[int, pd.DataFrame]:
    """The number of clusters with the best silhouette, without labels; and the curve, with how stable each k is.

    Args:
        features: shape ``(N, D)``.
        train: the rows to fit on, a mask of shape ``(N,)``.
        k: candidates, at least 2 each.
        method: a key of `METHODS`.
        seeds: fits of every k.

    Returns:
        The chosen k, and one row a candidate: `k, silhouette, stability, chosen`. Stability is the mean adjusted Rand
        index between the clusters of two seeds on train rows: near 1, they are the same clusters every time.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> three = rng.normal(size=(90, 4)) / 9 + np.eye(4)[np.arange(90) % 3]
        >>> best, curve = choose_k(three, np.ones(90, dtype=bool), [2, 3, 4])
        >>> best, float(curve["stability"].round(2).max())
        (3, 1.0)
    """
    reduced = reduce_features(features, train)
    rows = []
    for count in sorted({count for count in k if 2 <= count < train.sum()}):
        found = [METHODS[method](reduced, train, count, seed, 3)[train] for seed in range(seeds)]
        pairs = [adjusted_rand_score(a, b) for i, a in enumerate(found) for b in found[i + 1 :]]
        near = _some(np.ones(int(train.sum()), dtype=bool), _SILHOUETTE_ROWS, 0)
        several = len(np.unique(found[0][near])) > 1
        score = float(silhouette_score(reduced[train][near], found[0][near])) if several else float("nan")
        rows.append({"k": count, "silhouette": score, "stability": float(np.mean(pairs)) if pairs else float("nan")})
    if not rows:
        raise ValueError(f"no k of {list(k)} lies from 2 to {int(train.sum()) - 1}, the train rows less one")
    table = pd.DataFrame(rows)
    best = int(table["k"].to_numpy()[table["silhouette"].fillna(-1).to_numpy().argmax()])
    return best, table.assign(chosen=table["k"] == best)


def _kmeans(reduced: np.ndarray, train: np.ndarray, k: int, seed: int, n_init: int) -> np.ndarray:
    return KMeans(k, n_init=n_init, random_state=seed).fit(reduced[train]).predict(reduced)


def _spherical(reduced: np.ndarray, train: np.ndarray, k: int, seed: int, n_init: int) -> np.ndarray:
    """Spherical k-means (Dhillon and Modha 2001): centers are directions, closeness is the cosine."""
    unit = normalize(reduced)
    fitted, best, kept = unit[train], -np.inf, None
    for start in range(n_init):
        centers = normalize(
            KMeans(k, n_init=1, max_iter=1, random_state=seed * 1000 + start).fit(fitted).cluster_centers_
        )
        for _ in range(100):
            mine = (fitted @ centers.T).argmax(axis=1)
            sums = np.zeros_like(centers)
            np.add.at(sums, mine, fitted)
            moved = np.where(np.linalg.norm(sums, axis=1, keepdims=True) > 1e-9, normalize(sums), centers)
            if np.allclose(moved, centers, atol=1e-6):
                break
            centers = moved
        score = float((fitted @ centers.T).max(axis=1).sum())
        if score > best:
            best, kept = score, centers
    assert kept is not None
    return (unit @ kept.T).argmax(axis=1)


def _mixture(reduced: np.ndarray, train: np.ndarray, k: int, seed: int, n_init: int) -> np.ndarray:
    """Gaussian mixture with diagonal covariances: full ones need more rows than a cluster has."""
    model = GaussianMixture(k, covariance_type="diag", n_init=min(n_init, 3), reg_covar=1e-4, random_state=seed)
    return model.fit(reduced[train].astype(np.float64)).predict(reduced.astype(np.float64))


def _agglomerative(reduced: np.ndarray, train: np.ndarray, k: int, seed: int, n_init: int) -> np.ndarray:
    """Ward's agglomeration of train rows; every other row joins the nearest mean."""
    some = _some(train, _AGGLOMERATED, seed)
    found = AgglomerativeClustering(k).fit_predict(reduced[some])
    centers = np.stack([reduced[some][found == cluster].mean(axis=0) for cluster in range(k)])
    clusters = (np.square(centers).sum(axis=1) - 2 * reduced @ centers.T).argmin(axis=1)
    clusters[some] = found
    return clusters


def _some(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    positions = np.flatnonzero(rows)
    return positions if len(positions) <= most else np.sort(np.random.default_rng(seed).permutation(positions)[:most])


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int, int, int], np.ndarray]] = {
    "kmeans": _kmeans,
    "spherical": _spherical,
    "mixture": _mixture,
    "agglomerative": _agglomerative,
    "spectral": spectral,
}
"""Names of clusterings; each takes reduced features, the train mask, k, a seed and a number of starts."""
