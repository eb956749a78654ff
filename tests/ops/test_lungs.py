"""Finding the lungs: on drawn chests, on real masks, and where there is nothing to find."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from monai_simclr import ops
from monai_simclr.data.phantoms import draw_phantom
from monai_simclr.ops.lung_cascade import N_FEATURES, LungCascade, features, look, reduced
from monai_simclr.ops.lungs import MIN_FIT

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def phantoms() -> list:
    return [draw_phantom(patient, 0, 128) for patient in range(24)]


@pytest.fixture(scope="module")
def images(phantoms) -> torch.Tensor:
    return torch.from_numpy(np.stack([phantom.pixels for phantom in phantoms]))[:, None]


@pytest.fixture(scope="module")
def located(images) -> ops.LocatedLungs:
    return ops.locate_lungs(images)


def overlap(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    inner = np.maximum(np.minimum(one[:, 2:], two[:, 2:]) - np.maximum(one[:, :2], two[:, :2]), 0).prod(1)
    return inner / ((one[:, 2:] - one[:, :2]).prod(1) + (two[:, 2:] - two[:, :2]).prod(1) - inner)


def kept(boxes: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """Share of the pixels of each mask whose centers lie in its box."""
    shares = []
    for (left, top, right, bottom), mask in zip(boxes, masks, strict=True):
        rows, columns = np.nonzero(mask)
        y, x = (rows + 0.5) / mask.shape[0], (columns + 0.5) / mask.shape[1]
        shares.append(((x >= left) & (x <= right) & (y >= top) & (y <= bottom)).mean())
    return np.array(shares)


def test_lungs_of_drawn_chests_are_found(located, phantoms):
    truth = ops.boxes_of_masks(np.stack([phantom.lung_mask for phantom in phantoms]))
    assert located.boxes.shape == (24, 4)
    assert located.boxes.dtype == np.float64
    assert (located.confidence >= MIN_FIT).all()
    prior = np.tile(ops.PRIOR_LUNG_BOX, (24, 1))
    assert overlap(located.boxes, truth).mean() > overlap(prior, truth).mean()  # drawn chests all lie in the middle
    assert np.percentile(kept(ops.widened(located.boxes, 0.05), [p.lung_mask for p in phantoms]), 5) >= 0.95


def test_a_batch_gets_what_its_images_get_alone(images, located):
    alone = [ops.locate_lungs(image[None]) for image in images]
    np.testing.assert_array_equal(located.boxes, np.concatenate([one.boxes for one in alone]))
    np.testing.assert_array_equal(located.confidence, np.concatenate([one.confidence for one in alone]))


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: (x * 65535).to(torch.uint16),
        lambda x: (x * 255).to(torch.uint8),
        lambda x: x.double() * 4000 - 1000,
        lambda x: x.requires_grad_(),
        lambda x: torch.cat([x, torch.rand_like(x)], dim=1),
    ],
    ids=["uint16", "uint8", "other unit", "with gradient", "second channel"],
)
def test_unit_dtype_and_other_channels_do_not_matter(convert, images, located):
    again = ops.locate_lungs(convert(images.clone()))
    np.testing.assert_allclose(again.boxes, located.boxes, atol=0.01)


def test_exposure_hardly_matters(images, located):
    for gamma in (0.7, 1.4):
        assert np.abs(ops.locate_lungs(images**gamma).boxes - located.boxes).mean() < 0.01


def test_a_mirror_image_has_the_mirrored_box(images, located):
    mirrored = ops.locate_lungs(images.flip(-1)).boxes
    assert np.abs(mirrored[:, [2, 1, 0, 3]] - [1, 0, 1, 0] - located.boxes * [-1, 1, -1, 1]).mean() < 0.02


def test_the_box_follows_an_image_in_a_padded_frame(images, located):
    padded = torch.nn.functional.pad(images, (20, 20, 10, 0))
    found = ops.locate_lungs(padded).boxes * [168, 138, 168, 138] - [20, 10, 20, 10]
    assert np.abs(found / 128 - located.boxes).mean() < 0.025


def test_aspect_does_not_matter(images, located):
    wide = torch.nn.functional.interpolate(images, (96, 250), mode="bilinear")
    assert np.abs(ops.locate_lungs(wide).boxes - located.boxes).mean() < 0.01


@pytest.mark.parametrize("turn", [lambda x: x.rot90(1, (-2, -1)), lambda x: x.rot90(3, (-2, -1)), lambda x: x.flip(-2)])
def test_a_turned_chest_has_confidence_zero_and_the_prior_box(turn, images):
    found = ops.locate_lungs(turn(images))
    assert (found.confidence == 0).mean() >= 0.9
    np.testing.assert_array_equal(
        found.boxes[found.confidence == 0], np.tile(ops.PRIOR_LUNG_BOX, ((found.confidence == 0).sum(), 1))
    )


@pytest.mark.parametrize("value", [0.0, 0.7, math.nan, math.inf])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (64, 64)])
def test_without_contrast_or_with_nan_the_prior_box_is_returned(value, shape):
    found = ops.locate_lungs(torch.full((1, 1, *shape), value))
    assert found.confidence[0] == 0
    np.testing.assert_array_equal(found.boxes[0], ops.PRIOR_LUNG_BOX)


def test_one_nan_among_pixels_gives_the_prior_box(images):
    damaged = images[:1].clone()
    damaged[0, 0, 5, 5] = math.nan
    assert ops.locate_lungs(damaged).confidence[0] == 0


@pytest.mark.parametrize("shape", [(1, 2), (7, 3), (33, 1), (1, 500), (801, 17)])
def test_any_size_gets_a_box_within_the_image(shape):
    noise = torch.rand(3, 1, *shape, generator=torch.Generator().manual_seed(0))
    boxes = ops.locate_lungs(noise).boxes
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (boxes.min(), boxes.max()) >= (0, 0)
    assert boxes.max() <= 1


def test_an_empty_batch_has_no_boxes():
    found = ops.locate_lungs(torch.zeros(0, 1, 8, 8))
    assert (found.boxes.shape, found.confidence.shape, found.masks) == ((0, 4), (0,), None)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (1, 1, 8, 8, 8), (1, 0, 8, 8), (1, 1, 0, 8)])
def test_inputs_of_another_rank_are_refused(shape):
    with pytest.raises(ValueError, match=r"images must have shape \(B, C, H, W\).*got"):
        ops.locate_lungs(torch.zeros(shape))


def test_the_input_is_not_written(images):
    before = images.clone()
    ops.locate_lungs(images)
    assert torch.equal(images, before)


def test_features_are_those_of_a_plain_loop():
    """Float64, pixel by pixel, with arctan2 and no OpenCV but the blur."""
    patch = cv2.GaussianBlur(np.random.RandomState(0).rand(64, 64).astype(np.float32), (0, 0), 3)
    smooth = np.pad(cv2.GaussianBlur(patch, (0, 0), 0.7).astype(np.float64), 1, mode="edge")
    histogram = np.zeros((8, 8, 8))
    for i in range(64):
        for j in range(64):
            near = smooth[i : i + 3, j : j + 3]
            across = (near[:, 2] - near[:, 0]) @ [1, 2, 1]
            down = (near[2] - near[0]) @ [1, 2, 1]
            place = math.atan2(down, across) % (2 * math.pi) / (2 * math.pi) * 8
            lower = int(place) % 8
            histogram[i // 8, j // 8, lower] += (1 - place % 1) * math.hypot(across, down)
            histogram[i // 8, j // 8, (lower + 1) % 8] += place % 1 * math.hypot(across, down)
    expected = np.sqrt(histogram / histogram.mean()).ravel()
    gray = smooth[1:-1, 1:-1].reshape(16, 4, 16, 4).mean((1, 3)).ravel()
    ranks = [(gray < value).sum() + (gray <= value).sum() for value in gray]
    ours = features(patch)
    assert (len(ours), ours.dtype) == (N_FEATURES, np.float32)
    assert np.sqrt(np.mean((ours[:512] - expected) ** 2)) < 0.01  # OpenCV's angle is good to 0.3 degrees
    np.testing.assert_allclose(ours[512:], np.array(ranks) / 256 - 1, atol=0.01)


def test_equal_grays_share_a_rank_so_padding_has_no_order():
    patch = np.zeros((64, 64), dtype=np.float32)
    patch[:32] = 1
    ranks = features(patch)[512:].reshape(16, 16)
    assert len(np.unique(ranks[:7])) == len(np.unique(ranks[9:])) == 1


def test_look_samples_a_ramp_where_the_box_says():
    ramp = np.tile(np.arange(128, dtype=np.float32), (128, 1))
    centers = (np.arange(64) + 0.5) / 64
    whole = look(ramp, np.array([0.0, 0.0, 1.0, 1.0]), 0.0)
    np.testing.assert_allclose(whole[0], 128 * centers - 0.5, atol=0.05)
    part = look(ramp, np.array([0.4, 0.2, 0.6, 0.9]), 0.25)
    np.testing.assert_allclose(part[0], 128 * (0.35 + 0.3 * centers) - 0.5, atol=0.05)
    beyond = look(ramp, np.array([0.8, 0.2, 1.2, 0.9]), 0.0)
    assert beyond[0, -1] == 127


def test_a_box_that_diverges_has_confidence_zero():
    n = 3
    far = LungCascade(
        margins=np.zeros(n),
        weights=np.zeros((n, N_FEATURES, 4), np.float32),
        biases=np.full((n, 4), 5, np.float32),
        fit_weights=np.zeros(N_FEATURES, np.float32),
        fit_bias=1.0,
    )
    box, fit = far.locate(np.random.RandomState(0).rand(40, 40).astype(np.float32))
    assert fit == 0
    assert box.max() <= 1


def test_a_saved_cascade_reads_back(tmp_path):
    shipped = LungCascade.shipped()
    with (tmp_path / "cascade.npz").open("wb") as file:
        shipped.save(file)
    with np.load(tmp_path / "cascade.npz") as numbers:
        for name, value in vars(shipped).items():
            np.testing.assert_array_equal(numbers[name], value)


def test_reduced_averages_large_images_and_keeps_the_extent_of_small_ones():
    large = np.arange(256 * 256, dtype=np.float32).reshape(256, 256)
    np.testing.assert_allclose(reduced(large), large.reshape(128, 2, 128, 2).mean((1, 3)), rtol=1e-6)
    assert reduced(np.ones((3, 5), np.float32)).shape == (128, 128)


def test_boxes_of_masks_by_hand():
    masks = np.zeros((3, 10, 20), bool)
    masks[0, 2:5, 4:16] = True
    masks[1, 9, 19] = True
    boxes = ops.boxes_of_masks(masks)
    np.testing.assert_allclose(boxes[:2], [[0.2, 0.2, 0.8, 0.5], [0.95, 0.9, 1.0, 1.0]])
    assert np.isnan(boxes[2]).all()


def test_a_mask_of_probabilities_is_cut_at_a_half_and_nan_is_no_lung():
    rows, columns = np.mgrid[:50, :80]
    soft = 1 / (1 + np.exp(((rows - 25) ** 2 + (columns - 40) ** 2 - 200) / 40))
    assert soft.min() > 0
    binary = soft > 0.5
    for mask in (soft, soft.astype(np.float32), np.where(binary, 1.0, np.nan), binary * 255):
        np.testing.assert_array_equal(ops.boxes_of_masks(mask), ops.boxes_of_masks(binary))
    assert np.isnan(ops.boxes_of_masks(np.full((8, 8), np.nan))).all()


def test_coverage_is_the_share_of_pixels_counted_one_by_one():
    random = np.random.RandomState(0)
    starts, sides = random.randint(0, 20, (2, 200, 2)), random.randint(1, 20, (2, 200, 2))
    boxes, lungs = np.concatenate([starts, starts + sides], axis=2)
    shares = ops.coverage(boxes, lungs)
    for box, lung, share in zip(boxes, lungs, shares, strict=True):
        counted = [
            box[0] <= x < box[2] and box[1] <= y < box[3]
            for x in range(lung[0], lung[2])
            for y in range(lung[1], lung[3])
        ]
        assert share == pytest.approx(np.mean(counted))


def test_a_located_box_with_its_margin_keeps_real_lungs(cxr):
    """In part the images that the shipped numbers were fitted on: benchmarks/lungs.py scores held-out patients."""
    for images, masks in (
        ("kermany/images/*", "kermany/lung_masks"),
        ("hannover/images_square", "hannover/lung_masks"),
    ):
        pairs = [
            (path, found)
            for path in sorted((cxr / masks).glob("*.png"))[::8]
            for found in cxr.glob(f"{images}/{path.stem}.*")
        ]
        truth = np.stack([cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) == 255 for mask, _ in pairs])
        pixels = np.stack([cv2.imread(str(image), cv2.IMREAD_GRAYSCALE) for _, image in pairs])
        boxes = ops.locate_lungs(torch.from_numpy(pixels)[:, None]).boxes
        prior = np.tile(ops.PRIOR_LUNG_BOX, (len(boxes), 1))
        tight = ops.boxes_of_masks(truth)
        assert overlap(boxes, tight).mean() > overlap(prior, tight).mean() + 0.05
        crops = ops.widened(boxes, 0.05)
        assert np.percentile(kept(crops, truth), 5) >= 0.95
        assert (crops[:, 2:] - crops[:, :2]).prod(1).mean() <= 0.80


@pytest.mark.slow
def test_fitted_on_one_set_it_beats_the_prior_box_on_the_other(cxr, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import lungs_fit
    from lungs_data import read_masked_sets

    sets = read_masked_sets(cxr)
    for name, other in (("hannover", "kermany"), ("kermany", "hannover")):
        cascade = lungs_fit.fit([lungs_fit.lessons(sets[other], lungs_fit.COPIES[other])])
        data = sets[name]
        boxes = np.stack([cascade.locate(image.astype(np.float32))[0] for image in data.images])
        own_mean = np.broadcast_to(data.boxes.mean(0), data.boxes.shape)
        assert overlap(boxes, data.boxes).mean() > overlap(own_mean, data.boxes).mean() + 0.05
        assert np.percentile(kept(ops.widened(boxes, 0.02), data.masks), 5) >= 0.95


@pytest.mark.slow
def test_the_shipped_numbers_are_what_the_script_makes(cxr, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import lungs_fit
    from lungs_data import read_masked_sets

    sets = read_masked_sets(cxr)
    made = lungs_fit.fit([lungs_fit.lessons(data, lungs_fit.COPIES[name]) for name, data in sets.items()])
    for name, value in vars(LungCascade.shipped()).items():
        np.testing.assert_allclose(getattr(made, name), value, rtol=1e-3, atol=1e-4, err_msg=name)
