"""Clustering methods, fitted on train rows and applied to others; method and number chosen without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from monai_simclr.evaluation.embeddings import sample_rows
from monai_simclr.evaluation.graph import NEIGHBORS, spectral

AUTO = "auto"
"""The method that `choose_clusters` chooses."""
COMPARED = ("kmeans", "agglomerative", "spectral")
"""The methods that are compared for it."""
STABLE = 0.75
"""A cluster with a lower Jaccard coefficient under resampling is not taken for one (Hennig 2007)."""
_COMPONENTS = 50
_CHOICE_ROWS = 1000
"""Largest number of train rows that method and number are chosen on."""


class Clusterer(Protocol):
    """Clusters as scikit-learn's estimators make them: fitted on rows ``(N, D)``, then given to any rows."""

    def fit(self, rows: np.ndarray) -> Clusterer:
        """Find the clusters of rows."""
        ...

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The cluster of every row, ``0 .. n_clusters - 1``."""
        ...


class _Spherical:
    """Spherical k-means (Dhillon and Modha 2001): centers are directions, closeness is the cosine."""

    def __init__(self, n_clusters: int, seed: int, n_init: int) -> None:
        self.n_clusters, self.seed, self.n_init = n_clusters, seed, n_init

    def fit(self, rows: np.ndarray) -> _Spherical:
        unit, best = normalize(rows), -np.inf
        for start in range(self.n_init):
            first = KMeans(self.n_clusters, n_init=1, max_iter=1, random_state=self.seed * 1000 + start).fit(unit)
            centers = normalize(first.cluster_centers_)
            for _ in range(100):
                sums = np.zeros_like(centers)
                np.add.at(sums, (unit @ centers.T).argmax(axis=1), unit)
                moved = np.where(np.linalg.norm(sums, axis=1, keepdims=True) > 1e-9, normalize(sums), centers)
                if np.allclose(moved, centers, atol=1e-6):
                    break
                centers = moved
            if (score := float((unit @ centers.T).max(axis=1).sum())) > best:
                best, self._centers = score, centers
        return self

    def predict(self, rows: np.ndarray) -> np.ndarray:
        clusters: np.ndarray = (normalize(rows) @ self._centers.T).argmax(axis=1)
        return clusters


class _ByNeighbors:
    """A method that only cuts the rows it is given: any other row gets the cluster of most of its ten nearest.

    Neighbours count by their nearness, so that a fitted row keeps its own cluster. Of more than `limit` rows, that many
    drawn by the seed are cut.
    """

    def __init__(self, cut: Callable[[np.ndarray, int], np.ndarray], limit: int, n_clusters: int, seed: int) -> None:
        self.cut, self.limit, self.n_clusters, self.seed = cut, limit, n_clusters, seed

    def fit(self, rows: np.ndarray) -> _ByNeighbors:
        landmarks = rows[sample_rows(np.arange(len(rows)), self.limit, self.seed)]
        vote = KNeighborsClassifier(min(NEIGHBORS, len(landmarks)), weights="distance")
        self._vote = vote.fit(landmarks, self.cut(landmarks, self.n_clusters))
        return self

    def predict(self, rows: np.ndarray) -> np.ndarray:
        clusters: np.ndarray = self._vote.predict(rows)
        return clusters


def _ward(rows: np.ndarray, n_clusters: int) -> np.ndarray:
    clusters: np.ndarray = AgglomerativeClustering(n_clusters).fit_predict(rows)
    return clusters


METHODS: dict[str, Callable[[int, int, int], Clusterer]] = {
    "kmeans": lambda n_clusters, seed, n_init: KMeans(n_clusters, n_init=n_init, random_state=seed),
    "spherical": _Spherical,
    # diagonal covariances: full ones need more rows than a cluster has
    "mixture": lambda n_clusters, seed, n_init: GaussianMixture(
        n_clusters, covariance_type="diag", n_init=min(n_init, 3), reg_covar=1e-4, random_state=seed
    ),
    "agglomerative": lambda n_clusters, seed, _: _ByNeighbors(_ward, 2000, n_clusters, seed),
    "spectral": lambda n_clusters, seed, _: _ByNeighbors(spectral, 20_000, n_clusters, seed),
}
"""Names of clusterings; each takes a number of clusters, a seed and a number of starts."""


def reduce_features(features: np.ndarray, train: np.ndarray, seed: int = 0) -> np.ndarray:
    """L2-normalised features ``(N, D)`` on at most 50 principal components of train rows, float64 ``(N, d)``."""
    unit = normalize(np.asarray(features, dtype=np.float32).reshape(len(features), -1))
    size = min(_COMPONENTS, int(train.sum()))
    if unit.shape[1] > size:
        unit = PCA(size, random_state=seed).fit(unit[train]).transform(unit)
    return np.asarray(unit, dtype=np.float64)


def reduce_both(
    features: np.ndarray, mirrored: np.ndarray | None, train: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """`reduce_features` of images and of their mirrored copies, which are moved to the images' mean.

    A mirrored chest has its heart on the other side, whatever else it shows: that part is the same for all.
    """
    if mirrored is None:
        return reduce_features(features, train, seed), None
    both = reduce_features(np.concatenate([features, mirrored]), np.r_[train, np.zeros(len(train), dtype=bool)], seed)
    images, copies = both[: len(train)], both[len(train) :]
    return images, copies + (images[train] - copies[train]).mean(axis=0)


def fit_rows(
    method: str,
    n_clusters: int,
    rows: np.ndarray,
    mirrored: np.ndarray | None = None,
    seed: int = 0,
    n_init: int = 10,
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit reduced rows ``(N, d)``; what it returns gives any such rows their clusters.

    With mirrored copies ``(N, d)`` of the rows, clusters that are each other's mirror image become one (`join_sides`),
    and `n_clusters` is the largest number after that: of up to twice as many clusters, before they are joined.
    """
    count = n_clusters if mirrored is None else min(2 * n_clusters, len(rows))
    while True:
        model = METHODS[method](count, seed, n_init).fit(rows)
        if mirrored is None:
            return model.predict
        joined = join_sides(model.predict(rows), model.predict(mirrored), count)
        excess = int(joined.max()) + 1 - n_clusters
        if excess <= 0:
            return lambda others: joined[model.predict(others)]
        count = max(n_clusters, count - excess)


