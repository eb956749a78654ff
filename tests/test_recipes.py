"""Recipes: one preprocessing, by two ways."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from monai_simclr import recipes


def test_files_and_store_see_the_same_numbers_bit_for_bit(tmp_path):
    store = pytest.importorskip("monai_simclr.data.store")
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.random.RandomState(0).randint(0, 256, (90, 110), dtype=np.uint8))
    ours = recipes.preprocessing(64)({"image": str(path)})["image"]
    stored = store.decode(path, recipes.stored_size(64))
    assert type(ours) is torch.Tensor
    assert torch.equal(ours, recipes.to_network_input(torch.from_numpy(stored)[None, None], 64)[0])


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"strength must be one of .*got 'strong'"):
        recipes.views("strong")


def test_finish_refuses_floats():
    with pytest.raises(ValueError, match="stored images are uint8"):
        recipes.to_network_input(torch.rand(1, 1, 8, 8), 7)
