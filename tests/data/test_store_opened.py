"""Opening a store: what was altered is named, and other processes map the same file."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from monai_simclr.data import StoreDataset, build_store, open_index, open_store
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.runtime.artefacts import write_sealed_json


@pytest.fixture
def folder(tmp_path):
    archive = write_nih_phantoms(tmp_path / "nih", n_patients=12, size=64)
    build_store(open_index(archive), tmp_path / "s", 16, 0)
    return tmp_path / "s"


def _alter(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("name", ["index.csv", "rejected.csv", "rows.npz", "sources.csv"])
def test_an_altered_table_is_named(folder, name):
    _alter(folder / name, 5)
    with pytest.raises(ValueError, match=rf"{name} was changed after the store was built; run monai-simclr store"):
        open_store(folder)


def test_training_reads_no_table_and_a_store_from_before_the_columns_gives_the_same(folder):
    def read(store):
        dataset = StoreDataset(store, ["train", "val", ""], store.findings[:2])
        return dataset.fingerprint, dataset.patients.tolist(), dataset.labels.tolist()

    store = open_store(folder)
    now = read(store)
    assert not {"index", "rejected"} & set(store.__dict__)
    (folder / "rows.npz").unlink()
    provenance = json.loads((folder / "provenance.json").read_text())
    del provenance["sha256"]["rows.npz"], provenance["checksum"]
    write_sealed_json(folder / "provenance.json", provenance)
    assert read(open_store(folder)) == now


def test_one_altered_bit_of_a_pixel_is_found_by_verifying_and_its_image_named(folder):
    rows = len(open_store(folder).images)
    assert rows > 20
    _alter(folder / "images.npy", (folder / "images.npy").stat().st_size - 256 * (rows - 1) + 7)
    assert len(open_store(folder).images) == rows, "16 images of all are looked at without verify"
    name = open_store(folder).index["image"][1].rsplit("/")[-1]
    with pytest.raises(ValueError, match=rf"1 images of .* were changed, the first is row 1 \({name}\)"):
        open_store(folder, verify=True)


def test_an_altered_first_image_is_found_at_once(folder):
    _alter(folder / "images.npy", 130)
    with pytest.raises(ValueError, match=r"the first is row 0 \("):
        open_store(folder)


def test_an_altered_header_and_a_cut_file_are_found(folder):
    whole = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"images\.npy.*cannot be mapped"):
        open_store(folder)
    np.save(folder / "images.npy", np.zeros((1, 16, 16), np.uint8))
    with pytest.raises(ValueError, match=r"is uint8 \(1, 16, 16\), not uint8"):
        open_store(folder)


def test_a_whole_store_verifies(folder):
    assert open_store(folder, verify=True).folder == folder


def test_what_is_no_store_and_what_is_an_old_one_are_told_apart(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no image store at .*nowhere; monai-simclr store builds one"):
        open_store(tmp_path / "nowhere")
    made = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps({**made, "format": 1}))
    with pytest.raises(ValueError, match=r"provenance\.json .* does not fit its checksum"):
        open_store(folder)
    del made["checksum"]  # which old ones had not
    (folder / "provenance.json").write_text(json.dumps({**made, "format": 1}))
    with pytest.raises(ValueError, match="is a store of format 1, not 2; build it again"):
        open_store(folder)


def test_a_pickled_store_carries_its_index_and_no_pixels(folder, tmp_path):
    store = build_store(open_store(folder).index, tmp_path / "large", 128, 0)
    sent = pickle.dumps(store)
    assert len(sent) < store.images.nbytes / 10
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.images, store.images)
    assert again.index.equals(store.index)
    assert not again.images.flags.writeable
