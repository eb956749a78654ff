"""Spectral clustering on the graph of nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import qr, svd
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

NEIGHBORS = 10


def neighbor_graph(features: np.ndarray, n_neighbors: int = NEIGHBORS) -> csr_matrix:
    """Symmetric graph of nearest neighbours: 1 where both are among the other's, 0.5 where one is, in one component.

    Components are joined by their nearest pair of rows, or eigenvectors would only separate the components.

    Args:
        features: shape ``(N, D)``.
        n_neighbors: of each row, at most.

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


def spectral(rows: np.ndarray) -> Callable[[int], np.ndarray]:
    """Normalised cut of the graph of nearest neighbours (Shi and Malik 2000; von Luxburg 2007), without chance.

    The rows' places in the first eigenvectors are turned towards the axes by a pivoted QR decomposition (Damle, Minden
    and Ying 2019), where k-means would depend on its starts.

    Args:
        rows: shape ``(N, D)``.

    Returns:
        What gives, for a number of clusters of at most N, the cluster of every row, shape ``(N,)``.
    """
    if len(rows) < 4:  # too few for a graph and its eigenvectors
        return lambda n_clusters: np.arange(len(rows)) % n_clusters
    graph = neighbor_graph(rows)
    scale = 1 / np.sqrt(np.asarray(graph.sum(axis=1)))
    scaled = graph.multiply(scale).multiply(scale.T).tocsr()

    def cut(n_clusters: int) -> np.ndarray:
        if n_clusters == 1 or n_clusters >= len(rows) - 1:  # nothing to cut, or too few rows for so many eigenvectors
            return np.arange(len(rows)) % n_clusters
        start = np.random.default_rng(0).normal(size=len(rows))
        vectors = eigsh(scaled, n_clusters, which="LA", v0=start)[1] * scale
        pivots = qr(vectors.T, pivoting=True)[2][:n_clusters]
        left, _, right = svd(vectors[pivots].T)
        clusters: np.ndarray = np.abs(vectors @ (left @ right)).argmax(axis=1)
        return clusters

    return cut
