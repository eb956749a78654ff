"""A leak planted between what was learned from and what is scored is caught."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.evaluation import Embeddings, find_copies, knn_findings, probe_findings
from monai_simclr.workflows.seen import check_unseen

SEEN = frozenset(keyed_hash("key", name) for name in ("p1", "p7"))


def test_a_test_patient_whom_pretraining_saw_is_refused_and_named():
    with pytest.raises(
        ValueError, match=r"pretraining saw 1 of the 2 patients .* first is 'p7'.*--allow_seen_patients"
    ):
        check_unseen(np.array(["p7", "p7", "p8"]), "key", SEEN)


def test_seen_patients_are_counted_when_that_is_stated_and_nobody_is_seen_under_another_key():
    assert check_unseen(np.array(["p1", "p7", "p9"]), "key", SEEN, allowed=True) == 2
    assert check_unseen(np.array(["p1", "p7", "p9"]), "other", SEEN) == 0


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
    features[45] = features[3] * 1.5 - features.mean(axis=0) * 0
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
