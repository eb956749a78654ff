"""What to label next, what is alike or copied, what looks wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from monai_simclr.evaluation import (
    Embeddings,
    find_copies,
    find_label_errors,
    find_outliers,
    knn_findings,
    probe_findings,
    probe_scores,
    select_images,
    similar_images,
)
from monai_simclr.evaluation.neighbors import knn_scores
from monai_simclr.evaluation.worklists import choose_covering


def _archive(seed: int, n: int = 400) -> Embeddings:
    """Twelve groups of very unequal size; the finding belongs to whole groups, as in an archive."""
    rng = np.random.default_rng(seed)
    shares = np.geomspace(1, 0.08, 12)
    group = rng.choice(12, size=n, p=shares / shares.sum())
    features = 2.2 * rng.normal(size=(12, 10))[group] + rng.normal(size=(n, 10))
    mass = np.isin(group, np.arange(0, 12, 2)).astype(float)
    split = np.where(np.arange(n) < n * 0.6, "train", "test")
    index = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(n)],
            "patient_id": [f"p{i // 2}" for i in range(n)],
            "split": split,
            "Mass": mass,
        }
    )
    return Embeddings(features, index)


def test_a_selection_has_one_image_a_patient_of_train_only_and_is_the_same_again():
    archive = _archive(0)
    first, second = select_images(archive, 30, seed=1), select_images(archive, 30, seed=1)
    pd.testing.assert_frame_equal(first, second)
    assert first["patient_id"].is_unique
    rows = archive.index.set_index("image").loc[first["image"]]
    assert set(rows["split"]) == {"train"}


def test_a_selection_reads_no_label():
    archive = _archive(0)
    blind = Embeddings(archive.features, archive.index.drop(columns="Mass"))
    assert select_images(archive, 20)["image"].tolist() == select_images(blind, 20)["image"].tolist()


def test_labelled_patients_are_excluded_and_what_they_represent_is_not_chosen_again():
    archive = _archive(0)
    before = select_images(archive, 10)
    labelled = archive.index["image"].isin(before["image"]).to_numpy()
    after = select_images(archive, 10, labelled=labelled)
    assert not set(after["patient_id"]) & set(before["patient_id"])
    both = select_images(archive, 20)
    assert set(after["patient_id"]) == set(both["patient_id"][10:])  # a list continues where it stopped


def test_the_greedy_choice_is_that_of_a_slow_loop():
    rng = np.random.default_rng(0)
    similarity, patients = rng.normal(size=(40, 60)).astype(np.float32), np.arange(40) // 2
    best, taken, expected = np.full(60, -1.0), set(), []
    for _ in range(12):
        gains = [
            np.maximum(row, best).sum() if patients[i] not in taken else -np.inf for i, row in enumerate(similarity)
        ]
        expected.append(int(np.argmax(gains)))
        taken.add(patients[expected[-1]])
        best = np.maximum(best, similarity[expected[-1]])
    assert choose_covering(similarity, np.full(60, -1.0, dtype=np.float32), patients, 12).tolist() == expected


def test_a_budget_above_the_patients_is_refused():
    with pytest.raises(ValueError, match="a budget of 121 images is not within 1 to the 120 patients without labels"):
        select_images(_archive(0), 121)


def test_selected_images_teach_a_probe_more_than_random_ones():
    from sklearn.metrics import roc_auc_score

    gains = []
    for seed in range(10):
        archive = _archive(seed)
        train = np.flatnonzero(archive.index["split"] == "train")
        chosen = np.flatnonzero(archive.index["image"].isin(select_images(archive, 15, seed)["image"]))
        random = np.random.default_rng(seed).choice(train[::2], 15, replace=False)
        aurocs = []
        for rows in (chosen, random):
            scores, test, _ = probe_scores(archive, ["Mass"], rows)
            aurocs.append(roc_auc_score(archive.index["Mass"].to_numpy()[test], scores[:, 0]))
        gains.append(aurocs[0] - aurocs[1])
    assert np.mean(gains) > 0.02
    assert np.sum(np.array(gains) > 0) >= 6


def test_similar_images_are_of_other_patients_each_once_the_nearest_first():
    archive = _archive(2)
    table = similar_images(archive, 5, n=8)
    assert len(table) == 8
    assert table["patient_id"].is_unique
    assert archive.index["patient_id"][5] not in set(table["patient_id"])
    assert table["similarity"].is_monotonic_decreasing


def test_an_image_unlike_all_others_comes_first():
    archive = _archive(3)
    features = archive.features.copy()
    features[17] = -features.mean(axis=0) * 40
    assert find_outliers(Embeddings(features, archive.index), n=3)["image"][0] == "17.png"


def test_planted_label_errors_come_first():
    archive = _archive(4)
    wrong = [3, 50, 121, 200, 301]
    index = archive.index.copy()
    index.loc[wrong, "Mass"] = 1 - index.loc[wrong, "Mass"]
    table = find_label_errors(Embeddings(archive.features, index), ["Mass"], n=40)
    assert len({f"{row}.png" for row in wrong} & set(table["image"])) >= 4
    assert table["probability"].is_monotonic_increasing


def test_neighbours_by_finding_equal_a_slow_loop_with_unknown_labels():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(50, 4)), rng.normal(size=(9, 4))
    labels = rng.choice([0.0, 1.0, np.nan], size=(50, 3))
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (train, test)]
    expected = np.zeros((9, 3))
    for i, row in enumerate(unit[1]):
        cosines = unit[0] @ row
        near = np.argsort(-cosines)[:7]
        for k in range(3):
            known = [j for j in near if np.isfinite(labels[j, k])]
            weights = [np.exp(cosines[j] / 0.07) for j in known]
            if known:
                expected[i, k] = np.dot(weights, labels[known, k]) / sum(weights)
            else:
                expected[i, k] = np.nanmean(labels[:, k])
    np.testing.assert_allclose(knn_scores(train, labels, test, k=7), expected, rtol=1e-4)


def test_the_map_of_neighbours_is_scikit_learns():
    archive = _archive(6)
    table = knn_findings(archive, ["Mass"], n_bootstrap=20)
    train, test = archive.of_split("train"), archive.of_split("test")
    scores = knn_scores(train.features, train.index[["Mass"]].to_numpy(), test.features)
    assert table["auprc"][0] == pytest.approx(average_precision_score(test.index["Mass"], scores[:, 0]))


@pytest.fixture
def leaky() -> Embeddings:
    rng = np.random.default_rng(0)
    index = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(60)],
            "patient_id": [f"p{i}" for i in range(59)] + ["p0"],
            "split": ["train"] * 30 + ["test"] * 30,
            "Mass": rng.integers(2, size=60).astype(float),
        }
    )
    features = rng.normal(size=(60, 8))
    features[45] = features[3] * 1.5
    return Embeddings(features, index)


@pytest.mark.parametrize("evaluate", [probe_findings, knn_findings])
def test_a_patient_in_train_and_test_is_refused(leaky, evaluate):
    with pytest.raises(ValueError, match=r"1 patients are in train and in test, the first is 'p0'"):
        evaluate(leaky, ["Mass"])


def test_a_renamed_copy_in_another_split_is_found(leaky):
    features = leaky.features.copy()
    features[45] = features[3]
    table = find_copies(Embeddings(features, leaky.index))
    assert table[["image", "copy"]].to_numpy().tolist() == [["45.png", "3.png"]]
    assert find_copies(Embeddings(leaky.features, leaky.index), similarity=0.99999).empty
