"""The gallery shows every transform, and what it shows are changes."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from monai.transforms import MapTransform, Randomizable, Transform

from monai_simclr import transforms

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "gallery"


@pytest.fixture
def gallery(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import gallery

    return gallery


def test_every_transform_has_an_entry(gallery):
    public = {
        name
        for name, value in vars(transforms).items()
        if isinstance(value, type)
        and issubclass(value, Transform | Randomizable)
        and not issubclass(value, MapTransform)
        and not getattr(value, "__abstractmethods__", None)
    }
    assert {entry.transform for entry in gallery.ENTRIES} == public


def test_every_entry_has_a_picture_on_the_page(gallery):
    names = [gallery.file_name(entry) for entry in gallery.ENTRIES]
    assert sorted(names) == sorted(path.name for path in FOLDER.glob("*.png"))
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert page == gallery.page()
    assert sorted(re.findall(r"\]\((\S+\.png)\)", page)) == sorted(names)


def test_pictures_show_a_change_that_differs_between_draws(gallery):
    tile = gallery.TILE
    for entry in gallery.ENTRIES:
        picture = gallery.picture(entry)
        shown = cv2.imread(str(FOLDER / gallery.file_name(entry)), cv2.IMREAD_GRAYSCALE)
        assert shown.shape == picture.shape
        drawn = picture[:tile]
        after = [drawn[:, tile + 3 * gallery.GAP + k * (tile + gallery.GAP) :][:, :tile] for k in range(entry.draws)]
        assert all(np.any(one != drawn[:, :tile]) for one in after), entry.call
        assert len(after) == 1 or any(np.any(one != after[0]) for one in after[1:]), entry.call
