"""Second views from another film of the same patient."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from monai_simclr.data.partners import Partners

INDEX = pd.DataFrame(
    {
        "patient_id": ["a", "b", "a", "a", "", "", "c", "c"],
        "study_id": ["1", "1", "1", "2", "", "", "", ""],
        "view_position": ["PA", "PA", "AP", "PA", "PA", "PA", "", ""],
    }
)
POSSIBLE = {
    "patient": {0: {2, 3}, 1: {1}, 2: {0, 3}, 3: {0, 2}, 4: {4}, 5: {5}, 6: {7}, 7: {6}},
    "study": {0: {2}, 1: {1}, 2: {0}, 3: {3}, 4: {4}, 5: {5}, 6: {6}, 7: {7}},
    "view_position": {0: {3}, 1: {1}, 2: {2}, 3: {0}, 4: {4}, 5: {5}, 6: {6}, 7: {7}},
}


@pytest.mark.parametrize("second_view", POSSIBLE)
def test_a_partner_is_another_film_of_the_group_or_the_film_itself_where_it_is_alone(second_view):
    partners = Partners(INDEX, second_view)
    drawn = [partners.draw(np.arange(8), np.full(8, u)) for u in np.linspace(0, 1, 50, endpoint=False)]
    assert {i: {int(d[i]) for d in drawn} for i in range(8)} == POSSIBLE[second_view]


def test_partners_are_drawn_uniformly():
    index = pd.DataFrame({"patient_id": ["a"] * 5})
    u = np.random.default_rng(0).random(20_000)
    drawn = Partners(index, "patient").draw(np.full(len(u), 2), u)
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / len(u), [0.25, 0.25, 0, 0.25, 0.25], atol=0.02)


def test_an_unknown_second_view_names_the_known_ones():
    with pytest.raises(ValueError, match=r"one of image, patient, study, view_position, got 'laterality'"):
        Partners(INDEX, "laterality")
