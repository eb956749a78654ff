from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from monai_simclr.evaluation import (
    Embeddings,
    Predictions,
    align_clusters,
    baseline_scores,
    compare_arms,
    compare_to_baseline,
    confounder_baseline,
    enrich,
    find_label_errors,
    knn,
    knn_findings,
    knn_predict,
    prevalence_auroc,
    probe_classes,
    probe_findings,
    probe_scores,
    score_findings,
)


@pytest.fixture
def embeddings() -> Embeddings:
    rng = np.random.default_rng(0)
    n = 240
    mass = rng.integers(2, size=n).astype(float)
    index = pd.DataFrame(
        {
            "patient_id": [f"p{i // 2}" for i in range(n)],
            "split": ["train"] * 120 + ["val"] * 40 + ["test"] * 80,
            "view_position": np.where(mass == 1, "AP", "PA"),
            "sex": rng.choice(["M", "F", ""], size=n),
            "age": np.where(rng.random(n) < 0.2, np.nan, 50),
            "Mass": mass,
            "Edema": rng.integers(2, size=n).astype(float),
        }
    )
    return Embeddings(rng.normal(size=(n, 6)) + 3 * mass[:, None] * np.eye(6)[0], index)


def test_neighbours_at_a_high_temperature_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    train, test, classes = rng.normal(size=(200, 5)), rng.normal(size=(50, 5)), rng.integers(3, size=200)
    oracle = KNeighborsClassifier(7, metric="cosine").fit(train, classes)
    votes = np.sort(oracle.predict_proba(test), axis=1)
    clear = votes[:, -1] > votes[:, -2]
    mine = knn_predict(train, classes, test, k=7, temperature=1e6)
    np.testing.assert_array_equal(mine[clear], oracle.predict(test)[clear])


def test_a_finding_in_the_features_is_found_and_noise_is_not(embeddings):
    table = probe_findings(embeddings, ["Mass", "Edema"], n_bootstrap=50).table.set_index("finding")
    assert table["auroc"]["Mass"] > 0.9
    assert table["low"]["Edema"] < 0.5 < table["high"]["Edema"]


@pytest.mark.parametrize("classify", [knn, probe_classes])
def test_an_accuracy_stands_beside_its_floors(embeddings, classify):
    classes = np.where(embeddings.index["Mass"] == 1, "Mass", "No Finding")
    noise = {"noise": np.random.default_rng(1).normal(size=(240, 6))}
    table = classify(embeddings, noise, classes, n_bootstrap=50, n_permutations=50).set_index("features")
    assert table["low"]["encoder"] > table["null_high"]["encoder"]
    assert table["value"]["encoder"] > table["value"]["noise"]


def test_the_confounder_floor_sees_a_finding_that_follows_the_view(embeddings):
    table = confounder_baseline(embeddings.index, ["Mass", "Edema"], n_bootstrap=20).set_index("finding")
    assert table["auroc"]["Mass"] == 1
    assert table["auroc"]["Edema"] < 0.75


@pytest.mark.parametrize(("split", "label"), [("train", 1), ("train", 0), ("test", 1), ("test", 0)])
def test_a_floor_that_one_patient_makes_is_not_stated(embeddings, split, label):
    index = embeddings.index.copy()
    rows = index["split"] == split
    index.loc[rows, "Edema"] = 1.0 - label
    index.loc[index[rows].index[:2], "Edema"] = float(label)  # two images of one patient
    table = confounder_baseline(index, ["Mass", "Edema"], n_bootstrap=20).set_index("finding")
    want = {1: "have the finding", 0: "lack the finding"}[label] if split == "test" else "have the finding, or lack it"
    assert table["reason"]["Edema"] == f"fewer than 2 {split} patients {want}"
    assert np.isnan(table.loc["Edema", ["auroc", "low", "auprc"]].astype(float)).all()
    assert table["auroc"]["macro mean"] == table["auroc"]["Mass"] == 1
    test = index[index["split"] == "test"]
    model = Predictions(test[["Mass", "Edema"]], np.eye(2)[np.arange(80) % 2], test["patient_id"], ["Mass", "Edema"])
    beside = compare_to_baseline(model, baseline_scores(index, ["Mass", "Edema"]), 20).set_index("finding")
    assert beside["reason"]["Edema"] == table["reason"]["Edema"]
    assert np.isnan(beside.loc["Edema", ["floor", "difference", "low"]].astype(float)).all()
    assert beside["model"]["macro mean"] == beside["model"]["Mass"]  # over the findings that have a floor
    assert beside["floor"]["macro mean"] == 1


