"""Keyed randomness: order and pictures are functions of their keys; and damaged images are replaced by a keyed draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch.utils.data import DataLoader

from monai_simclr.data import KeyedSampler, Store, StoreDataset


def _store(rows: int = 20, seed: int = 0) -> Store:
    images = np.random.default_rng(seed).integers(0, 256, (rows, 8, 8), dtype=np.uint8)
    index = pd.DataFrame({"image": [f"/a/{row}.png" for row in range(rows)], "patient_id": "p", "split": "train"})
    return Store(images, index.assign(patient_id=[f"p{row}" for row in range(rows)]), pd.DataFrame(), {})


class _Broken:
    """A transform that cannot do with some rows."""

    def __init__(self, rows: set[int]) -> None:
        self.rows = rows

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["row"] in self.rows:
            raise ValueError("the pixels are gone")
        return item


def _order(sampler: KeyedSampler, epoch: int) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_order_is_a_function_of_seed_and_epoch():
    dataset = StoreDataset(_store())
    first, again, other = KeyedSampler(dataset, 1), KeyedSampler(dataset, 1), KeyedSampler(dataset, 2)
    _order(first, 7)
    assert _order(first, 2) == _order(again, 2)
    assert _order(first, 2) != _order(first, 3)
    assert [place for _, place in _order(first, 2)] != [place for _, place in _order(other, 1)], "seeds overlap"
    assert sorted(place for _, place in _order(first, 2)) == list(range(20))


def test_a_run_that_stopped_within_an_epoch_gets_the_rest_of_it_and_whole_epochs_after():
    sampler = KeyedSampler(StoreDataset(_store()), 1)
    second, third = _order(sampler, 2), _order(sampler, 3)
    sampler.start_at(2, 12)
    assert _order(sampler, 2) == second[12:]
    assert _order(sampler, 3) == third
    assert len(sampler) == 20


def test_the_fingerprint_knows_rows_patients_splits_and_pixels_but_not_folders():
    mine = StoreDataset(_store()).fingerprint
    assert mine.startswith("20 images, ")
    moved = _store()
    moved.index["image"] = [name.replace("/a/", "/b/c/") for name in moved.index["image"]]
    assert StoreDataset(moved).fingerprint == mine
    renamed = _store()
    renamed.index.loc[3, "patient_id"] = "another"
    others = [_store(19), _store(seed=1), renamed]
    assert len({StoreDataset(one).fingerprint for one in others} | {mine}) == 4


def test_a_damaged_image_is_replaced_by_the_same_other_one_every_time():
    dataset = StoreDataset(_store(), transform=_Broken({5}), seed=3, replace_damaged=True)
    first, again, later = dataset[(1, 5)], dataset[(1, 5)], dataset[(2, 5)]
    assert first["row"] == again["row"] != 5
    assert first["damage"] == "5: ValueError: the file could not be read"
    assert later["row"] != 5
    assert dataset[(1, 4)]["damage"] == ""


def test_a_replacement_that_is_damaged_too_is_passed_over():
    dataset = StoreDataset(_store(), transform=_Broken(set(range(10))), seed=3, replace_damaged=True)
    assert {dataset[(1, row)]["row"] for row in range(10)} <= set(range(10, 20))


def test_when_nothing_can_be_drawn_the_error_is_raised():
    dataset = StoreDataset(_store(), transform=_Broken(set(range(20))), replace_damaged=True)
    with pytest.raises(ValueError, match="the pixels are gone"):
        dataset[(1, 0)]


def test_unless_asked_a_damaged_image_is_an_error():
    with pytest.raises(ValueError, match="the pixels are gone"):
        StoreDataset(_store(), transform=_Broken({5}))[(1, 5)]


def test_damage_survives_the_collation_of_a_batch():
    dataset = StoreDataset(_store(), transform=_Broken({5}), replace_damaged=True)
    batch = next(iter(DataLoader(dataset, 20)))
    assert [text.split(":")[0] for text in batch["damage"] if text] == ["5"]
