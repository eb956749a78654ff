"""The graph of nearest neighbours: clusters that are not round."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import SpectralClustering
from sklearn.datasets import make_circles
from sklearn.metrics import adjusted_rand_score

from monai_simclr.evaluation import fit_clusters
from monai_simclr.evaluation.clusterers import METHODS
from monai_simclr.evaluation.graph import neighbor_graph, spectral

RINGS, RING = make_circles(400, factor=0.4, noise=0.03, random_state=0)


def test_spectral_clusters_follow_shapes_that_k_means_cuts():
    assert adjusted_rand_score(RING, spectral(RINGS)(2)) == 1
    assert adjusted_rand_score(RING, METHODS["kmeans"](RINGS, 0, 5).fit(2)(RINGS)) < 0.1


@pytest.mark.parametrize("k", [3, 6, 10])
def test_the_cut_is_scikit_learns(k):
    rows = np.random.default_rng(0).normal(size=(200, 6)) / 6 + np.eye(6)[np.arange(200) % 6]
    reference = SpectralClustering(k, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
    assert adjusted_rand_score(reference.fit_predict(neighbor_graph(rows)), spectral(rows)(k)) > 0.99


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_any_number_of_clusters_of_few_rows_is_given(k):
    rows = np.random.default_rng(0).normal(size=(12, 2))
    clusters = fit_clusters(rows, np.arange(12) < 6, k, method="spectral")
    assert clusters.shape == (12,)
    assert set(clusters) <= set(range(k))


def test_the_graph_is_symmetric_and_in_one_component():
    apart = np.concatenate([np.random.default_rng(i).normal(size=(30, 2)) + 100 * i for i in range(3)])
    joined = neighbor_graph(apart, 5)
    assert (joined != joined.T).nnz == 0
    assert connected_components(joined)[0] == 1
    assert joined.diagonal().sum() == 0
