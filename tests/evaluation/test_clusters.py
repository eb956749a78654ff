"""Clusters scored against classes: measures, nulls, baselines, and who is fitted, mapped and scored."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from monai_simclr.evaluation import Embeddings, evaluate_clusters, format_score
from monai_simclr.evaluation.clusters import agreement, contingency, many_to_one, one_to_one


def _index(n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"patient_id": [f"p{i // 2}" for i in range(n)], "split": ["train"] * (n // 2) + ["test"] * (n // 2)}
    )


def test_agreement_equals_scikit_learn():
    rng = np.random.default_rng(0)
    clusters, classes = rng.integers(4, size=300), rng.integers(3, size=300)
    clusters[:150] = classes[:150]
    table = contingency(clusters, classes, (4, 3))
    many = many_to_one(table)
    measured = agreement(table, None, many)
    expected = [
        metrics.accuracy_score(classes, many[clusters]),
        metrics.balanced_accuracy_score(classes, many[clusters]),
        metrics.adjusted_mutual_info_score(classes, clusters),
        metrics.normalized_mutual_info_score(classes, clusters),
        metrics.adjusted_rand_score(classes, clusters),
        metrics.v_measure_score(classes, clusters),
    ]
    np.testing.assert_allclose(measured[1:-1], expected, atol=1e-10)
    assert measured[-1] == max(np.trace(table[list(order)]) for order in itertools.permutations(range(4), 3)) / 300
    assert np.isnan(measured[0])


def test_the_hungarian_map_gives_up_one_cluster_to_gain_more():
    assert one_to_one(np.array([[10, 9, 0], [9, 1, 0], [0, 0, 5]])).tolist() == [1, 0, 2]


def test_noise_is_in_the_permutation_null_and_a_map_fitted_on_test_would_look_better():
    rng = np.random.default_rng(0)
    n, gain = 240, []
    inside = 0
    for seed in range(8):
        classes = np.repeat(rng.choice(["a", "b", "c", "d"], size=n // 2), 2)
        embeddings = Embeddings(rng.normal(size=(n, 8)), _index(n))
        report = evaluate_clusters(embeddings, {}, classes, [4], seed=seed, n_bootstrap=20, n_permutations=60)
        row = report.table[report.table["measure"] == "acc_one_to_one"].iloc[0]
        inside += row["null_low"] <= row["value"] <= row["null_high"]
        test = np.arange(n) >= n // 2
        cross = pd.crosstab(report.clusters[4][test], classes[test]).reindex(range(4), fill_value=0).to_numpy()
        gain.append(cross[np.arange(4), one_to_one(cross)].sum() / cross.sum() - row["value"])
    assert inside >= 6
    assert min(gain) >= 0
    assert np.mean(gain) > 0.04


def test_separate_classes_are_found_and_rows_without_a_class_are_counted():
    rng = np.random.default_rng(1)
    kind = np.tile(np.arange(3), 40)
    classes = np.array(["a", "b", "c"])[kind].astype(object)
    classes[:6] = ""
    features = rng.normal(size=(120, 5)) / 5 + np.eye(5)[kind]
    report = evaluate_clusters(
        Embeddings(features, _index(120)), {"noise": rng.normal(size=(120, 5))}, classes, [3], 0, 30, 30
    )
    best = report.table.set_index(["features", "measure"])["value"]
    assert best["encoder", "acc_one_to_one"] == 1
    assert best["noise", "acc_one_to_one"] < 0.6
    assert report.n["excluded"] == 6
    assert report.n["test_images"] == 60


def test_clusters_are_fitted_on_train_images_without_a_class_too():
    """Three kinds of images, of which only two are labelled: three clusters must find all three."""
    rng = np.random.default_rng(2)
    kind = np.tile(np.arange(3), 80)
    features = rng.normal(size=(240, 5)) / 5 + 3 * np.eye(5)[kind]
    classes = np.array(["a", "b", ""])[kind]
    report = evaluate_clusters(Embeddings(features, _index(240)), {}, classes, [3], 0, 20, 20)
    assert metrics.adjusted_rand_score(kind, report.clusters[3]) == 1
    assert (report.n["fitted_images"], report.n["train_images"], report.n["excluded"]) == (120, 80, 80)
    assert report.n["fitted_patients"] == 60


def test_a_patient_without_a_class_in_train_and_with_one_in_test_is_refused():
    index = pd.DataFrame({"patient_id": ["p1", "p2", "p3", "p3"], "split": ["train", "train", "train", "test"]})
    with pytest.raises(ValueError, match=r"1 patients are in train and in test, the first is 'p3'"):
        evaluate_clusters(Embeddings(np.eye(4), index), {}, np.array(["a", "b", "", "a"]), [1])


def test_an_oracles_map_is_compared_with_a_constant_one_fitted_on_test():
    """The most frequent class of test, since an oracle is fitted on it; that of train is another one here."""
    rng = np.random.default_rng(3)
    classes = np.array(["a"] * 60 + ["b"] * 40 + ["a"] * 30 + ["b"] * 70)
    index = pd.DataFrame({"patient_id": [f"p{i}" for i in range(200)], "split": ["train"] * 100 + ["test"] * 100})
    report = evaluate_clusters(Embeddings(rng.normal(size=(200, 4)), index), {}, classes, [2], 0, 20, 20)
    majority = report.table.set_index("measure")["majority"]
    assert majority["oracle_map_acc"] == 0.7
    assert majority["acc_one_to_one"] == majority["acc_many_to_one"] == 0.3
    assert "oracle_map_acc" in report.lines()[-1]
    assert "(most frequent test class 0.70, null" in report.lines()[-1]
    assert "(majority 0.30, null" in report.lines()[0]


@pytest.fixture(scope="module")
def report():
    kind, train = np.tile(np.arange(3), 60), np.arange(180) < 90
    features = np.random.default_rng(0).normal(size=(180, 6)) / 6 + np.eye(6)[kind]
    index = pd.DataFrame({"patient_id": [f"p{i // 2}" for i in range(180)], "split": np.where(train, "train", "test")})
    noisy = np.where(np.random.default_rng(5).random(180) < 0.3, "other", np.array(["a", "b", "c"])[kind])
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
    scored, classes = report
    table, test = scored.table.set_index("measure")["value"], np.arange(180) >= 90
    expected = metrics.v_measure_score(classes[test], scored.clusters[4][test])
    assert table["v_measure"] == pytest.approx(expected, abs=1e-9)
    assert table["oracle_map_acc"] >= table["acc_one_to_one"]


def test_a_report_is_nested_by_features_number_of_clusters_and_measure(report):
    nested, [row] = report[0].to_dict(), report[0].table.query("measure == 'ami'").to_dict("records")
    assert list(nested) == ["encoder"]
    assert list(nested["encoder"]) == ["4"]
    about = ("features", "n_clusters", "measure")
    assert nested["encoder"]["4"]["ami"] == {key: value for key, value in row.items() if key not in about}


def test_a_patient_in_train_and_test_is_refused():
    index = pd.DataFrame({"patient_id": ["p1", "p1"], "split": ["train", "test"]})
    with pytest.raises(ValueError, match=r"first is 'p1'; split by patient"):
        evaluate_clusters(Embeddings(np.eye(2), index), {}, np.array(["a", "b"]), [1])


def test_an_accuracy_alone_is_refused():
    with pytest.raises(ValueError, match="without its majority"):
        format_score({"value": 0.67, "low": 0.6, "high": 0.7, "null_low": 0.1, "null_high": 0.2})
    with pytest.raises(ValueError, match="without its null"):
        format_score({"value": 0.67, "low": 0.6, "high": 0.7, "majority": 0.2, "null_low": np.nan})


def test_the_silhouette_has_a_null_when_the_test_rows_are_sorted_by_cluster():
    rng = np.random.default_rng(0)
    source = np.repeat([0, 1], [900, 700])
    features = rng.normal(size=(1600, 4)) / 9 + np.eye(4)[source]
    split = np.where(np.arange(1600) % 2, "train", "test")
    index = pd.DataFrame({"patient_id": [f"p{i}" for i in range(1600)], "split": split})
    report = evaluate_clusters(Embeddings(features, index), {}, np.array(["a", "b"])[source], [2], n_bootstrap=20)
    row = report.table.set_index("measure").loc["silhouette"]
    assert row["value"] > 0.7
    assert -0.1 < row["null_low"] < row["null_high"] < 0.1
    assert row["p"] == pytest.approx(1 / 201)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_lacks_does_not_take_the_one_to_one_accuracy_away(split):
    rng = np.random.default_rng(0)
    kind = np.tile(np.arange(3), 40)
    index = _index(120)
    index.loc[119, ["patient_id", "split"]] = ["alone", split]
    classes = np.array(["a", "b", "c"])[kind].astype(object)
    classes[119] = "rare"
    features = rng.normal(size=(120, 5)) / 9 + np.eye(5)[kind]
    report = evaluate_clusters(Embeddings(features, index), {}, classes, [3], n_bootstrap=20, n_permutations=20)
    value = report.table.set_index("measure").loc["acc_one_to_one", "value"]
    assert value == pytest.approx(1 if split == "val" else 59 / 60)


def test_of_four_test_patients_an_accuracy_says_why_it_has_no_interval():
    rng = np.random.default_rng(0)
    index = _index(40)
    index["split"] = ["train"] * 32 + ["test"] * 8
    report = evaluate_clusters(
        Embeddings(rng.normal(size=(40, 4)), index), {}, np.tile(["a", "b"], 20), [2], n_bootstrap=20, n_permutations=20
    )
    assert all("[no interval of under 5 patients] (majority" in line for line in report.lines()[:1])