def join_sides(clusters: np.ndarray, mirrored: np.ndarray, n_clusters: int) -> np.ndarray:
    """Join each two clusters into which most mirrored images of the other fall: a finding on the left and on the right.

    Labels know no side, and nothing else tells without labels that both sides are one finding.

    Args:
        clusters: of N images, shape ``(N,)``.
        mirrored: the clusters that the mirrored copies of the same images fall into.
        n_clusters: number of clusters.

    Returns:
        The new cluster of every cluster, shape ``(n_clusters,)``, numbered from 0.

    Example:
        >>> join_sides(np.array([0, 0, 1, 1, 2, 2]), np.array([1, 1, 0, 0, 2, 1]), 3).tolist()
        [0, 0, 1]
    """
    falls = np.bincount(clusters * n_clusters + mirrored, minlength=n_clusters**2).reshape(n_clusters, n_clusters)
    to, own = falls.argmax(axis=1), np.arange(n_clusters)
    pair = np.where((to[to] == own) & (falls[own, to] > 0), np.minimum(own, to), own)
    joined: np.ndarray = np.unique(pair, return_inverse=True)[1]
    return joined


def fit_clusters(
    features: np.ndarray,
    train: np.ndarray,
    n_clusters: int,
    seed: int = 0,
    n_init: int = 10,
    method: str = "kmeans",
    mirrored: np.ndarray | None = None,
) -> np.ndarray:
    """Clusters of every row, fitted on L2-normalised, PCA-reduced train rows.

    Args:
        features: shape ``(N, D)``.
        train: the rows to fit on, a mask of shape ``(N,)``.
        n_clusters: number of clusters; with `mirrored`, the largest number.
        seed: of everything random.
        n_init: starts, of which the best is kept.
        method: a key of `METHODS`.
        mirrored: features of the mirrored images, ``(N, D)``: clusters that are each other's mirror image become one.

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
    check_method(method, n_clusters, int(train.sum()))
    rows, copies = reduce_both(features, mirrored, train, seed)
    return fit_rows(method, n_clusters, rows[train], None if copies is None else copies[train], seed, n_init)(rows)


def check_method(method: str, n_clusters: int, n_rows: int) -> None:
    """`ValueError` if there is no such method, or there are fewer rows than clusters."""
    if method not in METHODS:
        raise ValueError(f"unknown clustering {method!r}; choose one of {list(METHODS)}")
    if not 1 <= n_clusters <= n_rows:
        raise ValueError(f"{n_clusters} clusters cannot be fitted on {n_rows} train rows")


def choose_clusters(
    features: np.ndarray,
    train: np.ndarray,
    patients: np.ndarray,
    candidates: Sequence[int],
    methods: Sequence[str] = COMPARED,
    mirrored: np.ndarray | None = None,
    n_resamples: int = 10,
    seed: int = 0,
) -> tuple[str, int, pd.DataFrame]:
    """The method that finds most clusters that come back, and their number, without labels.

    A fifth of the train patients is left out, the others are clustered anew, and each cluster of all patients is
    compared with the one most like it by the Jaccard coefficient of their shared rows (Hennig, Computational Statistics
    & Data Analysis 2007). A number of clusters is stable where every cluster's mean over the resamples is at least
    0.75; chosen is the largest stable number, of equal ones the method with the more stable clusters. Where none is
    stable, the most stable is chosen. With fewer than some hundred rows too large a number may be stable by chance: the
    rows that two resamples share have the same noise.

    Args:
        features: shape ``(N, D)``; at most 1000 train rows are used.
        train: the rows to fit on, a mask of shape ``(N,)``.
        patients: of every row, shape ``(N,)``.
        candidates: numbers of clusters, at least 2 each.
        methods: keys of `METHODS`.
        mirrored: as for `fit_clusters`.
        n_resamples: times that a fifth of the patients is left out.
        seed: of everything random.

    Returns:
        The method, the number, and one row per candidate: `method, n_clusters, found, stability, mean_stability,
        chosen`. `found` is the number of clusters there are, which may be lower with `mirrored`; `stability` is that
        of the least stable cluster.

    Raises:
        ValueError: if no candidate is from 2 to the number of train rows minus one.

    Example:
        >>> three = np.random.default_rng(0).normal(size=(90, 4)) / 9 + np.eye(4)[np.arange(90) % 3]
        >>> method, best, curve = choose_clusters(three, np.ones(90, dtype=bool), np.arange(90), [2, 3, 4], ["kmeans"])
        >>> best, float(curve["stability"].round(2).max())
        (3, 1.0)
    """
    reduced, copies = reduce_both(features, mirrored, train, seed)
    sample = sample_rows(np.flatnonzero(train), _CHOICE_ROWS, seed)
    names, codes = np.unique(np.asarray(patients).astype(str)[sample], return_inverse=True)
    generator = np.random.default_rng(seed)
    kept = [generator.permutation(len(names))[codes] >= len(names) / 5 for _ in range(n_resamples)]
    rows, flipped = reduced[sample], None if copies is None else copies[sample]

    def cluster(method: str, count: int, keep: np.ndarray, start: int) -> np.ndarray:
        part = rows[keep]
        return fit_rows(method, count, part, None if flipped is None else flipped[keep], start, 3)(part)

    table = []
    largest = min(int(keep.sum()) for keep in kept) - 1
    for method in methods:
        for count in sorted({count for count in candidates if 2 <= count <= largest}):
            whole = cluster(method, count, np.ones(len(rows), dtype=bool), seed)
            halves = [(whole[keep], cluster(method, count, keep, seed + 1 + i)) for i, keep in enumerate(kept)]
            again = [_recovered(first, second, int(whole.max()) + 1) for first, second in halves]
            each = np.nanmean(again, axis=0)
            found = {"found": len(np.unique(whole)), "stability": np.nanmin(each), "mean_stability": np.nanmean(each)}
            table.append({"method": method, "n_clusters": count, **found})
    if not table:
        raise ValueError(f"no number of clusters of {list(candidates)} is from 2 to {largest}, as the train rows allow")
    curve = pd.DataFrame(table)
    least, mean = (curve[name].to_numpy(dtype=float) for name in ("stability", "mean_stability"))
    stable = np.where(least >= STABLE, curve["found"].to_numpy(), 0)
    best = int(np.lexsort((mean, np.where(stable > 0, 0, least), stable))[-1])
    curve["chosen"] = np.arange(len(curve)) == best
    return str(curve["method"][best]), int(curve["n_clusters"][best]), curve


def _recovered(clusters: np.ndarray, others: np.ndarray, n_clusters: int) -> np.ndarray:
    """For every cluster, the Jaccard coefficient of the other cluster most like it; NaN if it is empty here."""
    width = int(others.max()) + 1
    both = np.bincount(clusters * width + others, minlength=n_clusters * width).reshape(n_clusters, width)
    both = both[:, both.any(axis=0)]
    sizes = both.sum(axis=1, keepdims=True)
    best = (both / (sizes + both.sum(axis=0) - both)).max(axis=1)
    return np.where(sizes[:, 0] > 0, best, np.nan)
