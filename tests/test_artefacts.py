"""What our files carry and how they are read: equal bytes for equal content, damage named, old files still read."""

from __future__ import annotations

import json
import logging
import struct
from pathlib import Path

import numpy as np
import own_files
import pytest
import torch
from safetensors.torch import load_file, save_file

from monai_simclr.data import build_store, get_store, open_store
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.data.pseudonyms import hash_key
from monai_simclr.data.store import StoreOptions
from monai_simclr.evaluation import Embeddings
from monai_simclr.inference import Calibratedd, Journal, OperatingPoint, read_inference_config
from monai_simclr.networks import encoder_header, load_classifier, load_encoder, load_pretrained
from monai_simclr.runtime.artefacts import (
    DamagedFileError,
    read_arrays,
    read_json,
    reading,
    write_arrays,
    write_sealed_json,
)
from monai_simclr.runtime.exit_codes import exit_code

HEADER = {"name": "resnet10", "width": "0.125", **{f"key {n}": str(n) for n in range(20)}}


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_equal_encoders_leave_equal_bytes_whatever_the_order_of_their_headers(tmp_path):
    network = own_files._network().encoder
    for name, header in {"a": HEADER, "b": dict(reversed(HEADER.items()))}.items():
        own_files.save_encoder(tmp_path / name, network, header)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert load_file(tmp_path / "a")["conv1.weight"].equal(network.conv1.weight), "safetensors reads it too"


def test_equal_classifiers_leave_equal_bytes_which_torch_reads(tmp_path):
    for name in ("a", "b"):
        own_files.save_classifier(tmp_path / name, own_files._network())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(torch.load(tmp_path / "a", weights_only=True)) == list(own_files._network().state_dict())


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_one_flipped_bit_of_a_weight_is_detected(tmp_path, place):
    path = own_files.make_encoder(tmp_path)
    _flip(path, int(path.stat().st_size * place))
    with pytest.raises(
        DamagedFileError, match=r"encoder\.safetensors cannot be read .* does not fit its checksum.*copy"
    ):
        load_encoder(path)


def test_altered_embeddings_are_detected_even_if_the_archive_is_whole(tmp_path):
    path = own_files.make_embeddings(tmp_path)
    before = path.read_bytes()
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "checksum"}
    arrays["features"][0, 0] += 1e-3
    np.savez(path, **arrays)
    path.write_bytes(own_files._with_old_checksum(path.read_bytes(), before))
    with pytest.raises(DamagedFileError, match=r"embeddings\.npz cannot be read .* does not fit its checksum"):
        Embeddings.load(path)


