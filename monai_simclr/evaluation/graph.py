"""The graph of nearest neighbours: clusters cut from it, and how well any clusters keep it whole, without labels."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors, kneighbors_graph

NEIGHBORS = 10
LANDMARKS = 5000
"""Train rows that are cut at most: the graph's eigenvectors are found for these, other rows join their neighbours."""


def neighbor_graph(features: np.ndarray, n_neighbors: int = NEIGHBORS) -> csr_matrix:
    """Symmetric graph of nearest neighbours: 1 where both are among the other's, 0.5 where one is, in one component.

    Components that are apart are joined by their nearest pair of rows, or eigenvectors would only tell them apart.

    Args:
        features: shape ``(N, D)``.
        n_neighbors: of each row; fewer where there are not as many.

    Returns:
        Sparse, shape ``(N, N)``, without a diagonal.

    Example:
        >>> neighbor_graph(np.array([[0.0], [1.0], [9.0]]), 1).toarray().tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.5, 0.0]]
    """
    graph = kneighbors_graph(features, min(n_neighbors, len(features) - 1), include_self=False)
    graph = csr_matrix(0.5 * (graph + graph.T))
    count, component = connected_components(graph, directed=False)
    while count > 1:
        here, there = np.flatnonzero(component == component[0]), np.flatnonzero(component != component[0])
        distance, place = NearestNeighbors(n_neighbors=1).fit(features[here]).kneighbors(features[there])
        row, column = there[distance[:, 0].argmin()], here[place[distance[:, 0].argmin(), 0]]
        link = csr_matrix(([0.5, 0.5], ([row, column], [column, row])), shape=graph.shape)
        graph = csr_matrix(graph + link)
        count, component = connected_components(graph, directed=False)
    return graph


def spectral(reduced: np.ndarray, train: np.ndarray, k: int, seed: int, n_init: int) -> np.ndarray:
    """Cut the graph of nearest neighbours of train rows (Shi and Malik 2000; von Luxburg 2007); others follow theirs.

    At most `LANDMARKS` train rows, drawn by the seed, are cut; every other row joins the cluster that most of its ten
    nearest landmarks belong to.

    Args:
        reduced: from `clusterers.reduce_features`, shape ``(N, d)``.
        train: the rows to fit on, a mask of shape ``(N,)``.
        k: number of clusters.
        seed: of the landmarks and of k-means on the eigenvectors.
        n_init: starts of k-means.

    Returns:
        The cluster of every row, shape ``(N,)``.
    """
    rows = np.flatnonzero(train)
    if len(rows) > LANDMARKS:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:LANDMARKS])
    if k == 1 or k >= len(rows) - 1:  # nothing to cut, or too few rows for so many eigenvectors
        found = np.zeros(len(rows), dtype=int) if k == 1 else np.arange(len(rows)) % k
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Graph is not fully connected")
            model = SpectralClustering(k, affinity="precomputed", random_state=seed, n_init=n_init)
            found = model.fit_predict(neighbor_graph(reduced[rows]))
    clusters = np.empty(len(reduced), dtype=int)
    clusters[rows] = found
    rest = np.setdiff1d(np.arange(len(reduced)), rows)
    if len(rest):
        clusters[rest] = (
            KNeighborsClassifier(min(NEIGHBORS, len(rows))).fit(reduced[rows], found).predict(reduced[rest])
        )
    return clusters


def modularity(graph: csr_matrix, clusters: np.ndarray) -> float:
    """Newman's modularity of clusters on a graph (Phys. Rev. E 69, 026113, 2004): 0 for clusters that ignore it.

    The share of the edges that lie inside clusters, less what it would be if edges joined rows at random by their
    degrees. It needs no labels and, unlike the silhouette, does not ask clusters to be round.

    Args:
        graph: symmetric, shape ``(N, N)``.
        clusters: shape ``(N,)``.

    Example:
        >>> graph = neighbor_graph(np.array([[0.0], [1.0], [2.0], [50.0], [51.0], [52.0]]), 2)
        >>> modularity(graph, np.array([0, 0, 0, 1, 1, 1])) > 0.3 > modularity(graph, np.array([0, 1, 0, 1, 0, 1]))
        True
    """
    degree = np.asarray(graph.sum(axis=1)).ravel()
    total = degree.sum()
    row, column = graph.nonzero()
    inside = np.asarray(graph[row, column]).ravel()[clusters[row] == clusters[column]].sum()
    return float(inside / total - np.square(np.bincount(clusters, weights=degree) / total).sum())
