"""One contract for every way to cluster, the choice of their number, and what they follow."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, fisher_exact
from sklearn.metrics import adjusted_rand_score, silhouette_score

from monai_simclr.evaluation import align_clusters, choose_n_clusters, enrich, fit_clusters
from monai_simclr.evaluation.clusterers import METHODS, reduce_features

KIND = np.tile(np.arange(3), 60)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(180, 6)) / 6 + np.eye(6)[KIND]


TRAIN = np.arange(180) < 90


@pytest.mark.parametrize("method", METHODS)
def test_separate_groups_are_found_on_rows_that_were_not_fitted(method, features):
    clusters = fit_clusters(features, TRAIN, 3, method=method)
    assert adjusted_rand_score(KIND[~TRAIN], clusters[~TRAIN]) == 1
    assert set(clusters) <= {0, 1, 2}


@pytest.mark.parametrize("method", METHODS)
def test_the_clusters_of_other_rows_do_not_depend_on_test_rows(method, features):
    other = features.copy()
    other[150:] = np.random.default_rng(1).normal(size=(30, 6))
    first, second = (fit_clusters(values, TRAIN, 3, method=method) for values in (features, other))
    np.testing.assert_array_equal(first[:150], second[:150])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_clusters(method, features):
    first, second = (fit_clusters(features, TRAIN, 5, seed=3, method=method) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_spherical_clusters_see_directions_and_not_lengths():
    rng = np.random.default_rng(0)
    lengths = rng.uniform(0.5, 50, size=120)
    rays = np.eye(3)[np.arange(120) % 3] + rng.normal(size=(120, 3)) / 30
    clusters = fit_clusters(rays * lengths[:, None], np.ones(120, dtype=bool), 3, method="spherical")
    assert adjusted_rand_score(np.arange(120) % 3, clusters) == 1


def test_an_unknown_clustering_is_refused(features):
    with pytest.raises(ValueError, match=r"unknown clustering 'dbscan'; choose one of \['kmeans', 'spherical'"):
        fit_clusters(features, TRAIN, 3, method="dbscan")


def test_the_number_of_clusters_is_chosen_without_labels_with_its_curve(features):
    best, curve = choose_n_clusters(features, TRAIN, [2, 3, 4, 6])
    assert best == 3
    assert curve.loc[curve["chosen"], "n_clusters"].tolist() == [3]
    rows = curve.set_index("n_clusters")
    assert rows["stability"][3] > rows["stability"][6]
    clusters = fit_clusters(features, TRAIN, 3)
    expected = silhouette_score(reduce_features(features, TRAIN)[TRAIN], clusters[TRAIN])
    assert rows["silhouette"][3] == pytest.approx(expected, abs=1e-5)


def test_enrichment_is_fishers_test_over_patients_with_controlled_false_discoveries():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 2)
    clusters = rng.integers(3, size=60)[patients]
    index = pd.DataFrame(
        {
            "patient_id": patients,
            "Mass": (clusters == 1).astype(float),
            "Edema": rng.integers(2, size=60)[patients] * 1.0,
        }
    )
    table = enrich(clusters, index, ["Mass", "Edema"])
    first = table.iloc[0]
    assert (first["finding"], first["cluster"]) == ("Mass", 1)
    assert first["q"] < 1e-6
    np.testing.assert_allclose(table["q"], false_discovery_control(table["p"]))
    row = table[(table["finding"] == "Edema") & (table["cluster"] == 0)].iloc[0]
    a, n = row["positives"], row["patients"]
    total = round(row["overall"] * 60)
    expected = fisher_exact([[a, n - a], [total - a, 60 - n - (total - a)]], alternative="greater").pvalue
    assert row["p"] == pytest.approx(expected)


def test_clusters_that_follow_the_view_are_described_so_with_the_patient_in_the_table():
    view = np.tile(["PA", "AP"], 40)
    index = pd.DataFrame({"view_position": view, "patient_id": range(80), "Mass": np.repeat([0.0, 1.0], 40)})
    alignment = align_clusters((view == "AP").astype(int), index, ["Mass"])
    assert alignment.sentence.startswith("these clusters follow view_position, AMI 1.00, more than any finding")
    assert "patient" in set(alignment.table["kind"])


def test_clusters_that_follow_a_finding_are_described_so():
    mass = np.tile([0.0, 1.0], 30)
    index = pd.DataFrame({"Mass": mass, "sex": np.repeat(["M", "F"], 30)})
    assert align_clusters(mass.astype(int), index, ["Mass"]).sentence.startswith("these clusters follow Mass, AMI 1.00")
