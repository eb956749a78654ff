"""Probes, neighbours and confounder baselines on features that contain one finding and not the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from monai_simclr.evaluation import (
    Embeddings,
    Predictions,
    align_clusters,
    baseline_scores,
    compare_arms,
    compare_to_baseline,
    enrich,
    find_label_errors,
    fit_probe,
    knn,
    knn_findings,
    knn_predict,
    neighbors,
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
            "image": [f"{i}.png" for i in range(n)],
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
    predicted = knn_predict(train, classes, test, k=7, temperature=1e6)
    np.testing.assert_array_equal(predicted[clear], oracle.predict(test)[clear])


@pytest.mark.parametrize(("rows", "k"), [(300, 20), (5, 20), (2000, 1)])
def test_faiss_finds_the_neighbours_that_numpy_finds_beside_torch(monkeypatch, rows, k):
    pytest.importorskip("faiss", reason="faiss is not installed: pip install 'monai-simclr[faiss]'")
    random = np.random.default_rng(rows)
    train, test = random.normal(size=(rows, 32)), random.normal(size=(1500, 32))
    found = []
    for limit in (neighbors._FOR_FAISS, 0):
        monkeypatch.setattr(neighbors, "_FOR_FAISS", limit)
        torch.mm(torch.ones(200, 200), torch.ones(200, 200))  # torch's threads run in the same process
        parts = list(neighbors.nearest(train, test, k))
        near, cosines = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        order = np.argsort(-cosines, axis=1)
        found.append([np.take_along_axis(side, order, axis=1) for side in (near, cosines)])
    np.testing.assert_array_equal(found[1][0], found[0][0])
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-6)


def test_many_training_rows_are_compared_in_smaller_parts(monkeypatch):
    random = np.random.default_rng(1)
    train, test = random.normal(size=(50, 8)), random.normal(size=(20, 8))
    whole = np.concatenate([cosines for _, cosines in neighbors.nearest(train, test, 3)])
    monkeypatch.setattr(neighbors, "_CELLS", 350)
    parts = [cosines for _, cosines in neighbors.nearest(train, test, 3)]
    assert [len(part) for part in parts] == [7, 7, 6]
    np.testing.assert_allclose(np.sort(np.concatenate(parts)), np.sort(whole), atol=1e-6)


def test_a_finding_in_the_features_is_detected_and_noise_is_not(embeddings):
    table = probe_findings(embeddings, ["Mass", "Edema"], n_bootstrap=50).table.set_index("finding")
    assert table["auroc"]["Mass"] > 0.9
    assert table["low"]["Edema"] < 0.5 < table["high"]["Edema"]


@pytest.mark.parametrize("classify", [knn, probe_classes])
def test_an_accuracy_has_its_null_and_references(embeddings, classify):
    classes = np.where(embeddings.index["Mass"] == 1, "Mass", "No Finding")
    noise = {"noise": np.random.default_rng(1).normal(size=(240, 6))}
    table = classify(embeddings, noise, classes, n_bootstrap=50, n_permutations=50).set_index("features")
    assert table["low"]["encoder"] > table["null_high"]["encoder"]
    assert table["value"]["encoder"] > table["value"]["noise"]


def _compare(index: pd.DataFrame) -> pd.DataFrame:
    """A model that guesses, with the confounder baseline of the test images."""
    test = index[index["split"] == "test"]
    model = Predictions(test[["Mass", "Edema"]], np.eye(2)[np.arange(80) % 2], test["patient_id"], ["Mass", "Edema"])
    return compare_to_baseline(model, baseline_scores(index, ["Mass", "Edema"]), 20).set_index("finding")


def test_the_confounder_baseline_finds_a_finding_that_follows_the_view(embeddings):
    table = _compare(embeddings.index)
    assert table["baseline"]["Mass"] == 1
    assert table["baseline"]["Edema"] < 0.75


@pytest.mark.parametrize(("split", "label"), [("train", 1), ("train", 0), ("test", 1), ("test", 0)])
def test_a_baseline_of_one_patient_is_not_stated(embeddings, split, label):
    index = embeddings.index.copy()
    rows = index["split"] == split
    index.loc[rows, "Edema"] = 1.0 - label
    index.loc[index[rows].index[:2], "Edema"] = float(label)  # two images of one patient
    table = _compare(index)
    want = {1: "have the finding", 0: "lack the finding"}[label] if split == "test" else "have the finding, or lack it"
    assert table["reason"]["Edema"] == f"fewer than 2 {split} patients {want}"
    assert np.isnan(table.loc["Edema", ["baseline", "difference", "low"]].astype(float)).all()
    assert table["model"]["macro mean"] == table["model"]["Mass"]  # over the findings that have a baseline
    assert table["baseline"]["macro mean"] == table["baseline"]["Mass"] == 1


def test_smoothed_labels_count_as_unknown_in_baseline_probe_neighbours_and_clusters(embeddings):
    """A logistic regression refuses 0.7, and three values passed for "not two classes": the baseline was then 0.5."""
    soft, unknown = embeddings.index.copy(), embeddings.index.copy()
    soft.loc[:29, "Mass"] = 0.7
    unknown.loc[:29, "Mass"] = np.nan
    for score in (
        lambda index: baseline_scores(index, ["Mass", "Edema"]),
        lambda index: probe_scores(Embeddings(embeddings.features, index), ["Mass", "Edema"])[0],
        lambda index: knn_findings(Embeddings(embeddings.features, index), ["Mass"], n_bootstrap=5)["auroc"],
        lambda index: prevalence_auroc(np.arange(240) % 5, index, ["Mass"], n_bootstrap=5)["auroc"],
        lambda index: find_label_errors(Embeddings(embeddings.features, index), ["Mass"])["probability"],
        lambda index: align_clusters(np.arange(240) % 5, index, ["Mass"]).table["ami"],
        lambda index: enrich(np.arange(240) % 5, index, ["Mass"])["p"],
    ):
        np.testing.assert_array_equal(score(soft), score(unknown))


def test_a_probe_needs_both_labels_and_chooses_its_penalty_on_val(embeddings):
    features, mass = embeddings.features, embeddings.index["Mass"].to_numpy()
    chosen = fit_probe(features[:120], mass[:120], (features[120:160], mass[120:160]))
    assert chosen.c_chosen_on == "val"
    expected = LogisticRegression(C=chosen.c, max_iter=1000).fit(features[:120], mass[:120])
    np.testing.assert_array_equal(chosen.logits(features), expected.decision_function(features))
    default = fit_probe(features[:120], mass[:120], (features[:5], np.ones(5)))
    assert (default.c, default.c_chosen_on) == (0.01, "default: val lacks one of the labels")
    alike = fit_probe(features, np.ones(240))
    assert alike.c_chosen_on == "none: train labels are all alike"
    assert (alike.logits(features) == 0).all()


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