def test_files_of_older_versions_without_a_checksum_are_read_with_a_warning(tmp_path, caplog):
    network = own_files._network()
    encoder = {name: value.contiguous() for name, value in network.encoder.state_dict().items()}
    save_file(encoder, tmp_path / "old.safetensors", metadata={"name": "resnet10", "width": "0.125"})
    torch.save(network.state_dict(), tmp_path / "old.pt")
    assert torch.equal(load_encoder(tmp_path / "old.safetensors").conv1.weight, network.encoder.conv1.weight)
    load_classifier(own_files._network(), tmp_path / "old.pt")
    for name in ("old.safetensors", "old.pt"):
        assert f"{name} has no checksum, as older versions left it" in caplog.text
    np.savez(tmp_path / "old.npz", a=np.arange(3))
    assert read_arrays(tmp_path / "old.npz", "arrays", "do", ["a"])["a"].tolist() == [0, 1, 2]
    (tmp_path / "old.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "old.json", "a file", "do") == {"a": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_though_their_checksum_fits(tmp_path, value):
    network = own_files._network()
    with torch.no_grad():
        network.encoder.conv1.weight[0, 0, 0, 0] = value
    own_files.save_encoder(tmp_path / "a.safetensors", network.encoder, HEADER)
    own_files.save_classifier(tmp_path / "a.pt", network)
    with pytest.raises(DamagedFileError, match=r"a\.safetensors .*conv1\.weight has values that are not finite"):
        load_encoder(tmp_path / "a.safetensors")
    with pytest.raises(DamagedFileError, match=r"a\.pt .*conv1\.weight has values that are not finite"):
        load_classifier(own_files._network(), tmp_path / "a.pt")


def test_no_message_advises_to_switch_torch_s_guard_off(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for read in (
        lambda path: load_classifier(own_files._network(), path),
        lambda path: load_pretrained(torch.nn.ReLU(), path),
    ):
        with pytest.raises(DamagedFileError) as caught:
            read(tmp_path / "a.pt")
        assert "a.pt cannot be read" in str(caught.value)
        assert "weights_only" not in str(caught.value)
        assert exit_code(caught.value) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": 0.0}, "a temperature must be finite and greater than 0, got 0.0"),
        ({"temperature": -1.0}, "a temperature must be finite and greater than 0, got -1.0"),
        ({"temperature": float("inf")}, "a temperature must be finite"),
        ({"threshold": float("nan")}, "a threshold must be a finite logit"),
        ({"specificity": 1.5}, "a specificity must lie between 0 and 1"),
        ({"achieved": {"specificity": 2.0}}, "must lie between 0 and 1"),
        ({"n": 3, "positives": 5}, "positives must lie between 0 and n = 3, got 5"),
    ],
)
def test_an_impossible_operating_point_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        OperatingPoint(**{"temperature": 1.0, "threshold": 0.0, "specificity": 0.9, **changes})


def test_a_card_with_a_temperature_below_zero_is_refused_with_its_name(tmp_path):
    path = own_files.make_card(tmp_path)
    content = json.loads(path.read_text())
    content["operating"]["Mass"]["temperature"] = -1.0
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match=r"classifier\.json .* does not fit its checksum"):
        read_inference_config(tmp_path / "model.pt")
    del content["checksum"]
    path.write_text(json.dumps(content))
    with pytest.raises(
        DamagedFileError, match=r"classifier\.json .* greater than 0, got -1\.0; restore it from a copy"
    ):
        read_inference_config(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="temperatures must be finite and greater than 0"):
        Calibratedd("pred", [1.0, 0.0])


def test_a_header_of_a_width_that_no_memory_holds_is_refused_at_once(tmp_path):
    network = own_files._network().encoder
    path = own_files.save_encoder(tmp_path / "a.safetensors", network, {**HEADER, "width": "1e9"})
    with pytest.raises(DamagedFileError, match=r"a\.safetensors .*its width is 1e9, not above 0 and at most 16"):
        encoder_header(path)
    (tmp_path / "b").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(DamagedFileError, match="do not begin with a header of safetensors"):
        encoder_header(tmp_path / "b")


def test_an_error_of_the_disk_is_not_called_damage(tmp_path):
    with pytest.raises(OSError, match="Input/output error") as caught, reading("a", "a file", "do"):
        raise OSError(5, "Input/output error")
    assert not isinstance(caught.value, DamagedFileError)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a", "a file", "do")


def test_arrays_and_mappings_come_back_as_they_were_written(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "text": np.array(["ä", "b"]), "none": np.zeros((0, 4), np.float32)}
    write_arrays(tmp_path / "a.npz", arrays)
    found = read_arrays(tmp_path / "a.npz", "arrays", "do", list(arrays))
    assert set(found) == set(arrays)
    with np.load(tmp_path / "a.npz") as file:
        assert all(isinstance(file[name], np.ndarray) for name in file.files), "NumPy alone reads all of it"
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)
    write_sealed_json(tmp_path / "a.json", {"b": [1.1, None], "ä": {"2": True}})
    assert read_json(tmp_path / "a.json", "a file", "do") == {"b": [1.1, None], "ä": {"2": True}}


