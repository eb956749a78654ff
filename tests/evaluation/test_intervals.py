"""Intervals, nulls and adjusted p-values against scikit-learn, slow loops and simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, kstest
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_simclr.evaluation import Interval, holm, score_findings
from monai_simclr.evaluation.intervals import (
    FEWEST_UNITS,
    Ranking,
    bootstrap_interval,
    effective_units,
    interval_over_draws,
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


def test_fewer_than_five_patients_of_a_class_have_no_interval():
    drawn = np.random.default_rng(0).normal(size=1000)
    assert np.isnan(bootstrap_interval(0.0, drawn, units=FEWEST_UNITS - 1).low)
    assert np.isfinite(bootstrap_interval(0.0, drawn, units=FEWEST_UNITS).low)


@pytest.mark.parametrize("positives", [5, 20])
def test_a_perfect_ranking_has_the_exact_lower_bound_of_a_share_and_a_difference_of_nothing_has_none(positives):
    labels = np.r_[np.ones(positives), np.zeros(100)]
    interval = _auroc(labels, labels, np.arange(len(labels)))
    exact = binomtest(positives, positives).proportion_ci(0.95, method="exact")
    assert interval == (1.0, pytest.approx(exact.low, abs=1e-5), 1.0)
    assert bootstrap_interval(0.0, np.zeros(50), units=positives, share=True).high == pytest.approx(1 - exact.low, 1e-4)
    assert bootstrap_interval(0.0, np.zeros(50), units=positives) == (0.0, 0.0, 0.0)


def _rare(seed: int, positives: int = 5, findings: int = 1) -> tuple[float, bool, bool]:
    """Half-width of the macro interval of findings that few of 150 patients have, and what covers the truth."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.permutation(np.arange(150) < positives) for _ in range(findings)], axis=1).astype(float)
    table = score_findings(
        labels, labels + rng.normal(size=labels.shape), np.arange(150), list("abcdef")[:findings], 400, seed
    )
    truth = 0.760  # Phi(1 / sqrt(2))
    inside = [bool(row["low"] <= truth <= row["high"]) for _, row in table.iterrows()]
    return table["high"].iloc[-1] - table["low"].iloc[-1], inside[0], inside[-1]


def test_the_macro_mean_of_one_finding_has_the_interval_of_the_finding():
    labels, scores, patients = _data(4)
    table = score_findings(labels[:, None], scores[:, None], patients, ["Mass"], 200)
    columns = ["auroc", "low", "high", "auprc", "auprc_low", "auprc_high"]
    assert table[columns].iloc[0].tolist() == table[columns].iloc[1].tolist()


@pytest.mark.slow
def test_macro_means_of_rare_findings_cover_the_true_value_in_9_of_10():
    for findings in (1, 3):
        results = np.array([_rare(seed, 5, findings) for seed in range(300)])
        assert results[:, 2].mean() >= 0.88, findings


def test_the_macro_mean_leaves_out_a_finding_that_resamples_may_lack():
    rng = np.random.default_rng(0)
    labels = np.stack([np.arange(100) < 40, np.arange(100) < 1], axis=1).astype(float)
    scores = labels + rng.normal(size=labels.shape)
    table = score_findings(labels, scores, np.arange(100), ["Mass", "Hernia"], 100).set_index("finding")
    assert table.loc["macro mean", "auroc"] == table.loc["Mass", "auroc"]
    assert np.isfinite(table.loc["Hernia", "auroc"])
    assert np.isnan(table.loc["Hernia", "low"])


def test_the_units_of_a_mean_are_those_of_the_rare_one_where_it_alone_varies_and_the_sum_where_all_do():
    spread = np.random.default_rng(0).normal(size=(2, 5000))
    assert effective_units(spread * [[0.001], [1]], [500, 8]) == pytest.approx(8, abs=0.1)
    assert effective_units(spread, [20, 20]) == pytest.approx(39, abs=0.5)
    assert effective_units(np.full((2, 3), np.nan), [0, 1]) == 1


def _over_draws(draws: int, spread: float, patients: float, sets: int = 2000) -> float:
    """How often an interval over draws covers 0, where draws and patients are normal with these deviations."""
    inside = 0
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        shift = rng.normal(0, patients, 201)
        gaps = rng.normal(0, spread, draws)[:, None] + shift[0] + np.r_[0, shift[1:]]
        (_, low, high), p = interval_over_draws(gaps, units=200)
        assert (p < 0.05) == (not low <= 0 <= high)
        inside += low <= 0 <= high
    return inside / sets


@pytest.mark.parametrize(("draws", "spread", "patients"), [(2, 0.03, 0.002), (3, 0.03, 0.002), (3, 0.013, 0.009)])
def test_intervals_over_two_or_three_draws_cover_the_true_value_whatever_varies_most(draws, spread, patients):
    """Percentiles of resampled draws covered it in 65 and 84 % of the first two; two stay short of 95."""
    assert (0.9 if draws == 2 else 0.93) <= _over_draws(draws, spread, patients) <= 0.99


def test_one_draw_has_no_interval_over_draws():
    (value, low, high), p = interval_over_draws(np.random.default_rng(0).normal(1, 0.1, (1, 101)), units=100)
    assert np.isfinite(value)
    assert np.isnan([low, high, p]).all()


def test_a_null_that_is_not_known_has_no_p_value():
    assert np.isnan(p_value(0.5, np.full(20, np.nan)))
    assert p_value(0.5, np.array([np.nan, 0.4])) == 0.5


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
