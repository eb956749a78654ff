"""Views of one image differ, in every data set of MONAI's, with any number of workers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, PersistentDataset
from monai.transforms import Compose, EnsureTyped, RandCoarseDropout, RandFlip
from monai.utils import set_determinism

from monai_simclr import recipes
from monai_simclr.transforms import DrawViewsd, MultiView, MultiViewd, RandCLAHE, RandRadiographView

VIEW = RandRadiographView(size=24)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(params=[True, False], ids=["determinism", "free"])
def determinism(request):
    set_determinism(0 if request.param else None)
    yield
    set_determinism(None)


def make_dataset(kind: str, items: list, transform, folder) -> Dataset:
    if kind == "CacheDataset":
        return CacheDataset(items, transform, progress=False)
    if kind == "PersistentDataset":
        return PersistentDataset(items, transform, cache_dir=folder)
    return Dataset(items, transform)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["Dataset", "CacheDataset", "PersistentDataset"])
def test_views_differ_within_pairs_and_between_images_workers_and_epochs(kind, workers, determinism, image, tmp_path):
    # the same picture four times, so that whatever differs was drawn
    items = [{"image": image.clone(), "number": i} for i in range(4)]
    pipeline = Compose([EnsureTyped("image", track_meta=False), MultiViewd("image", VIEW)])
    dataset = make_dataset(kind, items, pipeline, tmp_path)
    loader = DataLoader(dataset, batch_size=2, num_workers=workers)  # batch 1 and batch 2: one worker each
    seen = []
    for _ in range(2):
        for batch in loader:
            for name in ("image_1", "image_2"):
                seen += [np.asarray(view).tobytes() for view in batch[name]]
    assert len(seen) == 2 * 4 * 2
    assert len(set(seen)) == len(seen)


def test_the_same_seed_gives_the_same_views_also_after_copies(image):
    one = MultiView(VIEW).set_random_state(5)
    two = pickle.loads(pickle.dumps(MultiView(VIEW).set_random_state(5)))
    assert all(torch.equal(a, b) for a, b in zip(one(image), two(image), strict=True))


def test_the_transform_passed_in_is_not_changed(image):
    view = RandRadiographView(size=24).set_random_state(1)
    expected = RandRadiographView(size=24).set_random_state(1)(image)
    MultiView(view).set_random_state(7)(image)
    assert torch.equal(view(image), expected)


def test_a_transform_that_writes_to_its_input_affects_no_other_view(image):
    floats = image / 255
    before = floats.clone()
    drops = RandCoarseDropout(holes=1, spatial_size=8, fill_value=9.0, prob=1.0)  # writes in place
    one, two = MultiView(drops).set_random_state(0)(floats)
    assert torch.equal(floats, before)
    assert int((one == 9).sum()) == int((two == 9).sum()) == 64


def test_a_list_gives_every_view_a_transform_of_its_own(image):
    strong, weak = recipes.views("simclr", 24), recipes.views("mild", 20)
    one, two, three = MultiView([strong, weak, RandCLAHE(prob=1.0)], n_views=3).set_random_state(0)(image)
    assert (one.shape, two.shape, three.shape) == ((1, 24, 24), (1, 20, 20), (1, 32, 32))
    with pytest.raises(ValueError, match="n_views is 2, but 3 transforms came; give one, or one per view"):
        MultiView([strong, weak, weak])
    with pytest.raises(ValueError, match="n_views must be at least 2, got 1"):
        MultiView(strong, n_views=1)


def test_a_pipeline_of_monais_is_a_transform_too(image):
    pipeline = Compose([RandCLAHE(prob=1.0), VIEW])
    one, two = MultiView(pipeline).set_random_state(0)(image)
    assert not torch.equal(one, two)


def test_other_keys_and_the_image_stay(image):
    item = {"image": image, "other": image, "patient_id": "7"}
    out = MultiViewd(["image", "other"], VIEW, n_views=3)(item)
    assert sorted(out) == sorted(
        ["patient_id", *(f"{k}{n}" for k in ("image", "other") for n in ("", "_1", "_2", "_3"))]
    )
    assert out["image"] is image
    assert sorted(item) == ["image", "other", "patient_id"]


def test_missing_and_taken_keys_are_refused(image):
    with pytest.raises(KeyError, match="other"):
        MultiViewd(["image", "other"], VIEW)({"image": image})
    assert "image_1" in MultiViewd(["image", "other"], VIEW, allow_missing_keys=True)({"image": image})
    with pytest.raises(ValueError, match=r"would overwrite the keys \['image_1'\]"):
        MultiViewd("image", VIEW)({"image": image, "image_1": 0})


def test_a_partner_is_for_one_key_only(image):
    item = {"image": image, "other": image, "partner": image}
    with pytest.raises(ValueError, match=r"'partner' is another image for one key, .* made of \['image', 'other'\]"):
        MultiViewd(["image", "other"], VIEW)(item)
    assert "image_2" in MultiViewd("image", VIEW)(item)
    assert "other_2" in MultiViewd(["image", "other"], VIEW, partner_key="none")(item)


@pytest.mark.parametrize(
    ("keys", "transform", "error", "message"),
    [
        (["image", "other"], VIEW, ValueError, r"one key, got \['image', 'other'\]; use MultiViewd"),
        ("image", RandFlip(), TypeError, r"needs a RandOperation, such as RandRadiographView, got RandFlip"),
        ("image", [VIEW, RandCLAHE(prob=0.5)], ValueError, r"always applied, got RandCLAHE with prob=0.5; set prob=1"),
    ],
)
def test_what_cannot_be_drawn_for_a_batch_is_refused_before_the_first_image(keys, transform, error, message):
    with pytest.raises(error, match=message):
        DrawViewsd(keys, transform)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor])
def test_every_kind_of_input_gives_the_same_views(kind, image):
    expected = MultiView(VIEW).set_random_state(2)(image)
    got = MultiView(VIEW).set_random_state(2)(kind(image))
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
