"""Clustering methods, fitted on train rows and applied to others; method and number chosen without labels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
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
    """Rows ``(N, D)`` that can be divided into any number of clusters; what any number needs is computed once."""

    def locate(self, rows: np.ndarray) -> Any:
        """Where any rows lie among those: what `fit` needs to know of them."""
        ...

    def fit(self, n_clusters: int) -> Callable[[Any], np.ndarray]:
        """Divide the rows; what it returns gives located rows their clusters, ``0 .. n_clusters - 1``."""
        ...


class _ByCenters:
    """A method of scikit-learn, or one like it, that predicts by what it has found: rows are where they are."""

    def __init__(self, make: Callable[[int, int, int], Any], rows: np.ndarray, seed: int, n_init: int) -> None:
        self.make, self.rows, self.seed, self.n_init = make, rows, seed, n_init

    def locate(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def fit(self, n_clusters: int) -> Callable[[np.ndarray], np.ndarray]:
        predict: Callable[[np.ndarray], np.ndarray] = (
            self.make(n_clusters, self.seed, self.n_init).fit(self.rows).predict
        )
        return predict


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

    def __init__(
        self, grow: Callable[[np.ndarray], Callable[[int], np.ndarray]], limit: int, rows: np.ndarray, seed: int
    ) -> None:
        landmarks = rows[sample_rows(np.arange(len(rows)), limit, seed)]
        self.cut = grow(landmarks)
        self._near = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(landmarks))).fit(landmarks)

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest landmarks of every row, and how much each of them counts."""
        distances, places = self._near.kneighbors(rows)
        same = distances == 0
        with np.errstate(divide="ignore"):
            return places, np.where(same.any(axis=1, keepdims=True), same, 1 / distances)

    def fit(self, n_clusters: int) -> Callable[[tuple[np.ndarray, np.ndarray]], np.ndarray]:
        clusters = self.cut(n_clusters)

        def vote(located: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
            places, weights = located
            rows = np.arange(len(places))[:, None] * n_clusters
            votes = np.bincount((rows + clusters[places]).ravel(), weights.ravel(), len(places) * n_clusters)
            winners: np.ndarray = votes.reshape(-1, n_clusters).argmax(axis=1)
            return winners

        return vote


def _ward(rows: np.ndarray) -> Callable[[int], np.ndarray]:
    """Ward's tree (1963), and the clusters that its first merges leave; one row is a tree of itself."""
    n = len(rows)
    children = hierarchy.ward(rows)[:, :2].astype(int) if n > 1 else np.zeros((0, 2), int)

    def cut(n_clusters: int) -> np.ndarray:
        merged = children[: n - n_clusters]
        parents = np.repeat(np.arange(n, n + len(merged)), 2)
        edges = (np.ones(parents.size), (merged.ravel(), parents))
        clusters: np.ndarray = connected_components(coo_array(edges, (2 * n, 2 * n)), directed=False)[1][:n]
        return np.unique(clusters, return_inverse=True)[1]

    return cut


def _mixture(n_clusters: int, seed: int, n_init: int) -> GaussianMixture:
    """Diagonal covariances: full ones need more rows than a cluster has."""
    settings = {"covariance_type": "diag", "n_init": min(n_init, 3), "reg_covar": 1e-4}
    return GaussianMixture(n_clusters, random_state=seed, **settings)


def _kmeans(n_clusters: int, seed: int, n_init: int) -> KMeans:
    return KMeans(n_clusters, n_init=n_init, random_state=seed)


METHODS: dict[str, Callable[[np.ndarray, int, int], Clusterer]] = {
    "kmeans": functools.partial(_ByCenters, _kmeans),
    "spherical": functools.partial(_ByCenters, _Spherical),
    "mixture": functools.partial(_ByCenters, _mixture),
    "agglomerative": lambda rows, seed, _: _ByNeighbors(_ward, 2000, rows, seed),
    "spectral": lambda rows, seed, _: _ByNeighbors(spectral, 20_000, rows, seed),
}
"""Names of clusterings; each takes rows, a seed and a number of starts."""


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


def cuts(
    method: str, rows: np.ndarray, mirrored: np.ndarray | None = None, seed: int = 0, n_init: int = 10
) -> Callable[[int], tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]]:
    """Divide reduced rows ``(N, d)`` into any numbers of clusters, one after the other.

    With mirrored copies ``(N, d)`` of the rows, clusters that are each other's mirror image become one (`join_sides`),
    and the number of clusters is the largest one after that: of up to twice as many, before they are joined.

    Returns:
        What makes, of a number, the clusters of these rows, shape ``(N,)``, and what gives any such rows theirs.

    Example:
        >>> rows = np.array([[0.0], [0.1], [5.0], [5.1], [9.0]])
        >>> divide = cuts("agglomerative", rows)
        >>> [len(set(divide(n)[0].tolist())) for n in (2, 3)], divide(2)[1](np.array([[0.2], [8.0]])).tolist()
        ([2, 3], [0, 1])
    """
    clusterer = METHODS[method](rows, seed, n_init)
    located = clusterer.locate(rows)
    copies = None if mirrored is None else clusterer.locate(mirrored)
    fit = functools.cache(clusterer.fit)

    def cut(n_clusters: int) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        count = n_clusters if mirrored is None else min(2 * n_clusters, len(rows))
        joined = np.arange(count)
        if copies is not None:
            while (joined := join_sides(fit(count)(located), fit(count)(copies), count)).max() >= n_clusters:
                count = max(n_clusters, count - int(joined.max()) - 1 + n_clusters)
        predict = fit(count)
        return joined[predict(located)], lambda others: joined[predict(clusterer.locate(others))]

    return cut


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
    divide = cuts(method, rows[train], None if copies is None else copies[train], seed, n_init)
    return divide(n_clusters)[1](rows)


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

    def divide(method: str, keep: np.ndarray, start: int) -> Callable[[int], np.ndarray]:
        cut = cuts(method, rows[keep], None if flipped is None else flipped[keep], start, 3)
        return lambda count: cut(count)[0]

    table = []
    largest = min(int(keep.sum()) for keep in kept) - 1
    for method in methods:
        all_rows = divide(method, np.ones(len(rows), dtype=bool), seed)
        parts = [divide(method, keep, seed + 1 + i) for i, keep in enumerate(kept)]
        for count in sorted({count for count in candidates if 2 <= count <= largest}):
            whole = all_rows(count)
            halves = [(whole[keep], part(count)) for keep, part in zip(kept, parts, strict=True)]
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
