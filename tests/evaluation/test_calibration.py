"""Thresholds and temperatures of validation sets of every kind: small, separated, saturated, hopeless."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

from monai_simclr.evaluation import (
    Embeddings,
    Predictions,
    find_label_errors,
    score_findings,
    score_table,
    similar_images,
)
from monai_simclr.evaluation.calibration import TEMPERATURES, choose_thresholds, fit_temperature, is_at_bound
from monai_simclr.evaluation.predictions import sigmoid


def _ordinary(seed: int, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.2).astype(float)
    return labels, (1.5 * labels - 2 + 1.2 * rng.normal(size=n)).astype(np.float32)


def _least_cross_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature without a prior."""

    def entropy(place: float) -> float:
        scaled = logits / np.exp(place)
        return float(np.mean(np.logaddexp(0, scaled) - labels * scaled))

    return float(np.exp(minimize_scalar(entropy, bounds=(np.log(0.01), np.log(100)), method="bounded").x))


def test_a_threshold_decides_as_its_lowest_called_score_and_survives_rounding():
    rng = np.random.default_rng(0)
    for seed in range(200):
        labels, logits = _ordinary(seed)
        for threshold in choose_thresholds(labels, logits):
            called = logits >= threshold
            assert threshold == np.float32(threshold)
            elsewhere = logits * (1 + 1e-6 * rng.choice([-1, 1], size=len(logits)))  # another batch, another runtime
            lowest = int(np.argmin(np.where(called, logits, np.inf)))
            assert elsewhere[lowest] >= threshold
            assert logits[lowest] - threshold <= 1e-3 * logits.std() * 1.01


def test_a_threshold_between_neighbours_in_float32_still_separates_them():
    low, high = np.float32(-3.0), np.nextafter(np.float32(-3.0), np.float32(0))
    labels, logits = np.array([0.0] * 20 + [1.0] * 5), np.r_[np.full(20, low), np.full(5, high)]
    (at90, *_) = choose_thresholds(labels, logits)
    assert [bool(low >= at90), bool(high >= at90)] == [False, True]


@pytest.mark.parametrize("positives", [1, 3, 10])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 1000.0])
def test_separated_labels_do_not_drive_the_temperature_to_its_bound(positives, scale):
    rng = np.random.default_rng(positives)
    labels = np.r_[np.ones(positives), np.zeros(30 - positives)]
    logits = scale * (2 * labels - 1 + 0.1 * rng.normal(size=30))
    found = fit_temperature(labels, logits)
    assert not is_at_bound(found)
    assert sigmoid(scale / np.array(found)) < 0.999 or found > 0.5  # thirty images do not prove more than that
    if scale >= 10:  # the labels are explained already: nothing speaks for another temperature than 1
        assert found == pytest.approx(1.0, abs=0.05)


def test_few_positives_leave_the_temperature_nearer_to_1_than_many():
    rng = np.random.default_rng(3)
    found = {}
    for n in (30, 300, 30_000):
        fits = []
        for _ in range(20):
            calibrated = rng.normal(-2, 2, n)
            labels = (rng.random(n) < sigmoid(calibrated)).astype(float)
            fits.append(fit_temperature(labels, 4 * calibrated))
        found[n] = float(np.exp(np.nanmean(np.log(fits))))
    assert 1 < found[30] < 0.95 * found[300]
    assert found[300] == pytest.approx(4.0, rel=0.1)
    assert found[30_000] == pytest.approx(4.0, rel=0.03)


@pytest.mark.parametrize("n", [30, 120, 600])
def test_probabilities_of_new_patients_are_not_worse_than_without_the_prior(n):
    rng = np.random.default_rng(n)
    new = rng.normal(-2, 2, 4000)
    probabilities, losses = sigmoid(new), []
    for true in np.exp(rng.normal(0, 1, 150)):
        calibrated = rng.normal(-2, 2, n)
        labels = (rng.random(n) < sigmoid(calibrated)).astype(float)
        if 0 < labels.sum() < n:
            scaled = [new * true / fit(labels, calibrated * true) for fit in (fit_temperature, _least_cross_entropy)]
            losses.append([np.mean(np.logaddexp(0, z) - probabilities * z) for z in scaled])
    with_prior, without = np.mean(losses, axis=0)
    assert with_prior <= without + 1e-6


def test_the_temperature_of_an_overconfident_wrong_model_is_at_its_bound():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=3000).astype(float)
    wrong = 10 * (1 - 2 * labels) + rng.normal(size=3000)  # even chances for all would be best: T without end
    found = fit_temperature(labels, wrong)
    assert is_at_bound(found)
    assert found == pytest.approx(TEMPERATURES[1], rel=0.01)
    table = score_table(
        Predictions(labels[:1000, None], wrong[:1000, None], np.arange(1000), ["Mass"]),
        Predictions(labels[1000:, None], wrong[1000:, None], np.arange(1000, 3000), ["Mass"]),
        n_bootstrap=5,
    )
    assert table.loc[table["finding"] == "Mass", "temperature_at_bound"].all()


def test_saturated_logits_are_ranked_and_decided_as_if_they_were_not():
    labels, logits = _ordinary(5)
    far = logits.astype(float) * 100 + 5000  # every probability is 1.0
    assert (sigmoid(far) == 1).all()
    plain, saturated = (
        score_findings(labels[:, None], z[:, None], np.arange(len(z)), ["Mass"], 20) for z in (logits, far)
    )
    assert saturated.loc[0, "auroc"] == pytest.approx(plain.loc[0, "auroc"], abs=1e-12)
    cut, other = choose_thresholds(labels, logits)[0], choose_thresholds(labels, far)[0]
    np.testing.assert_array_equal(logits >= cut, far >= other)


def test_a_sigmoid_far_below_zero_is_not_zero():
    np.testing.assert_allclose(sigmoid(np.array([-40.0, -100.0])), np.exp([-40.0, -100.0]), rtol=1e-12)


def test_the_least_credible_label_comes_first_where_probabilities_are_all_0():
    rng = np.random.default_rng(0)
    mass = np.tile([0.0, 1.0], 100)
    features = rng.normal(size=(200, 2)) * 0.1 + mass[:, None] * 2000
    mass[[10, 20]] = 1.0  # both are wrong, the second one more so
    features[10], features[20] = -1e6, -2e6
    patients = [f"p{10 if i == 20 else i}" for i in range(200)]  # in one fold: neither widens the other's scale
    index = pd.DataFrame({"image": [str(i) for i in range(200)], "patient_id": patients})
    found = find_label_errors(Embeddings(features.astype(np.float32), index.assign(Mass=mass)), ["Mass"], n=2)
    assert list(found["image"]) == ["20", "10"]
    assert (found["probability"] == 0).all()
    assert list(found.columns) == ["image", "patient_id", "finding", "label", "probability"]


def test_alike_images_are_sorted_before_their_similarity_is_rounded():
    angles = np.array([0.0, 3e-4, 2e-4, 1e-4, 3.0])
    features = np.column_stack([np.cos(angles), np.sin(angles)])
    features -= features.mean(axis=0)
    index = pd.DataFrame({"image": list("abcde"), "patient_id": list("abcde")})
    found = similar_images(Embeddings(features.astype(np.float32), index), 0, n=3)
    assert list(found["image"]) == ["d", "c", "b"]
