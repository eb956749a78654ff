"""Patients seen in pretraining are refused, or counted where that is allowed."""

from __future__ import annotations

import numpy as np
import pytest

from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.workflows.seen import check_unseen

SEEN = frozenset(keyed_hash("key", name) for name in ("p1", "p7"))


def test_a_test_patient_seen_in_pretraining_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"pretraining saw 1 of the 2 patients .* first is 'p7'.*--allow_seen_patients"
    ):
        check_unseen(np.array(["p7", "p7", "p8"]), "key", SEEN)


def test_seen_patients_are_counted_where_allowed_and_nobody_is_seen_under_another_key():
    assert check_unseen(np.array(["p1", "p7", "p9"]), "key", SEEN, allowed=True) == 2
    assert check_unseen(np.array(["p1", "p7", "p9"]), "other", SEEN) == 0
