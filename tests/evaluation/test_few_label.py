"""Paired tests between arms, power laws and label savings, on curves whose true values are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

from monai_simclr.evaluation import (
    Curve,
    ResampledRuns,
    arm_curves,
    compare_arms,
    curve_laws,
    few_label_gain,
    fit_power_law,
    label_saving,
    labels_needed,
    unstated_saving,
)
from monai_simclr.evaluation.few_label import PowerLaw
from monai_simclr.evaluation.intervals import Ranking, patient_counts


def _runs(seed: int, gain: dict[str, list[float]], patients: int = 60, draws: int = 3) -> list[dict]:
    rng = np.random.default_rng(seed)
    names = np.repeat(np.arange(patients), 2)
    labels = rng.integers(2, size=patients)[names][:, None].astype(float)
    person = rng.normal(size=(patients, 1))[names]
    return [
        {
            "arm": arm,
            "draw": draw,
            "fraction": fraction,
            "labels": labels,
            "patients": names,
            "scores": strength * labels + person + rng.normal(size=labels.shape) / 2,
        }
        for arm, strengths in gain.items()
        for fraction, strength in zip((0.01, 0.1, 1.0), strengths, strict=True)
        for draw in range(draws)
    ]


def test_an_arm_that_is_better_is_found_and_one_that_is_the_same_is_not():
    better = compare_arms(_runs(0, {"scratch": [0.3] * 3, "finetuned": [1.5] * 3}), "scratch", 300)
    rows = better[better["arm"] == "finetuned"]
    assert (rows["low"] > 0).all()
    assert (rows["p_holm"] < 0.05).all()
    same = compare_arms(_runs(1, {"scratch": [1.0] * 3, "finetuned": [1.0] * 3}), "scratch", 300)
    assert (same.loc[same["arm"] == "finetuned", "p_holm"] > 0.05).all()


def test_holm_is_never_below_the_single_p_value():
    table = compare_arms(_runs(2, {"scratch": [0.5] * 3, "a": [0.8] * 3, "b": [0.6] * 3}), "scratch", 200)
    known = table.dropna(subset=["p"])
    assert (known["p_holm"] >= known["p"]).all()


@pytest.mark.slow
def test_paired_differences_of_500_data_sets_cover_the_true_value_give_or_take_2():
    inside = 0
    for seed in range(500):
        table = compare_arms(
            _runs(seed, {"scratch": [1.0] * 3, "same": [1.0] * 3}, patients=80, draws=1), "scratch", 300
        )
        row = table[(table["arm"] == "same") & (table["fraction"] == 0.1)].iloc[0]
        inside += row["low"] <= 0 <= row["high"]
    assert 0.93 <= inside / 500 <= 0.97


def test_the_few_label_gain_is_the_mean_of_the_differences_at_the_small_fractions():
    runs = _runs(3, {"scratch": [0.3, 0.5, 1.0], "finetuned": [0.9, 0.9, 0.0]})
    table = compare_arms(runs, "scratch", 200).set_index(["arm", "fraction"])["difference"]
    gain = few_label_gain(runs, "scratch", 0.1, 200).set_index("arm").loc["finetuned"]
    assert gain["fractions"] == "1, 10"
    assert gain["difference"] == pytest.approx((table["finetuned", 0.01] + table["finetuned", 0.1]) / 2)
    assert gain["low"] < gain["difference"] < gain["high"]
    assert gain["low_draws"] <= gain["low"]
    assert few_label_gain(runs, "scratch", 0.001).empty


def test_the_few_label_gain_counts_a_draw_only_where_it_has_every_fraction():
    runs = _runs(4, {"scratch": [0.3, 0.5, 1.0], "finetuned": [0.9, 0.9, 0.9]})
    whole = few_label_gain([run for run in runs if run["draw"] != 2], "scratch", 0.1, 50)
    without = [run for run in runs if (run["arm"], run["fraction"], run["draw"]) != ("finetuned", 0.01, 2)]
    gain = few_label_gain(without, "scratch", 0.1, 50)
    assert gain["draws"].tolist() == [2]
    assert gain["difference"].tolist() == whole["difference"].tolist()


@pytest.mark.slow
def test_few_label_gains_of_500_data_sets_cover_the_true_value_give_or_take_2():
    inside = 0
    for seed in range(500):
        runs = _runs(seed, {"scratch": [1.0] * 3, "same": [1.0] * 3}, patients=80, draws=1)
        row = few_label_gain(runs, "scratch", 0.1, 300).iloc[0]
        inside += row["low"] <= 0 <= row["high"]
    assert 0.93 <= inside / 500 <= 0.97


def test_a_power_law_is_found_again_from_its_own_points():
    n = np.array([4.0, 16.0, 64.0, 256.0, 1024.0])
    law = PowerLaw(0.92, 0.35, 0.4)
    fitted = fit_power_law(n, law.alpha - law.beta * n**-law.gamma)
    np.testing.assert_allclose(fitted, law, atol=1e-3)
    assert fitted.needed(0.8) == pytest.approx(law.needed(0.8), rel=0.01)
    assert fit_power_law(n[:3], np.array([0.6, 0.7, 0.8])) is None


def test_no_other_power_law_within_the_bounds_fits_better():
    rng = np.random.default_rng(0)
    bounds = np.array([[0.5, 0, 0.05], [1, 1, 2]])
    for points in (4, 6, 11) * 5:
        n = np.sort(rng.integers(2, 3000, points)).astype(float)
        alpha, beta, gamma = rng.uniform(*bounds)
        y = (alpha - beta * n**-gamma + rng.normal(0, 0.01, points)).clip(0.3, 1)
        fitted = fit_power_law(n, y)
        assert (fitted >= bounds[0]).all()
        assert (fitted <= bounds[1]).all()

        def gaps(law, n=n, y=y):
            return law[0] - law[1] * n ** -law[2] - y

        others = [least_squares(gaps, rng.uniform(*bounds), bounds=bounds).cost for _ in range(3)]
        assert (gaps(fitted) ** 2).sum() / 2 <= min(others) + 1e-9


def test_resamples_without_an_auroc_keep_their_other_fractions():
    curve = Curve(np.array([0.01, 0.05, 0.1, 0.5, 1.0]), np.array([[np.nan, 0.6, 0.7, 0.74, 0.75]] * 3))
    known = Curve(curve.fractions[1:], curve.aurocs[:, 1:])
    np.testing.assert_allclose(curve_laws(curve, 1000), curve_laws(known, 1000))
    assert curve_laws(Curve(curve.fractions[:4], curve.aurocs[:, :4]), 1000) == []


def test_labels_beyond_the_plateau_are_never_enough():
    curve = Curve(np.array([0.01, 0.1, 0.5, 1.0]), np.array([[0.6, 0.7, 0.74, 0.75]] * 20))
    laws = curve_laws(curve, 1000, refits=5)
    assert labels_needed(laws, 0.99).value == np.inf
    assert labels_needed(laws, 0.7).value == pytest.approx(100, rel=0.2)


def test_no_label_saving_is_stated_against_a_reference_at_chance():
    curves = arm_curves(_runs(3, {"scratch": [0.0, 0.0, 0.0], "good": [0.8, 1.5, 2.0]}), 200)
    saved = label_saving(curves["good"], curves["scratch"])
    assert np.isnan([saved.value, saved.low, saved.high]).all()
    assert unstated_saving(curves["scratch"]).startswith("the reference is not above chance with its most labels, AU")
    assert unstated_saving(curves["good"]) == ""
    unknown = Curve(np.array([0.1, 1.0]), np.full((20, 2), np.nan))
    assert unstated_saving(unknown) == "the reference's AUROC is not known"
    assert np.isnan(label_saving(curves["good"], unknown).value)  # it was "not reached"


def test_the_label_saving_is_where_the_curve_crosses_and_says_when_it_never_does():
    curves = arm_curves(_runs(3, {"scratch": [0.1, 0.5, 1.0], "good": [0.8, 1.5, 2.0], "bad": [0.0, 0.1, 0.2]}), 200)
    saved = label_saving(curves["good"], curves["scratch"])
    assert 0.01 <= saved.low <= saved.value <= saved.high < 0.5
    lost = label_saving(curves["bad"], curves["scratch"])
    assert lost.value == lost.high == np.inf


def test_one_set_of_resamples_gives_what_each_comparison_makes_alone():
    rng = np.random.default_rng(4)
    labels = rng.integers(2, size=(60, 3)).astype(float)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    test = {"labels": labels, "patients": rng.integers(25, size=60).astype(str)}
    runs = [
        {"arm": arm, "fraction": f, "draw": d, "scores": np.nan_to_num(labels) + rng.normal(size=(60, 3)), **test}
        for arm in ("scratch", "a", "b")
        for f in (0.05, 0.1, 1.0)
        for d in range(2)
    ]
    resampled = ResampledRuns(runs, 80)
    for compare in (compare_arms, few_label_gain):
        pd.testing.assert_frame_equal(compare(resampled, "scratch"), compare(runs, "scratch", n_bootstrap=80))
    for name, curve in arm_curves(resampled).items():
        np.testing.assert_array_equal(curve.aurocs, arm_curves(runs, 80)[name].aurocs)
    some = [run for run in runs if run["arm"] != "b"]
    keys = [(run["fraction"], run["arm"], run["draw"]) for run in some]
    for k in range(3):
        of_finding = [{**run, "scores": run["scores"][:, k : k + 1], "labels": labels[:, k : k + 1]} for run in some]
        part = resampled.part(keys, k)
        pd.testing.assert_frame_equal(compare_arms(part, "scratch"), compare_arms(of_finding, "scratch", 80))
    codes, counts = patient_counts(test["patients"], 80, 0)
    for run in runs:  # as every comparison computed it before
        alone = [
            Ranking(labels[known, k], run["scores"][known, k], codes[known]).resample(counts)[0]
            for k, known in enumerate(np.isfinite(labels).T)
        ]
        own = resampled.aurocs[run["fraction"], run["arm"], run["draw"]]
        np.testing.assert_allclose(own[1:], np.nanmean(alone, axis=0), rtol=1e-14)


def test_a_resample_without_a_positive_patient_does_not_deny_a_good_reference():
    aurocs = np.array([[0.7, 0.9]] * 50)
    aurocs[7] = np.nan
    reference, arm = Curve(np.array([0.1, 1.0]), aurocs), Curve(np.array([0.1, 1.0]), aurocs + [0.1, 0.0])
    assert unstated_saving(reference) == ""
    saving = label_saving(arm, reference)
    assert np.isfinite([saving.value, saving.low, saving.high]).all()


def test_a_dip_of_the_curve_is_not_taken_for_a_level_that_was_reached():
    scratch = Curve(np.array([0.01, 0.1, 1.0]), np.array([[0.5, 0.6, 0.7]] * 5))
    bumpy = Curve(scratch.fractions, np.array([[0.71, 0.65, 0.75]] * 5))
    assert label_saving(bumpy, scratch).value == pytest.approx(10**-0.714, rel=0.01)  # 0.68, 0.68, 0.75


def test_curves_vary_with_the_draws_by_their_standard_error():
    runs = _runs(5, {"scratch": [0.5] * 3, "same": [0.5] * 3}, draws=3)
    resampled = ResampledRuns(runs, 4000)
    curve = arm_curves(resampled)["same"]
    draws = np.array([resampled.aurocs[0.1, "same", draw] for draw in range(3)])
    expected = np.sqrt(draws.mean(axis=0)[1:].var() + draws[:, 0].var(ddof=1) / 3)
    assert curve.aurocs[0, 1] == draws[:, 0].mean()
    assert curve.aurocs[1:, 1].std() == pytest.approx(expected, rel=0.1)


def test_of_equal_arms_few_are_said_to_save_labels():
    """With the draws fixed a saving was claimed in a fifth of such simulations; nominal are 2.5 %."""
    fractions, claims = (0.01, 0.02, 0.05, 0.1, 0.25, 1.0), 0
    levels, spread = (0.7, 0.75, 0.79, 0.8, 0.805, 0.808), (0.03, 0.03, 0.025, 0.015, 0.012, 0.008)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        curves = {}
        for arm in ("own", "reference"):
            noise = 0.017 * np.vstack([np.zeros(6), rng.normal(size=(300, 6))])
            mean = levels + rng.normal(size=6) * 0.017 + rng.normal(0, spread) / np.sqrt(2)
            draws = rng.normal(0, 1, (301, 6)) * spread / np.sqrt(2)
            draws[0] = 0
            curves[arm] = Curve(np.array(fractions), mean + noise + draws)
        claims += label_saving(curves["own"], curves["reference"]).high < 1
    assert claims <= 6  # 5 % of 400
