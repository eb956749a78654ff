"""Patients seen in pretraining are refused, or counted where that is allowed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from monai_simclr.bundles import CHEST_XRAY_SIMCLR

from monai_simclr.data import combine_indexes, open_index
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.networks import (
    PRETRAINED,
    encoder,
    encoder_file,
    encoder_header,
    load_pretrained,
    patients_records,
    save_encoder,
)
from monai_simclr.runtime.artefacts import DamagedFileError
from monai_simclr.workflows.seen import (
    check_classifier,
    check_encoder,
    check_unseen,
    encoder_records,
    inherited_patients,
    patients_header,
    record_patients,
)

SEEN = frozenset(keyed_hash("key", name) for name in ("p1", "p7"))


def test_a_test_patient_seen_in_pretraining_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"pretraining saw 1 of the 2 patients .* first is 'p7'.*--allow_seen_patients"
    ):
        check_unseen(np.array(["p7", "p7", "p8"]), "key", SEEN)


@pytest.mark.parametrize("name", ["p7 ", " p7", "p7\t"])
def test_blanks_around_an_id_hide_no_patient_that_was_seen(name):
    with pytest.raises(ValueError, match=r"pretraining saw 1 of the 1 patients .* first is 'p7'"):
        check_unseen(np.array([name]), "key", SEEN)


def test_seen_patients_are_counted_where_allowed_and_nobody_is_seen_under_another_key():
    assert check_unseen(np.array(["p1", "p7", "p9"]), "key", SEEN, allowed=True) == 2
    assert check_unseen(np.array(["p1", "p7", "p9"]), "other", SEEN) == 0


def test_a_number_of_an_nih_patient_seen_is_logged_as_it_may_be_of_another_archive(caplog):
    """Nor is it refused where the record has the number and the index NIH's name."""
    seen = frozenset(keyed_hash("key", name) for name in ("NIH-00013", "NIH-30805"))
    assert check_unseen(np.array(["13", "00013", "30805", "14", "p13", "²"]), "key", seen) == 0
    assert "3 of the 6 patients to be scored have the number of a patient of NIH ChestX-ray14" in caplog.text
    caplog.clear()
    assert check_unseen(np.array(["14", "NIH-13"]), "key", seen) == 0
    assert caplog.text == ""
    assert check_unseen(np.array(["NIH-00007", "NIH-00008"]), "key", frozenset({keyed_hash("key", "7")})) == 0
    assert "1 of the 2 patients to be scored have the number" in caplog.text


def test_the_installed_encoder_is_refused_the_nih_patients_that_it_has_seen(caplog, nih_metadata):
    everyone = open_index(nih_metadata, check=False)["patient_id"]
    with pytest.raises(ValueError, match="pretraining saw 2133 of the 30805 patients to be scored"):
        check_encoder(encoder_file("chest_xray_resnet18"), everyone)
    assert check_encoder(encoder_file("chest_xray_resnet18"), everyone, allowed=True) == 2133
    numbers = everyone.str.removeprefix("NIH-").unique()
    assert check_encoder(encoder_file("chest_xray_resnet18"), numbers) == 0
    assert "2133 of the 30805 patients to be scored have the number" in caplog.text


def test_phantoms_are_nobodys_patients(tmp_path):
    """Although they come in NIH's layout, with small numbers."""
    index = open_index(write_nih_phantoms(tmp_path / "nih", n_patients=40, size=64))
    assert check_encoder(encoder_file("chest_xray_resnet18"), index["patient_id"].to_numpy()) == 0


def test_nihs_patients_keep_their_names_beside_another_archive():
    one, other = (pd.DataFrame({"image": [f"{name}{k}.png" for k in range(2)]}) for name in "ab")
    blank = {"study_id": "", "view_position": "", "sex": "", "age": np.nan, "split": ""}
    one, other = one.assign(patient_id=["NIH-00013", "13"], **blank), other.assign(patient_id=["13", "14"], **blank)
    both = combine_indexes({"nih": one, "hospital": other})
    assert both["patient_id"].tolist() == ["NIH-00013", "nih:13", "hospital:13", "hospital:14"]


