"""Archives to stores, and stores to what a trainer eats."""

from __future__ import annotations

import pytest

from monai_simclr.data import RadiographError, build_store, open_index, open_store, store_of
from monai_simclr.data.loading import InferenceDataset, KeyedSampler, StoreDataset, list_radiographs
from monai_simclr.data.phantom_files import write_nih_phantoms
from monai_simclr.recipes import augmentation


@pytest.fixture
def archive(tmp_path):
    return write_nih_phantoms(tmp_path / "nih", n_patients=12, size=64, bad_files=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_holds_the_readable_images_in_order_and_lists_the_others(archive, tmp_path, workers):
    index = open_index(archive)
    store = build_store(index, tmp_path / "store", 32, workers=workers, max_rejected=0.2)
    assert store.images.shape == (len(index) - 1, 32, 32)
    assert len(store.rejected) == 1
    assert "cannot be decoded" in store.rejected["reason"].iloc[0]
    assert set(store.index["image"]) | set(store.rejected["image"]) == set(index["image"])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".store")]


def test_too_many_damaged_images_stop_the_build_and_leave_nothing(archive, tmp_path):
    with pytest.raises(ValueError, match="more than max_rejected=1% are damaged"):
        build_store(open_index(archive), tmp_path / "store", 32, workers=0, max_rejected=0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["nih"]


def test_a_store_is_opened_again_and_rebuilt_only_when_the_archive_changed(archive, tmp_path):
    first = build_store(open_index(archive), tmp_path / "s", 32, workers=0, max_rejected=0.5)
    stamp = (tmp_path / "s" / "images.npy").stat().st_mtime_ns
    assert len(store_of(archive, tmp_path / "s", 32, workers=0).images) == len(first.images)
    assert (tmp_path / "s" / "images.npy").stat().st_mtime_ns == stamp
    (tmp_path / "s" / "index.csv").write_text("changed")
    with pytest.raises(ValueError, match=r"index\.csv was changed after the store was built"):
        open_store(tmp_path / "s")


def test_items_have_a_key_and_not_a_history(archive, tmp_path):
    store = build_store(open_index(archive), tmp_path / "s", 64, workers=0, max_rejected=0.5)
    one, two = (StoreDataset(store, ["train", "val"], transform=augmentation(56), seed=3) for _ in range(2))
    first = [one[1, row]["image"] for row in range(4)]
    again = [two[1, row]["image"] for row in (3, 2, 1, 0)][::-1]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((one[2, row]["image"] != first[row]).any() for row in range(4))


def test_the_sampler_hands_out_the_epoch_and_every_position_once(archive, tmp_path):
    store = build_store(open_index(archive), tmp_path / "s", 32, workers=0, max_rejected=0.5)
    sampler = KeyedSampler(StoreDataset(store, ["train", "val"]), seed=1)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        orders.append([key[1] for key in keys])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(orders[0])))
    assert orders[0] != orders[1]


def test_an_unknown_split_names_those_that_are_there(archive, tmp_path):
    store = build_store(open_index(archive), tmp_path / "s", 32, workers=0, max_rejected=0.5)
    with pytest.raises(ValueError, match=r"no image is in the splits \['holdout'\]; the index has \['test', 'train'"):
        StoreDataset(store, ["holdout"])


def test_a_file_that_cannot_be_read_is_an_item_with_a_reason_and_no_name(tmp_path):
    (tmp_path / "secret_name.dcm").write_text("no image")

    def transform(item):
        raise RadiographError(item["image"], "is nothing")

    dataset = InferenceDataset(list_radiographs(tmp_path), transform, 8)
    assert dataset[0]["reason"] == "is nothing"
    assert dataset[0]["image"].shape == (1, 8, 8)


def test_an_empty_folder_at_inference_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no files; pass --dataset_dir"):
        list_radiographs(tmp_path)
