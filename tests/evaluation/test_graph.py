"""The graph of nearest neighbours: clusters that are not round, and modularity, which needs no labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.datasets import make_circles
from sklearn.metrics import adjusted_rand_score

from monai_simclr.evaluation import graph
from monai_simclr.evaluation.clusterers import METHODS
from monai_simclr.evaluation.graph import modularity, neighbor_graph, spectral

RINGS, RING = make_circles(400, factor=0.4, noise=0.03, random_state=0)
TRAIN = np.arange(400) % 2 == 0


def test_spectral_clusters_follow_shapes_that_k_means_cuts():
    clusters = spectral(RINGS, TRAIN, 2, 0, 5)
    assert adjusted_rand_score(RING, clusters) == 1
    assert adjusted_rand_score(RING, METHODS["kmeans"](RINGS, TRAIN, 2, 0, 5)) < 0.1


def test_rows_beyond_the_landmarks_join_their_neighbours(monkeypatch):
    monkeypatch.setattr(graph, "LANDMARKS", 300)
    rings, ring = make_circles(1200, factor=0.4, noise=0.03, random_state=0)
    assert adjusted_rand_score(ring, spectral(rings, np.arange(1200) % 2 == 0, 2, 0, 5)) > 0.97


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_any_number_of_clusters_of_few_rows_is_given(k):
    rows = np.random.default_rng(0).normal(size=(12, 2))
    clusters = spectral(rows, np.arange(12) < 6, k, 0, 2)
    assert clusters.shape == (12,)
    assert set(clusters[:6]) <= set(range(k))


def test_the_graph_is_symmetric_and_in_one_component():
    apart = np.concatenate([np.random.default_rng(i).normal(size=(30, 2)) + 100 * i for i in range(3)])
    joined = neighbor_graph(apart, 5)
    assert (joined != joined.T).nnz == 0
    assert connected_components(joined)[0] == 1
    assert joined.diagonal().sum() == 0


def test_modularity_is_networkxs():
    networkx = pytest.importorskip("networkx")
    rings = neighbor_graph(RINGS[TRAIN])
    clusters = np.random.default_rng(0).integers(0, 3, TRAIN.sum())
    for labels in (clusters, RING[TRAIN]):
        groups = [set(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)]
        expected = networkx.community.modularity(networkx.from_scipy_sparse_array(rings), groups)
        assert modularity(rings, labels) == pytest.approx(expected, abs=1e-12)
    assert modularity(rings, RING[TRAIN]) > 0.45 > 0.1 > modularity(rings, clusters)