def test_a_damaged_row_in_a_journals_middle_is_dropped_with_a_warning_and_the_others_stay(tmp_path, caplog):
    path = own_files.make_journal(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"reason": ""', b'"reason": "x"')
    path.write_bytes(b"".join(lines))
    identity = {"model": "a", "keep": {"paths": False}}
    again = Journal(tmp_path, identity)
    assert [row["file_hash"] for row in again.rows] == ["h0", "h2", "h3"]
    assert "1 lines of" in caplog.text
    assert "the first is line 3" in caplog.text
    again.append([{"file_hash": "h1", "stamp": "1-2"}])
    again.close()
    caplog.clear()
    last = Journal(tmp_path, identity)
    assert [row["file_hash"] for row in last.rows] == ["h0", "h2", "h3", "h1"]
    assert "damaged" not in caplog.text
    last.close()


def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path):
    for content in (b"PK\x03\x04 somebody's archive\n", b"one\ntwo\n", b"no line break"):
        (tmp_path / "predictions.jsonl").write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"predictions\.jsonl cannot be read as a journal of predictions"):
            Journal(tmp_path, {"model": "a"})
        assert (tmp_path / "predictions.jsonl").read_bytes() == content


def test_a_journal_of_an_older_version_is_continued(tmp_path):
    old = [{"model": "a"}, {"file_hash": "h0", "stamp": "1-2"}]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    journal = Journal(tmp_path, {"model": "a"})
    assert journal.rows == old[1:]
    journal.close()


@pytest.fixture
def cached(tmp_path):
    archive = write_nih_phantoms(tmp_path / "nih", n_patients=4, size=64)
    return archive, get_store(archive, tmp_path / "s", 16, 0).folder


def test_a_cached_store_with_a_cut_provenance_is_made_again_with_a_warning(cached, tmp_path, caplog):
    archive, folder = cached
    images = open_store(folder).images.copy()
    whole = (folder / "provenance.json").read_bytes()
    (folder / "provenance.json").write_bytes(whole[:100])
    with pytest.raises(DamagedFileError, match=r"provenance\.json cannot be read .*monai-simclr store with --rebuild"):
        open_store(folder)
    with caplog.at_level(logging.WARNING):
        again = get_store(archive, tmp_path / "s", 16, 0)
    assert "provenance.json cannot be read as the provenance of a store" in caplog.text
    assert "is made again" in caplog.text
    np.testing.assert_array_equal(again.images, images)
    assert (folder / "provenance.json").read_bytes() == whole


def test_a_store_that_nobody_asked_to_rebuild_and_a_strangers_folder_stay_as_they_are(cached, tmp_path):
    archive, folder = cached
    (folder / "provenance.json").write_text("{")
    index = own_files._archive()
    with pytest.raises(DamagedFileError, match=r"provenance\.json .*--rebuild"):
        build_store(index, folder, 16, 0)
    assert (folder / "images.npy").is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "provenance.json").write_text("not ours")
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(DamagedFileError, match=r"provenance\.json"):
        build_store(index, tmp_path / "other", 16, 0, options=StoreOptions(rebuild=True))
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["letter.txt", "provenance.json"]
    (archive / "provenance.json").write_text('["the publisher\'s own"]')
    assert len(get_store(archive, tmp_path / "t", 16, 0).images) > 0


@pytest.mark.parametrize("name", ["plan.json", "pixels.npy"])
def test_a_build_whose_own_files_were_damaged_is_begun_again(tmp_path, caplog, name):
    def stop(done, total, rejected):
        if done == 2:
            raise InterruptedError

    index = own_files._archive()
    with pytest.raises(InterruptedError):
        build_store(index, tmp_path / "s", 16, 0, options=StoreOptions(progress=stop))
    path = tmp_path / "s" / "building" / name
    path.write_bytes(path.read_bytes()[:20])
    store = build_store(index, tmp_path / "s", 16, 0)
    assert len(store.images) == 4
    assert f"{name} cannot be read" in caplog.text
    assert "it is begun again" in caplog.text


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 40, b"two words of a key that is long"])
def test_a_damaged_key_of_hashes_is_refused(tmp_path, content):
    (tmp_path / "hash_key.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"hash_key\.txt .*restore it, or remove it for a new key"):
        hash_key(tmp_path)
