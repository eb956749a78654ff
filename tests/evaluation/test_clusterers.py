"""One contract for every way to cluster, and what is said of the clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, fisher_exact
from sklearn.metrics import adjusted_rand_score, silhouette_score, v_measure_score

from monai_simclr.evaluation import Embeddings, align_clusters, choose_k, enrich, evaluate_clusters, fit_clusters
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
def test_test_rows_change_nothing_for_others(method, features):
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
    with pytest.raises(ValueError, match=r"no clustering 'dbscan'; choose one of \['kmeans', 'spherical'"):
        fit_clusters(features, TRAIN, 3, method="dbscan")


def test_k_is_chosen_without_labels_and_the_curve_is_shown(features):
    best, curve = choose_k(features, TRAIN, [2, 3, 4, 6])
    assert best == 3
    assert curve.loc[curve["chosen"], "k"].tolist() == [3]
    rows = curve.set_index("k")
    assert rows["stability"][3] > rows["stability"][6]
    clusters = fit_clusters(features, TRAIN, 3)
    expected = silhouette_score(reduce_features(features, TRAIN)[TRAIN], clusters[TRAIN])
    assert rows["silhouette"][3] == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def report(features):
    index = pd.DataFrame({"patient_id": [f"p{i // 2}" for i in range(180)], "split": np.where(TRAIN, "train", "test")})
    noisy = np.where(np.random.default_rng(5).random(180) < 0.3, "other", np.array(["a", "b", "c"])[KIND])
    return evaluate_clusters(Embeddings(features, index), {}, noisy, [4], 0, 100, 60, n_seeds=3), noisy


def test_every_measure_has_an_interval_a_null_and_a_p_value(report):
    table = report[0].table.set_index("measure")
    for measure in ("acc_one_to_one", "balanced_acc", "ami", "nmi", "ari", "v_measure", "silhouette", "oracle_map_acc"):
        row = table.loc[measure]
        assert row["low"] <= row["value"] <= row["high"], measure
        assert row["null_low"] <= row["null_high"] < row["value"], measure
        assert row["p"] <= 1 / 20, measure
    assert np.isfinite(table.loc["ami", "seed_sd"])


def test_v_measure_is_that_of_scikit_learn_and_the_oracle_map_is_never_worse(report):
    found, classes = report
    table = found.table.set_index("measure")["value"]
    assert table["v_measure"] == pytest.approx(v_measure_score(classes[~TRAIN], found.clusters[4][~TRAIN]), abs=1e-9)
    assert table["oracle_map_acc"] >= table["acc_one_to_one"]


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


def test_clusters_that_follow_the_view_say_so_and_the_patient_is_in_the_table():
    view = np.tile(["PA", "AP"], 40)
    index = pd.DataFrame({"view_position": view, "patient_id": range(80), "Mass": np.repeat([0.0, 1.0], 40)})
    found = align_clusters((view == "AP").astype(int), index, ["Mass"])
    assert found.sentence.startswith("these clusters follow view_position, AMI 1.00, more than any finding")
    assert "patient" in set(found.table["kind"])
