from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monai_simclr.evaluation.bootstrap import (
    auroc_resamples,
    auroc_with_interval,
    patient_bootstrap,
    patient_counts,
    permute_over_patients,
)


def _data(seed: int, patients: int = 40, images: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = np.repeat(np.arange(patients), images)
    labels = np.repeat(rng.integers(2, size=patients), images)
    person = np.repeat(rng.normal(size=patients), images)
    return labels, np.round(labels + person + rng.normal(size=len(names)) / 3, 1), names


def test_the_fast_auroc_equals_scikit_learn_on_every_resample_ties_included():
    labels, scores, patients = _data(0)
    codes, counts = patient_counts(patients, 50, seed=1)
    fast = auroc_resamples(labels, scores, counts[:, codes])
    slow = [roc_auc_score(np.repeat(labels, row[codes]), np.repeat(scores, row[codes])) for row in counts]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_the_fast_interval_equals_the_general_one():
    labels, scores, patients = _data(1)
    slow = patient_bootstrap(patients, lambda rows: roc_auc_score(labels[rows], scores[rows]), n=100, seed=3)
    np.testing.assert_allclose(auroc_with_interval(labels, scores, patients, n=100, seed=3), slow, atol=1e-9)


def test_images_of_one_patient_widen_the_interval():
    labels, scores, patients = _data(2)
    by_patient = auroc_with_interval(labels, scores, patients)
    by_image = auroc_with_interval(labels, scores, np.arange(len(labels)))
    assert by_patient.high - by_patient.low > 1.2 * (by_image.high - by_image.low)


def _coverage(sets: int) -> float:
    truth = 0.749  # Phi(1 / sqrt(2 (1 + 1/9))): two normals 1 apart, variance 1 + 1/9 each
    inside = 0
    for seed in range(sets):
        found = auroc_with_interval(*_data(seed + 100, patients=60), n=300, seed=seed)
        inside += found.low <= truth <= found.high
    return inside / sets


def test_about_95_of_100_intervals_hold_the_truth():
    assert 0.87 <= _coverage(80) <= 1.0


@pytest.mark.slow
def test_of_500_intervals_about_95_percent_hold_the_truth():
    assert 0.91 <= _coverage(500) <= 0.98


def test_labels_of_a_patient_stay_together_under_permutation():
    patients = np.repeat(np.arange(50), 2)
    permuted = permute_over_patients(patients, patients, np.random.default_rng(0))
    assert (permuted[::2] == permuted[1::2]).all()
    assert sorted(permuted) == sorted(patients)
    assert (permuted != patients).any()


def test_a_missing_label_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        auroc_with_interval(np.array([0, np.nan]), np.array([1, 2]), np.array(["a", "b"]))
