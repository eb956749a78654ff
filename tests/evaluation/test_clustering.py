from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from monai_simclr.evaluation import Embeddings, align_clusters, evaluate_clusters, format_score
from monai_simclr.evaluation.agreement import agreement, contingency, many_to_one, one_to_one


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
    mine = agreement(table, None, many)
    expected = [
        metrics.accuracy_score(classes, many[clusters]),
        metrics.balanced_accuracy_score(classes, many[clusters]),
        metrics.adjusted_mutual_info_score(classes, clusters),
        metrics.normalized_mutual_info_score(classes, clusters),
        metrics.adjusted_rand_score(classes, clusters),
        metrics.v_measure_score(classes, clusters),
    ]
    np.testing.assert_allclose(mine[1:-1], expected, atol=1e-10)
    assert mine[-1] == max(np.trace(table[list(order)]) for order in itertools.permutations(range(4), 3)) / 300
    assert np.isnan(mine[0])


def test_the_hungarian_map_gives_up_one_cluster_to_gain_more():
    assert one_to_one(np.array([[10, 9, 0], [9, 1, 0], [0, 0, 5]])).tolist() == [1, 0, 2]


def test_noise_lies_in_the_permutation_null_and_a_map_fitted_on_test_would_look_better():
    rng = np.random.default_rng(0)
    n, gain = 240, []
    inside = 0
    for seed in range(8):
        classes = np.repeat(rng.choice(["a", "b", "c", "d"], size=n // 2), 2)
        embeddings = Embeddings(rng.normal(size=(n, 8)), _index(n))
        report = evaluate_clusters(embeddings, {}, classes, [4], seed=seed, n_bootstrap=20, n_permutations=60)
        row = report.table[report.table["measure"] == "acc_one_to_one"].iloc[0]
        inside += row["null_low"] <= row["value"] <= row["null_high"]
        cross = report.crosses[4].to_numpy()
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
    assert report.n["left_out"] == 6
    assert report.crosses[3].to_numpy().sum() == 60


def test_clusters_are_fitted_on_train_images_without_a_class_too():
    """Three kinds of images, of which labels know only two in train: three clusters must find all three."""
    rng = np.random.default_rng(2)
    kind = np.tile(np.arange(3), 80)
    features = rng.normal(size=(240, 5)) / 5 + 3 * np.eye(5)[kind]
    classes = np.array(["a", "b", ""])[kind]
    report = evaluate_clusters(Embeddings(features, _index(240)), {}, classes, [3], 0, 20, 20)
    assert metrics.adjusted_rand_score(kind, report.clusters[3]) == 1
    assert (report.n["fitted_images"], report.n["train_images"], report.n["left_out"]) == (120, 80, 80)
    assert report.n["fitted_patients"] == 60


def test_a_patient_without_a_class_in_train_and_with_one_in_test_is_refused():
    index = pd.DataFrame({"patient_id": ["p1", "p2", "p3", "p3"], "split": ["train", "train", "train", "test"]})
    with pytest.raises(ValueError, match=r"1 patients are in train and in test, the first is 'p3'"):
        evaluate_clusters(Embeddings(np.eye(4), index), {}, np.array(["a", "b", "", "a"]), [1])


def test_beside_an_oracles_map_stands_what_a_constant_one_scores():
    """The commonest class of test, since an oracle knows it; the commonest class of train is another one here."""
    rng = np.random.default_rng(3)
    classes = np.array(["a"] * 60 + ["b"] * 40 + ["a"] * 30 + ["b"] * 70)
    index = pd.DataFrame({"patient_id": [f"p{i}" for i in range(200)], "split": ["train"] * 100 + ["test"] * 100})
    report = evaluate_clusters(Embeddings(rng.normal(size=(200, 4)), index), {}, classes, [2], 0, 20, 20)
    beside = report.table.set_index("measure")["majority"]
    assert beside["oracle_map_acc"] == 0.7
    assert beside["acc_one_to_one"] == beside["acc_many_to_one"] == 0.3
    assert "oracle_map_acc" in report.lines()[-1]
    assert "(commonest test class 0.70, null" in report.lines()[-1]
    assert "(majority 0.30, null" in report.lines()[0]


def test_a_patient_in_train_and_test_is_refused():
    index = pd.DataFrame({"patient_id": ["p1", "p1"], "split": ["train", "test"]})
    with pytest.raises(ValueError, match=r"first is 'p1'; split by patient"):
        evaluate_clusters(Embeddings(np.eye(2), index), {}, np.array(["a", "b"]), [1])


def test_a_bare_accuracy_is_refused():
    with pytest.raises(ValueError, match="without its majority"):
        format_score(0.67, 0.6, 0.7, None, (0.1, 0.2))
    with pytest.raises(ValueError, match="without its null"):
        format_score(0.67, 0.6, 0.7, 0.2, None)


def test_clusters_that_follow_a_finding_say_so():
    mass = np.tile([0.0, 1.0], 30)
    index = pd.DataFrame({"Mass": mass, "sex": np.repeat(["M", "F"], 30)})
    assert align_clusters(mass.astype(int), index, ["Mass"]).sentence.startswith("these clusters follow Mass, AMI 1.00")
