"""Archives to stores, and stores to what a trainer eats."""

from __future__ import annotations

import pytest

from monai_simclr.data import build_store, open_index
from monai_simclr.data.loading import KeyedSampler, StoreDataset
from monai_simclr.data.phantom_files import write_nih_phantoms
from monai_simclr.recipes import augmentation


@pytest.fixture
def archive(tmp_path):
    return write_nih_phantoms(tmp_path / "nih", n_patients=12, size=64, bad_files=1)


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
