"""One contract for every way to cluster, the choice of their number, and what they follow."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, fisher_exact
from sklearn.cluster import AgglomerativeClustering
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from monai_simclr.evaluation import (
    Embeddings,
    align_clusters,
    choose_clusters,
    clusterers,
    enrich,
    fit_clusters,
    remove_directions,
    score_alignment,
)
from monai_simclr.evaluation.clusterers import METHODS, cuts, join_sides
from monai_simclr.evaluation.graph import spectral

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


@pytest.mark.parametrize("method", METHODS)
def test_a_fitted_row_keeps_its_cluster_whatever_it_is_predicted_with(method, features):
    model = METHODS[method](features[TRAIN], 0, 3)
    predict = model.fit(5)
    together, alone = predict(model.locate(features))[TRAIN], predict(model.locate(features[TRAIN]))
    np.testing.assert_array_equal(together, alone)
    if method in ("agglomerative", "spectral"):
        np.testing.assert_array_equal(alone, model.cut(5))


@pytest.mark.parametrize("method", METHODS)
def test_a_number_gets_the_same_clusters_whatever_was_asked_before(method, features):
    divide, other = cuts(method, features, features[::-1], n_init=3), cuts(method, features, features[::-1], n_init=3)
    earlier = [divide(count)[0] for count in (9, 2, 5)]
    clusters, predict = other(5)
    np.testing.assert_array_equal(clusters, earlier[-1])
    np.testing.assert_array_equal(clusters, predict(features))


def test_wards_clusters_and_the_votes_of_neighbors_are_scikit_learns(features):
    rows, count = features + np.random.default_rng(3).normal(size=features.shape) / 4, 7
    model = METHODS["agglomerative"](rows[TRAIN], 0, 1)
    assert adjusted_rand_score(AgglomerativeClustering(count).fit_predict(rows[TRAIN]), model.cut(count)) == 1
    vote = KNeighborsClassifier(10, weights="distance").fit(rows[TRAIN], model.cut(count))
    np.testing.assert_array_equal(model.fit(count)(model.locate(rows)), vote.predict(rows))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_clusters", [0, 91])
def test_more_clusters_than_rows_or_none_are_refused(method, n_clusters, features):
    with pytest.raises(ValueError, match=f"{n_clusters} clusters cannot be fitted on 90 train rows"):
        fit_clusters(features, TRAIN, n_clusters, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_clusters_that_are_mirror_images_become_one(method):
    """Two findings, each on two sides, and a third in the middle; mirrored, all have the heart on the other side."""
    rng = np.random.default_rng(0)
    kind = np.arange(300) % 5
    noise = rng.normal(size=(2, 300, 8)) / 8
    images = noise[0] + np.eye(8)[kind]
    copies = noise[1] + np.eye(8)[np.array([1, 0, 3, 2, 4])[kind]] + 0.3 * np.eye(8)[7]
    train = np.arange(300) < 200
    clusters = fit_clusters(images, train, 3, method=method, mirrored=copies)
    assert adjusted_rand_score(np.array([0, 0, 1, 1, 2])[kind[~train]], clusters[~train]) == 1
    assert adjusted_rand_score(kind, fit_clusters(images, train, 5, method=method)) == 1


def test_sides_that_do_not_fall_into_each_other_stay_apart():
    assert join_sides(np.array([0, 0, 1, 1, 2, 2]), np.array([1, 1, 2, 2, 2, 2]), 3).tolist() == [0, 1, 2]
    assert join_sides(np.array([0, 1]), np.array([1, 0]), 3).tolist() == [0, 0, 1], "an empty cluster stays alone"


@pytest.mark.parametrize("method", ["agglomerative", "spectral"])
def test_rows_beyond_the_landmarks_join_their_neighbours(method, features):
    kind, rows = np.tile(KIND, 5), np.tile(features, (5, 1)) + np.random.default_rng(1).normal(size=(900, 6)) / 20
    grow = {"agglomerative": clusterers._ward, "spectral": spectral}[method]
    model = clusterers._ByNeighbors(grow, 120, rows, 0)
    assert len(model.cut(3)) == 120
    assert adjusted_rand_score(kind, model.fit(3)(model.locate(rows))) == 1


def test_spherical_clusters_see_directions_and_not_lengths():
    rng = np.random.default_rng(0)
    lengths = rng.uniform(0.5, 50, size=120)
    rays = np.eye(3)[np.arange(120) % 3] + rng.normal(size=(120, 3)) / 30
    clusters = fit_clusters(rays * lengths[:, None], np.ones(120, dtype=bool), 3, method="spherical")
    assert adjusted_rand_score(np.arange(120) % 3, clusters) == 1


def test_an_unknown_clustering_is_refused(features):
    with pytest.raises(ValueError, match=r"unknown clustering 'dbscan'; choose one of \['kmeans', 'spherical'"):
        fit_clusters(features, TRAIN, 3, method="dbscan")


def test_method_and_number_are_chosen_without_labels_by_the_clusters_that_come_back():
    kind, train = np.tile(np.arange(3), 300), np.arange(900) < 600
    features = np.random.default_rng(0).normal(size=(900, 6)) / 6 + np.eye(6)[kind]
    method, best, curve = choose_clusters(features, train, np.arange(900) // 2, [2, 3, 4, 6], n_resamples=5)
    assert best == 3
    assert curve.loc[curve["chosen"], ["method", "n_clusters"]].to_numpy().tolist() == [[method, 3]]
    rows = curve.set_index(["method", "n_clusters"])["stability"]
    assert rows["kmeans", 3] > 0.99 > 0.75 > rows["kmeans", 6]
    assert set(curve["method"]) == {"kmeans", "agglomerative", "spectral"}


def test_rings_are_found_by_the_graph_and_k_means_is_not_chosen_for_them():
    rng = np.random.default_rng(0)
    kind, angle = np.arange(400) % 4, rng.uniform(0, np.pi, 400)
    arcs = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None] * np.eye(4)[kind][:, :, None]
    rows = arcs.reshape(400, 8) + rng.normal(size=(400, 8)) / 50
    method, best, _ = choose_clusters(
        rows, np.ones(400, dtype=bool), np.arange(400), [2, 3, 4, 5], ["kmeans", "spectral"]
    )
    assert (method, best) == ("spectral", 4)


def test_where_no_number_is_stable_the_most_stable_is_chosen():
    noise = np.random.default_rng(0).normal(size=(120, 10))
    _, best, curve = choose_clusters(noise, np.ones(120, dtype=bool), np.arange(120), [4, 8], ["kmeans"])
    assert curve["stability"].max() < 0.75
    assert best == curve.loc[curve["stability"].idxmax(), "n_clusters"]


def test_candidates_that_the_rows_do_not_allow_are_refused(features):
    with pytest.raises(ValueError, match=r"no number of clusters of \[1, 500\] is from 2 to"):
        choose_clusters(features, TRAIN, np.arange(180), [1, 500])


def test_what_was_removed_is_known_to_no_linear_rule_and_the_rest_stays():
    rng = np.random.default_rng(0)
    view, mass = rng.integers(2, size=(2, 400))
    features = rng.normal(size=(400, 10)) / 5 + 2 * np.eye(10)[0] * view[:, None] + np.eye(10)[1] * mass[:, None] + 3
    index = pd.DataFrame({"view_position": np.array(["PA", "AP"])[view]})
    train = np.arange(400) < 200
    [without] = remove_directions(index, train, ["view_position"], features)

    def accuracy(rows: np.ndarray, labels: np.ndarray) -> float:
        return LogisticRegression(max_iter=1000).fit(rows[train], labels[train]).score(rows[~train], labels[~train])

    assert accuracy(features, view) > 0.95
    assert accuracy(without, view) < 0.62
    assert accuracy(without, mass) > 0.95
    with pytest.raises(ValueError, match="no column 'scanner' to remove"):
        remove_directions(index, train, ["scanner"], features)


def test_clusters_follow_the_view_and_once_it_is_removed_the_finding():
    rng = np.random.default_rng(0)
    view, mass = np.repeat(rng.integers(2, size=(2, 150)), 2, axis=1)
    features = rng.normal(size=(300, 6)) / 8 + 3 * np.eye(6)[0] * view[:, None] + np.eye(6)[1] * mass[:, None] + 1
    index = pd.DataFrame(
        {
            "patient_id": np.arange(300) // 2,
            "split": np.where(np.arange(300) < 150, "train", "test"),
            "view_position": np.array(["PA", "AP"])[view],
            "source": "one",
            "Mass": mass * 1.0,
            "Edema": np.repeat(rng.integers(2, size=150), 2) * 1.0,
        }
    )
    noise = {"noise": rng.normal(size=(300, 6))}
    table = score_alignment(
        Embeddings(features, index), noise, ["Mass", "Edema"], 2, ["view_position", "source"], n_bootstrap=100
    ).set_index(["removed", "features", "what"])
    removed = "view_position, source"
    assert table.loc[("nothing", "encoder", "view_position"), "value"] > 0.95
    assert table.loc[(removed, "encoder", "view_position"), "value"] < 0.05
    found = table.loc[(removed, "encoder", "Mass")]
    assert found["low"] > 0.9 > 0.1 > found["null_high"]
    assert table.loc[(removed, "noise", "Mass"), "lead_low"] > 0.8
    nothing = table.loc[(removed, "encoder", "Edema")]
    assert nothing["null_low"] <= nothing["value"] <= nothing["null_high"]
    assert "source" not in set(table.index.get_level_values("what")), "a single value has no AMI"
    test = (index["split"] == "test").to_numpy()
    clusters = fit_clusters(features, ~test, 2)[test]
    expected = adjusted_mutual_info_score(index["Mass"][test], clusters)
    assert table.loc[("nothing", "encoder", "Mass"), "value"] == pytest.approx(expected, abs=1e-9)
    mean = table.loc[(removed, "encoder", "mean of the findings"), "value"]
    assert mean == pytest.approx((found["value"] + nothing["value"]) / 2)


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


def test_random_clusters_follow_nothing_however_few_the_images():
    said, images = 0, 100
    for seed in range(20):
        rng = np.random.default_rng(seed)
        findings = {f"finding {k}": (rng.random(images) < 0.2).astype(float) for k in range(3)}
        about = {"view_position": rng.choice(["PA", "AP"], images), "age": rng.uniform(20, 80, images)}
        index = pd.DataFrame({"patient_id": np.arange(images) // 2, **about, **findings})
        said += "follow nothing" not in align_clusters(rng.integers(6, size=images), index, list(findings)).sentence
    assert said <= 8  # five facts at 2.5 % each: 2.5 of 20 expected; the fixed limit alone said 14 to 19


def test_ages_are_removed_in_decades_and_a_column_of_many_values_is_refused():
    rng = np.random.default_rng(0)
    features, train = rng.normal(size=(200, 40)), np.arange(200) < 150
    index = pd.DataFrame({"age": rng.uniform(20, 90, 200), "scanner": [f"s{i // 2}" for i in range(200)]})
    [without] = remove_directions(index, train, ["age"], features)
    [same] = remove_directions(index, train, ["age_decade"], features)
    np.testing.assert_array_equal(without, same)
    assert without.var() > 0.5 * normalize(features).var()
    with pytest.raises(ValueError, match=r"scanner has 75 values on 150 train rows: .* would remove everything"):
        remove_directions(index, train, ["scanner"], features)
