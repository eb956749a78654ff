"""Random views: settings, presets, geometry, lungs."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_simclr import ops, recipes
from monai_simclr.ops.views import view_matrices
from monai_simclr.transforms import (
    RandRadiographView,
    SizeSchedule,
    ViewDetector,
    ViewExposure,
    ViewPositioning,
    ViewProcessing,
)

OFF = {
    "exposure": ViewExposure(prob=0.0),
    "detector": ViewDetector(prob_blur=0.0, prob_noise=0.0),
}


def still(**changes) -> RandRadiographView:
    place = {"scale": (1.0, 1.0), "aspect": (1.0, 1.0), "rotate_degrees": 0.0, **changes}
    return RandRadiographView(32, ViewPositioning(**place), **OFF)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_with_everything_off_a_view_is_the_image(image):
    assert torch.equal(still()(image).as_tensor(), image)


def test_a_flip_is_a_flip_and_off_by_default(image):
    assert torch.equal(still(flip_prob=1.0)(image).as_tensor(), image.flip(2))
    assert ViewPositioning().flip_prob == 0


def test_the_rotation_turns_counterclockwise_about_the_middle():
    drawn = {"box": np.array([[0.0, 0.0, 1.0, 1.0]]), "angle": np.array([90.0]), "flip": np.array([False])}
    image = torch.zeros(1, 1, 9, 9)
    image[..., 4, 8] = 1  # on the right
    out = ops.warp(image, view_matrices(drawn, (9, 9), 9), (9, 9))
    assert (out[0, 0] > 0.5).nonzero().tolist() == [[0, 4]]  # at the top


def test_crop_scale_and_rotation_in_one_warp_are_the_same_in_two_steps():
    smooth = cv2.GaussianBlur(np.random.RandomState(0).rand(96, 96).astype(np.float32), (0, 0), 3)
    images = torch.from_numpy(smooth)[None, None]
    box, angle = np.array([[0.25, 0.25, 0.75, 0.75]]), np.array([8.0])
    one = {"box": box, "angle": angle, "flip": np.array([False])}
    fused = ops.warp(images, view_matrices(one, (96, 96), 48), (48, 48))
    whole = {**one, "box": np.array([[0.0, 0.0, 1.0, 1.0]])}
    turned = ops.warp(images, view_matrices(whole, (96, 96), 96), (96, 96))[..., 24:72, 24:72]
    torch.testing.assert_close(fused, turned, rtol=0, atol=2e-3)


def test_every_crop_keeps_the_lungs_whether_drawn_alone_or_together():
    view = RandRadiographView(32, ViewPositioning(scale=(0.08, 1.0), min_lung_coverage=0.8)).set_random_state(0)
    alone = np.concatenate([view.draw(1)["box"] for _ in range(500)])
    for boxes in (view.draw(2000)["box"], alone):
        assert ops.coverage(boxes, np.array(ops.PRIOR_LUNG_BOX)).min() >= 0.8
        assert boxes.min() >= 0
        assert boxes.max() <= 1 + 1e-12


def test_draws_follow_their_settings():
    view = recipes.views("default", 32).set_random_state(0)
    drawn = view.draw(4000)
    assert abs((drawn["clip"] > 0).mean() - 0.2) < 0.02
    assert abs((drawn["sigma"] > 0).mean() - 0.3) < 0.02
    assert abs(((drawn["gamma"] != 1) & (drawn["contrast"] != 1)).mean() - 0.8) < 0.02
    assert np.abs(drawn["angle"]).max() <= 10
    assert 0.6 <= drawn["brightness"].min() < 0.62
    assert drawn["flip"].sum() == 0


def test_only_presets_that_imitate_a_paper_mirror():
    names = ("mild", "default", "phantom", "moco_cxr", "simclr")
    flips = {name: recipes.views(name, 32).positioning.flip_prob for name in names}
    assert flips == {"mild": 0.0, "default": 0.0, "phantom": 0.0, "moco_cxr": 0.5, "simclr": 0.5}


def test_a_config_sets_and_overrides_single_settings():
    name = "monai_simclr.transforms.View"
    config = {
        "view": {
            "_target_": "monai_simclr.transforms.RandRadiographView",
            "size": 32,
            "positioning": {"_target_": f"{name}Positioning", "scale": [0.5, 1.0]},
            "processing": {"_target_": f"{name}Processing", "prob": 0.3},
        }
    }
    parser = ConfigParser(config)
    parser["view#positioning#rotate_degrees"] = 3
    view = parser.get_parsed_content("view")
    assert view.positioning == ViewPositioning(scale=(0.5, 1.0), rotate_degrees=3)
    assert view.processing == ViewProcessing(prob=0.3)


@pytest.mark.parametrize("kind", [ViewPositioning, ViewExposure, ViewDetector, ViewProcessing])
def test_every_setting_can_be_a_number_or_a_list_of_a_json_config(kind):
    default = dataclasses.asdict(kind())
    written = json.loads(json.dumps(default))
    assert all(type(value) in (float, list) for value in written.values())
    made = ConfigParser({"view": {"_target_": f"monai_simclr.transforms.{kind.__name__}", **written}})
    assert dataclasses.asdict(made.get_parsed_content("view")) == default
    for name, value in written.items():
        wrong = [-1, value[1]] if isinstance(value, list) else -1
        with pytest.raises(ValueError, match=rf"^{name} must be .*got .*-1"):
            kind(**{name: wrong})
        with pytest.raises(ValueError, match=rf"^{name} must be .*got \[0.5, 0.6, 0.7\]"):
            kind(**{name: [0.5, 0.6, 0.7]})


def test_the_error_names_an_invalid_setting():
    with pytest.raises(TypeError, match=r'positioning must be a ViewPositioning, got dict .*"_target_"'):
        RandRadiographView(32, positioning={"scale": [0.5, 1.0]})
    with pytest.raises(ValueError, match=r"scale must be \(lowest, highest\) within \[0.001, 1\], got \(0.5, 2.0\)"):
        ViewPositioning(scale=(0.5, 2.0))
    with pytest.raises(ValueError, match=r"scale must be \(lowest, highest\) within .*, got 0.5"):
        ViewPositioning(scale=0.5)
    with pytest.raises(ValueError, match=r"size must be from 1 to 1023 pixels, got 5000"):
        RandRadiographView(5000)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ViewExposure().prob = 1.0


def test_the_affine_of_a_view_says_where_its_pixels_are():
    from monai.data import MetaTensor

    view = still(scale=(0.25, 0.25), min_lung_coverage=0.0).set_random_state(0)
    ramp = MetaTensor(torch.arange(64.0).view(1, 1, 64).repeat(1, 64, 1) / 64, affine=np.diag([0.5, 0.25, 1.0, 1.0]))
    out = view(ramp)
    place = out.affine @ torch.tensor([10.0, 20.0, 0.0, 1.0], dtype=torch.float64)  # of row 10, column 20
    assert float(place[1] / 0.25) == pytest.approx(64 * float(out[0, 10, 20]), abs=0.01)


@pytest.mark.parametrize("stages", [[[32, 0.4], [48, 0.3]], [[32]], [[0, 1.0]], [[32, 1.5], [48, -0.5]], [32, 48]])
def test_a_size_schedule_that_is_none_is_refused(stages):
    with pytest.raises(ValueError, match=r"pairs of a size in pixels and its share of the epochs, which sum to 1"):
        SizeSchedule(stages)


def test_views_larger_than_the_images_are_stored_for_are_refused():
    with pytest.raises(ValueError, match="views of 64 pixels, but images are stored for a size of 48; pass --size 64"):
        RandRadiographView(48, schedule=SizeSchedule([[32, 0.5], [64, 0.5]]))
