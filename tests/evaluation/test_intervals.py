"""Intervals, nulls and adjusted p-values against scikit-learn, slow loops and simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_simclr.evaluation import Interval, holm, score_findings
from monai_simclr.evaluation.intervals import (
    Ranking,
    bootstrap_interval,
    p_value,
    patient_counts,
    permute_over_patients,
    resample_aurocs,
)


def _data(seed: int, patients: int = 40, images: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = np.repeat(np.arange(patients), images)
    labels = np.repeat(rng.integers(2, size=patients), images)
    person = np.repeat(rng.normal(size=patients), images)
    return labels, np.round(labels + person + rng.normal(size=len(names)) / 3, 1), names


def _auroc(labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, n: int = 1000, seed: int = 0) -> Interval:
    row = score_findings(labels[:, None], scores[:, None], patients, ["Mass"], n, seed).iloc[0]
    return Interval(row["auroc"], row["low"], row["high"])


def test_auroc_and_average_precision_equal_scikit_learn_on_every_resample_ties_included():
    labels, scores, patients = _data(0)
    codes, counts = patient_counts(patients, 50, seed=1)
    auroc, auprc = Ranking(labels, scores, codes).resample(counts)
    drawn = [(np.repeat(labels, row[codes]), np.repeat(scores, row[codes])) for row in counts]
    np.testing.assert_allclose(auroc, [roc_auc_score(*pair) for pair in drawn], atol=1e-12)
    np.testing.assert_allclose(auprc, [average_precision_score(*pair) for pair in drawn], atol=1e-12)


def test_the_fast_interval_equals_that_of_repeated_images():
    labels, scores, patients = _data(1)
    codes, counts = patient_counts(patients, 100, 3)
    drawn = [np.repeat(np.arange(len(labels)), row[codes]) for row in counts]
    slow = np.array([roc_auc_score(labels[rows], scores[rows]) for rows in drawn])
    positive = len(set(patients[labels == 1]))  # a patient's images share their label
    expected = bootstrap_interval(roc_auc_score(labels, scores), slow, units=min(positive, 40 - positive))
    np.testing.assert_allclose(_auroc(labels, scores, patients, n=100, seed=3), expected, atol=1e-9)


def test_images_of_one_patient_widen_the_interval():
    labels, scores, patients = _data(2)
    by_patient = _auroc(labels, scores, patients)
    by_image = _auroc(labels, scores, np.arange(len(labels)))
    assert by_patient.high - by_patient.low > 1.2 * (by_image.high - by_image.low)


def _coverage(sets: int) -> float:
    true_value = 0.749  # Phi(1 / sqrt(2 (1 + 1/9))): two normals 1 apart, variance 1 + 1/9 each
    inside = 0
    for seed in range(sets):
        interval = _auroc(*_data(seed + 100, patients=80), n=400, seed=seed)
        inside += interval.low <= true_value <= interval.high
    return inside / sets


def test_about_95_of_100_intervals_cover_the_true_value():
    assert 0.90 <= _coverage(100) <= 0.99


@pytest.mark.slow
def test_of_500_intervals_95_percent_cover_the_true_value_give_or_take_2():
    assert 0.93 <= _coverage(500) <= 0.97


def _null_p(seed: int) -> float:
    """p-value of the agreement of independent clusters and classes, patients of unequal size."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(60), rng.choice([1, 1, 1, 2, 3, 4, 8, 20], size=60))
    classes = rng.integers(3, size=60)[patients]
    clusters = np.where(
        rng.random(len(patients)) < 0.2, rng.integers(3, size=len(patients)), rng.integers(3, size=60)[patients]
    )
    null = [np.mean(permute_over_patients(classes, patients, rng) == clusters) for _ in range(99)]
    return p_value(float(np.mean(classes == clusters)), np.array(null)) - rng.random() / 100  # between its steps


def test_the_permutation_null_is_uniform_with_patients_of_unequal_size():
    p = np.array([_null_p(seed) for seed in range(300)])
    assert kstest(p, "uniform").pvalue > 0.01
    assert (p <= 0.05).mean() <= 0.075


def test_few_patients_widen_an_interval_as_students_t_does_and_one_has_none():
    drawn = np.random.default_rng(0).normal(size=100_000)
    wide, plain = bootstrap_interval(0.0, drawn, units=10), bootstrap_interval(0.0, drawn)
    assert plain.high == pytest.approx(1.96, abs=0.03)
    assert wide.high == pytest.approx(2.262 * np.sqrt(10 / 9), abs=0.06)
    assert np.isnan(bootstrap_interval(0.0, drawn, units=1).low)


def test_labels_of_a_patient_stay_together_under_permutation():
    patients = np.repeat(np.arange(50), 2)
    permuted = permute_over_patients(patients, patients, np.random.default_rng(0))
    assert (permuted[::2] == permuted[1::2]).all()
    assert sorted(permuted) == sorted(patients)
    assert (permuted != patients).any()


def test_a_score_or_label_that_is_infinite_is_refused():
    with pytest.raises(ValueError, match="1 scores are not finite"):
        _auroc(np.array([0, 1]), np.array([np.nan, 2]), np.array(["a", "b"]))
    with pytest.raises(ValueError, match=r"labels are 1, 0 or NaN, got \[inf\]"):
        _auroc(np.array([0, np.inf]), np.array([1, 2]), np.array(["a", "b"]))


def test_holm_equals_the_steps_done_by_hand():
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.005])), [0.06, 0.03, 0.06, 0.02])


def test_aurocs_by_pairs_of_images_have_the_bits_of_those_by_ranking():
    rng = np.random.default_rng(1)
    for levels in (4, 10_000):  # with ties, and without
        scores, labels = rng.integers(levels, size=200) / levels, (rng.random(200) < 0.05).astype(float)
        codes, counts = patient_counts(rng.integers(40, size=200), 300, 0)
        by_ranking = Ranking(labels, scores, codes).resample(counts)[0]
        np.testing.assert_array_equal(resample_aurocs(labels, scores, codes, counts), by_ranking)
    for one_class in (np.zeros(200), np.ones(200)):
        assert np.isnan(resample_aurocs(one_class, scores, codes, counts)).all()
    many = counts.astype(np.uint16) * 101  # more pairs than float32 counts
    by_ranking = Ranking(labels, scores, codes).resample(many)[0]
    np.testing.assert_array_equal(resample_aurocs(labels, scores, codes, many), by_ranking)
