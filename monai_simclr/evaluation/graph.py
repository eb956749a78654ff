"""The graph of nearest neighbours: spectral clustering, and modularity, which scores clusters without labels."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors, kneighbors_graph

from monai_simclr.evaluation.embeddings import sample_rows

NEIGHBORS = 10
LANDMARKS = 5000
"""Largest number of train rows that are cut by eigenvectors; other rows join their neighbours."""


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


def spectral(reduced: np.ndarray, train: np.ndarray, n_clusters: int, seed: int, n_init: int) -> np.ndarray:
    """Spectral clustering of the graph of nearest neighbours of train rows (Shi and Malik 2000; von Luxburg 2007).

    At most `LANDMARKS` train rows, drawn by the seed, are cut; every other row joins the cluster of most of its ten
    nearest landmarks. Arguments and result as for `clusterers.METHODS`.
    """
    rows = sample_rows(np.flatnonzero(train), LANDMARKS, seed)
    if n_clusters == 1 or n_clusters >= len(rows) - 1:  # nothing to cut, or too few rows for so many eigenvectors
        cut = np.arange(len(rows)) % n_clusters
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Graph is not fully connected")
            model = SpectralClustering(n_clusters, affinity="precomputed", random_state=seed, n_init=n_init)
            cut = model.fit_predict(neighbor_graph(reduced[rows]))
    clusters = np.empty(len(reduced), dtype=int)
    clusters[rows] = cut
    rest = np.setdiff1d(np.arange(len(reduced)), rows)
    if len(rest):
        nearest = KNeighborsClassifier(min(NEIGHBORS, len(rows))).fit(reduced[rows], cut)
        clusters[rest] = nearest.predict(reduced[rest])
    return clusters


def modularity(graph: csr_matrix, clusters: np.ndarray) -> float:
    """Newman's modularity of clusters on a graph (Phys. Rev. E 69, 026113, 2004): 0 for clusters that ignore it.

    The share of edges inside clusters minus the share if edges joined rows at random by their degrees. It needs no
    labels and, unlike the silhouette, does not favour round clusters.

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
