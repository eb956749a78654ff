"""One contract for the whole family of transforms."""

from __future__ import annotations

import copy
import inspect
import pickle

import monai.transforms
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, MetaTensor
from monai.utils import set_determinism

from monai_simclr import ops, recipes, transforms
from monai_simclr.transforms import MultiView, MultiViewd, RandRadiographView

RANDOM = {"RandCLAHE": {"prob": 0.5}, "RandWindow": {"prob": 0.5}, "RandRadiographView": {"size": 32}}
SPATIAL = {"RandMildRotate": {"prob": 1.0}, "LungCrop": {}, "RandLungPreservingCrop": {}}
FIXED = {"CLAHE": {}, "Window": {"center": 0.5, "width": 0.5}}
FAMILY = {**RANDOM, **SPATIAL, **FIXED}


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def make(name: str, seed: int = 3):
    transform = getattr(transforms, name)(**FAMILY[name])
    return transform.set_random_state(seed) if hasattr(transform, "set_random_state") else transform


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("name", RANDOM)
def test_a_batch_is_its_images_one_by_one(name, floats, images):
    images = images / 255 if floats else images
    transform, before = make(name), images.clone()
    together = transform.batch(images)
    assert torch.equal(images, before)
    assert together.dtype == images.dtype
    keep, drawn = transform.keep, transform.drawn
    for i, image in enumerate(images):
        own = {key: value[i : i + 1] for key, value in drawn.items()}
        alone = transform.apply(image[None], **own)[0] if keep[i] else image
        assert torch.equal(together[i], alone)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor])
@pytest.mark.parametrize("name", FAMILY)
def test_dictionary_is_array_and_the_input_stays(name, kind, images):
    image = kind(images[0] / 255)
    before = copy.deepcopy(image)
    array = make(name)(image)
    dictionary = getattr(transforms, f"{name}d")(keys=["a", "b"], **FAMILY[name])
    if hasattr(dictionary, "set_random_state"):
        dictionary.set_random_state(3)
    out = dictionary({"a": image, "b": image, "id": 1})
    assert isinstance(array, MetaTensor)
    assert torch.equal(out["a"], array)
    assert torch.equal(out["b"], array)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", FAMILY)
def test_copies_and_pickles_do_the_same(name, images):
    image = images[0] / 255
    dictionary = getattr(transforms, f"{name}d")("image", **FAMILY[name])
    if hasattr(dictionary, "set_random_state"):
        dictionary.set_random_state(1)
    others = [copy.deepcopy(dictionary), pickle.loads(pickle.dumps(dictionary))]
    expected = dictionary({"image": image})["image"]
    for other in others:
        assert torch.equal(other({"image": image})["image"], expected)


@pytest.mark.parametrize("name", FAMILY)
def test_dictionary_has_the_parameters_and_aliases_of_the_array(name):
    array, dictionary = getattr(transforms, name), getattr(transforms, f"{name}d")
    assert getattr(transforms, f"{name}D") is getattr(transforms, f"{name}Dict") is dictionary
    own = list(inspect.signature(dictionary).parameters.values())
    assert [p.name for p in (own[0], own[-1])] == ["keys", "allow_missing_keys"]
    assert own[1:-1] == list(inspect.signature(array).parameters.values())
    config = {"_target_": f"monai_simclr.transforms.{name}d", "keys": "image", **FAMILY[name]}
    assert isinstance(ConfigParser({"t": config}).get_parsed_content("t"), dictionary)


def test_no_public_name_is_one_of_monais():
    ours = {name for name in vars(transforms) if name[0].isupper()}
    assert not ours & set(vars(monai.transforms))


@pytest.mark.parametrize("name", ["RandCLAHE", "RandWindow"])
def test_prob_zero_changes_nothing_and_one_everything(name, images):
    assert torch.equal(getattr(transforms, name)(prob=0.0).batch(images), images)
    changed = (getattr(transforms, name)(prob=1.0).batch(images) != images).flatten(1).any(1)
    assert changed.all()
    with pytest.raises(ValueError, match=r"prob must be in \[0, 1\], got 1.5"):
        getattr(transforms, name)(prob=1.5)


def test_views_of_uint8_are_within_the_tolerance_of_float(images):
    smooth = ops.gaussian_blur(images, 2.0)
    view = RandRadiographView(size=56, prob_clahe=0.5).set_random_state(0)
    drawn = view.draw(len(smooth))
    apart = (view.apply(smooth, **drawn) / 255 - view.apply(smooth / 255, **drawn)).abs() * 255
    assert apart.mean() < 1
    assert apart.max() <= 8


def test_every_crop_keeps_the_lungs():
    view = RandRadiographView(size=32, scale=(0.08, 1.0), min_lung_coverage=0.8).set_random_state(0)
    boxes = view.draw(2000)["box"]
    assert ops.coverage(boxes, np.array(ops.PRIOR_LUNG_BOX)).min() >= 0.8
    assert boxes.min() >= 0
    assert boxes.max() <= 1


def test_the_lung_crop_keeps_its_bound_and_can_be_undone(images):
    crop = transforms.RandLungPreservingCrop(scale=(0.1, 0.5), min_lung_coverage=0.9).set_random_state(0)
    for image in images:
        out = crop(image)
        assert out.meta["lung_coverage"] >= 0.9
        assert crop.inverse(out).shape == image.shape


@pytest.mark.parametrize("determinism", [True, False])
def test_views_differ_from_each_other_and_from_epoch_to_epoch(determinism, images):
    set_determinism(0 if determinism else None)
    try:
        pair = MultiViewd("image", RandRadiographView(size=32))
        data = CacheDataset([{"image": images[0]}] * 3, pair, progress=False)
        first = [data[i] for i in range(3)]
        for item in first:
            assert not torch.equal(item["image_1"], item["image_2"])
        assert not torch.equal(first[0]["image_1"], first[1]["image_1"])
        assert not torch.equal(data[0]["image_1"], first[0]["image_1"])
    finally:
        set_determinism(None)


def test_the_same_seed_gives_the_same_views(images):
    one, two = (MultiView(RandRadiographView(size=32)).set_random_state(5)(images[0]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_views_never_overwrite_a_key(images):
    with pytest.raises(ValueError, match=r"would overwrite the keys \['image_1'\]"):
        MultiViewd("image", RandRadiographView(size=32))({"image": images[0], "image_1": 0})


def test_presets_that_imitate_no_paper_do_not_mirror():
    flips = {name: recipes.views(name, 32).flip_prob for name in ("mild", "default", "phantom", "moco_cxr", "simclr")}
    assert flips == {"mild": 0.0, "default": 0.0, "phantom": 0.0, "moco_cxr": 0.5, "simclr": 0.5}