def test_images_without_a_patients_name_are_counted_in_the_record_and_said_when_others_are_scored(tmp_path, caplog):
    network = encoder("resnet10", 0.125)
    image = ["/a/one/x.png", "/a/one/y.png", "/a/two/z.dcm", "/a/two/1.png"]
    seen = pd.DataFrame({"image": image, "patient_id": ["one/x.png", "own:y.png", "file:z", "p1"]})
    header = {"name": "resnet10", "width": "0.125", **patients_header(network, seen)}
    first = save_encoder(tmp_path / "first.safetensors", network, header)
    assert header["unnamed_images"] == "3"
    later = patients_header(network, seen.iloc[3:])
    assert "unnamed_images" not in later
    later |= {"name": "resnet10", "width": "0.125", "patients_before": inherited_patients(first)}
    second = save_encoder(tmp_path / "second.safetensors", network, later)
    classifier = tmp_path / "model.pt"
    classifier.write_bytes(b"weights")
    record_patients(classifier, np.array(["p2"]), encoder_records(second))
    for check, path in ((check_encoder, first), (check_encoder, second), (check_classifier, classifier)):
        caplog.clear()
        assert check(path, np.array(["p3"])) == 0
        assert (
            "training saw 3 images without a patient's name: if the images to be scored are of the same" in caplog.text
        )


@pytest.mark.parametrize("name", ["encoder", "encoder.pt", "encoder.weights", "encoder.SAFETENSORS"])
@pytest.mark.parametrize("looks_like_a_pickle", [False, True])
def test_the_record_of_an_encoder_counts_whatever_its_file_is_called(tmp_path, name, looks_like_a_pickle):
    """Also where the length of its header begins with the byte that a pickle begins with."""
    network, seen = encoder("resnet10", 0.125), pd.DataFrame({"image": ["a.png"], "patient_id": ["p1"]})
    header = {"name": "resnet10", "width": "0.125", **patients_header(network, seen)}
    for filler in range(0, 400, 8):
        path = save_encoder(tmp_path / name, network, {**header, "filler": "x" * filler})
        if (path.read_bytes()[0] == 0x80) == looks_like_a_pickle:
            break
    else:
        pytest.fail("no such header was made")
    with pytest.raises(ValueError, match="pretraining saw 1 of the 2 patients to be scored, the first is 'p1'"):
        check_encoder(path, np.array(["p1", "p2"]))
    assert keyed_hash(header["patients_key"], "p1") in inherited_patients(path)
    (tmp_path / "model").write_bytes(b"weights")
    record_patients(tmp_path / "model", np.array(["p3"]), encoder_records(path))
    assert check_classifier(tmp_path / "model", np.array(["p1", "p2"]), allowed=True) == 1
    later = load_pretrained(encoder("resnet10", 0.125), path).state_dict()
    assert all(torch.equal(later[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("zipped", [False, True])
def test_a_state_dict_has_no_record_even_if_it_is_called_safetensors(tmp_path, zipped, caplog):
    path = tmp_path / "encoder.safetensors"
    torch.save(encoder("resnet10", 0.125).state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert check_encoder(path, np.array(["p1"])) == 0
    assert "encoder.safetensors has no record of the patients seen" in caplog.text


def test_a_file_that_is_neither_is_refused_and_not_taken_for_one_without_a_record(tmp_path):
    (tmp_path / "encoder.pt").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(DamagedFileError, match=r"encoder\.pt cannot be read as an encoder of monai-simclr"):
        check_encoder(tmp_path / "encoder.pt", np.array(["p1"]))
    with pytest.raises(FileNotFoundError, match=r"no encoder at .*absent\.pt"):
        check_encoder(tmp_path / "absent.pt", np.array(["p1"]))


def test_the_installed_encoder_says_that_half_of_its_images_have_no_patient(caplog):
    record = patients_records(encoder_header(PRETRAINED["chest_xray_resnet18"]))[0]
    assert (len(record.hashes) - record.unnamed, record.unnamed) == (2709, 7647)
    check_classifier(CHEST_XRAY_SIMCLR / "models" / "model.pt", np.array(["p1"]))
    assert "training saw 7647 images without a patient's name" in caplog.text


@pytest.mark.parametrize("count", ["-1", "2", '"1"', "1.5"])
def test_a_count_of_unnamed_images_that_cannot_be_is_a_damaged_record(count):
    with pytest.raises(ValueError, match="not a number of the 1 hashes"):
        patients_records({"patients_key": "k", "patients_seen": '["a"]', "unnamed_images": count})
