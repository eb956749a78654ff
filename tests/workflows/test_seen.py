"""Patients seen in pretraining are refused, or counted where that is allowed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.networks import encoder_file
from monai_simclr.workflows.seen import check_encoder, check_unseen

SEEN = frozenset(keyed_hash("key", name) for name in ("p1", "p7"))


def test_a_test_patient_seen_in_pretraining_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"pretraining saw 1 of the 2 patients .* first is 'p7'.*--allow_seen_patients"
    ):
        check_unseen(np.array(["p7", "p7", "p8"]), "key", SEEN)


def test_seen_patients_are_counted_where_allowed_and_nobody_is_seen_under_another_key():
    assert check_unseen(np.array(["p1", "p7", "p9"]), "key", SEEN, allowed=True) == 2
    assert check_unseen(np.array(["p1", "p7", "p9"]), "other", SEEN) == 0


def test_a_number_of_an_nih_patient_seen_is_logged_as_it_may_be_of_another_archive(caplog):
    seen = frozenset(keyed_hash("key", name) for name in ("NIH-00013", "NIH-30805"))
    assert check_unseen(np.array(["13", "00013", "30805", "14", "p13", "²"]), "key", seen) == 0
    assert "3 of the 6 patients to be scored have the number of a patient of NIH ChestX-ray14" in caplog.text
    caplog.clear()
    assert check_unseen(np.array(["14", "NIH-13"]), "key", seen) == 0
    assert caplog.text == ""


def test_the_installed_encoder_knows_the_numbers_of_its_nih_patients(caplog, nih_metadata):
    table = pd.read_csv(nih_metadata / "Data_Entry_2017_v2020.csv.gz", dtype=str)
    everyone = table["Patient ID"].unique()
    assert check_encoder(encoder_file("chest_xray_resnet18"), everyone) == 0
    assert "2133 of the 30805 patients to be scored have the number" in caplog.text