def test_smoothed_labels_leave_floor_probe_and_neighbours_as_they_are_without_them(embeddings):
    """A logistic regression refuses 0.7, and three values passed for "not two classes": the floor was then 0.5."""
    soft, unknown = embeddings.index.copy(), embeddings.index.copy()
    soft.loc[:29, "Mass"] = 0.7
    unknown.loc[:29, "Mass"] = np.nan
    for score in (
        lambda index: baseline_scores(index, ["Mass", "Edema"]),
        lambda index: probe_scores(Embeddings(embeddings.features, index), ["Mass", "Edema"])[0],
        lambda index: knn_findings(Embeddings(embeddings.features, index), ["Mass"], n_bootstrap=5)["auroc"],
        lambda index: prevalence_auroc(np.arange(240) % 5, index, ["Mass"], n_bootstrap=5)["auroc"],
        lambda index: find_label_errors(Embeddings(embeddings.features, named(index)), ["Mass"])["probability"],
        lambda index: align_clusters(np.arange(240) % 5, index, ["Mass"]).table["ami"],
        lambda index: enrich(np.arange(240) % 5, index, ["Mass"])["p"],
    ):
        np.testing.assert_array_equal(score(soft), score(unknown))


def named(index):
    return index.assign(image=[f"{i}.png" for i in range(len(index))])


def test_cluster_prevalence_scores_a_finding(embeddings):
    clusters = embeddings.index["Mass"].to_numpy().astype(int)
    assert prevalence_auroc(clusters, embeddings.index, ["Mass"], n_bootstrap=20)["auroc"][0] == 1


def test_missing_labels_are_masked_and_one_class_has_a_reason():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=(60, 2)).astype(float)
    labels[:10, 0], labels[:, 1] = np.nan, 0
    scores = rng.normal(size=(60, 2))
    table = score_findings(labels, scores, np.arange(60), ["Mass", "Edema"], 20)
    assert table["auroc"][0] == pytest.approx(roc_auc_score(labels[10:, 0], scores[10:, 0]))
    assert table["n"][0] == 50
    assert np.isnan(table["auroc"][1])
    assert table["reason"][1] == "every known label is 0"


def test_arms_are_compared_by_draw():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=(100, 1)).astype(float)
    test = {"labels": labels, "patients": np.arange(100), "fraction": 0.1}
    runs = [
        {"arm": arm, "draw": draw, "scores": rng.normal(size=(100, 1)) + shift * labels, **test}
        for arm, shift in (("scratch", 0.3), ("simclr", 3.0))
        for draw in range(3)
    ]
    table = compare_arms(runs, reference="scratch", n_bootstrap=100).set_index("arm")
    assert table["low"]["simclr"] > 0.1
    assert table["difference"]["scratch"] == 0
    with pytest.raises(ValueError, match="no partner"):
        compare_arms(runs[1:], reference="scratch")


def test_one_class_is_refused_in_words_and_not_by_a_solver(embeddings):
    classes = np.where(np.arange(240) % 3 == 0, "Pneumonia", "")
    with pytest.raises(ValueError, match=r"all 40 train rows with a class are 'Pneumonia'; two classes or more"):
        probe_classes(embeddings, {}, classes, n_bootstrap=5)
