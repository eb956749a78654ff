"""Few labels: every prefix of a draw has each finding, and patients with many findings, at their share."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pandas as pd
import pytest

from monai_simclr.data import label_fraction
from monai_simclr.data.findings import NIH14
from monai_simclr.data.sources.nih import read_nih


def _long_tailed(n=4000, findings=9, seed=0):
    """Findings of 40 % down to 0.5 % of the patients, often together: dozens of patients are alone in their pattern."""
    rng = np.random.default_rng(seed)
    illness = rng.normal(size=(n, 1))
    prevalence = np.geomspace(0.4, 0.005, findings)
    liability = 0.75 * illness + 0.66 * rng.normal(size=(n, findings))
    labels = (liability > np.quantile(liability, 1 - prevalence, axis=0).diagonal()).astype(float)
    return pd.DataFrame(
        {
            "image": [f"/x/{i}.png" for i in range(n)],
            "patient_id": [f"p{i:05d}" for i in range(n)],
            "study_id": "",
            "view_position": "PA",
            "sex": "F",
            "age": 60.0,
            "split": "train",
        }
    ).assign(**{f"F{k}": labels[:, k] for k in range(findings)})


def _by_patient(index, names):
    positive = index[index["split"] == "train"].groupby("patient_id")[names].max() == 1
    counts = positive.sum(axis=1)
    alone = positive.groupby(names)[names[0]].transform("size") == 1
    return positive.assign(many=counts >= 4, alone=alone)


def _shares(index, names, fraction, draws):
    """What a draw holds of each finding (and of those with four or more), over what it should: mean of the draws."""
    whole = _by_patient(index, names)
    ids = [index["patient_id"].iloc[label_fraction(index, fraction, draw, names)].unique() for draw in draws]
    return np.mean([whole.loc[chosen].sum() / (len(chosen) / len(whole) * whole.sum()) for chosen in ids], axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("draws", [range(5), range(100, 105)])
def test_every_nih_finding_and_the_many_are_within_a_tenth_of_their_share(nih_metadata, draws):
    index, names = read_nih(nih_metadata), list(NIH14)
    assert index["patient_id"].nunique() == 30_805
    index["split"] = index["split"].replace({"val": "train"})
    started = time.process_time()
    label_fraction(index, 0.01, 0, names)
    assert time.process_time() - started < 10
    for fraction in (0.01, 0.05, 0.1, 0.25):
        shares = _shares(index, names, fraction, draws)[:-1]
        assert (shares >= 0.9).all(), (fraction, shares)
        assert (shares <= 1.1).all(), (fraction, shares)


def test_a_long_tail_of_findings_is_at_its_share_in_every_small_fraction():
    index = _long_tailed()
    names = [f"F{k}" for k in range(9)]
    assert _by_patient(index, names)["alone"].sum() >= 40
    for fraction in (0.05, 0.1, 0.25):  # 5 % holds 1 of the 20 positives of the rarest finding
        shares = _shares(index, names, fraction, range(5))[:-1]
        np.testing.assert_allclose(shares, 1, atol=0.1)


def test_patients_alone_in_their_pattern_are_drawn_as_often_as_others():
    index = _long_tailed(1500)
    names = [f"F{k}" for k in range(9)]
    assert 0.8 < _shares(index, names, 0.1, range(20))[-1] < 1.2


@pytest.mark.parametrize("seed", range(3))
def test_each_finding_has_a_positive_and_a_negative_if_they_fit(seed):
    index, names = _long_tailed(1500), [f"F{k}" for k in range(9)]
    chosen = label_fraction(index, 10 / 1500, seed, names)
    assert (index[names].iloc[chosen].max() == 1).all()
    assert (index[names].iloc[chosen].min() == 0).all()


def test_a_draw_is_the_same_whatever_the_order_of_the_rows_and_another_for_every_seed():
    index = _long_tailed(600)
    mixed = index.sample(frac=1, random_state=0)
    ids = [set(table["patient_id"].iloc[label_fraction(table, 0.1, 3)]) for table in (index, mixed)]
    assert ids[0] == ids[1]
    assert ids[0] != set(index["patient_id"].iloc[label_fraction(index, 0.1, 4)])


def test_fractions_of_a_long_tail_are_nested():
    index = _long_tailed(600)
    drawn = [set(label_fraction(index, fraction, 7)) for fraction in (0.02, 0.05, 0.1, 0.25, 1)]
    assert all(small < large for small, large in itertools.pairwise(drawn))


def test_archives_that_know_different_findings_are_at_their_share():
    index, names = _long_tailed(2000), [f"F{k}" for k in range(9)]
    other = np.arange(2000) % 4 == 0
    index.loc[other, names[:4]] = np.nan
    for draw in range(5):
        rows = label_fraction(index, 0.1, draw, names)
        assert 45 <= other[rows].sum() <= 55
