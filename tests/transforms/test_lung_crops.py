"""Crops that keep the lungs: the bound always, the order of sources, and MONAI's laziness and inverse."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import MetaTensor, set_track_meta
from monai.transforms import Compose, RandRotated

from monai_simclr import ops
from monai_simclr.data.phantoms import draw_phantom
from monai_simclr.transforms import LungCrop, LungCropd, RandLungPreservingCrop, RandLungPreservingCropd
from monai_simclr.transforms.crops import draw_crops

BOX = np.array([0.3, 0.2, 0.7, 0.6])
CLASSES = [LungCrop, RandLungPreservingCrop]
DICTIONARY = {LungCrop: LungCropd, RandLungPreservingCrop: RandLungPreservingCropd}


class Localizer:
    """Says that the lungs are where it was told, with the confidence it was told."""

    def __init__(self, box=BOX, confidence: float = 1.0) -> None:
        self.box, self.confidence, self.seen = np.asarray(box), confidence, []

    def __call__(self, images: torch.Tensor) -> ops.LocatedLungs:
        self.seen.append(images)
        return ops.LocatedLungs(self.box[None], np.array([self.confidence]))


def coordinates(height: int, width: int) -> torch.Tensor:
    """An image whose two channels are the row and column of each pixel, so that a crop tells where it was cut."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).float()


def share_kept(cropped: torch.Tensor, size: tuple[int, int], lungs: np.ndarray) -> float:
    """Share of a lung box that is in a crop of `coordinates`, from the pixels that are left."""
    (top, left), (bottom, right) = cropped.amin((1, 2)).tolist(), (cropped.amax((1, 2)) + 1).tolist()
    height, width = size
    left, top, right, bottom = left / width, top / height, right / width, bottom / height
    across = max(min(right, lungs[2]) - max(left, lungs[0]), 0)
    down = max(min(bottom, lungs[3]) - max(top, lungs[1]), 0)
    return across * down / ((lungs[2] - lungs[0]) * (lungs[3] - lungs[1]))


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.from_numpy(draw_phantom(1, 0, 128).pixels)[None]


edges = st.tuples(*[st.floats(-0.5, 1.5)] * 4).map(
    lambda e: [min(e[0], e[2]), min(e[1], e[3]), max(e[0], e[2]) + 0.01, max(e[1], e[3]) + 0.01]
)


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    box=edges,
    bound=st.floats(0, 1),
    tries=st.integers(1, 4),
    low=st.floats(0.001, 1),
    high=st.floats(0, 1),
    ratio=st.floats(1, 10),
    seed=st.integers(0, 2**31),
)
def test_no_crop_ever_keeps_less_than_the_bound(height, width, box, bound, tries, low, high, ratio, seed):
    """Odd sizes, tiny images, boxes partly or wholly outside the image, any bound, few tries."""
    crop = RandLungPreservingCrop((low, low + high * (1 - low)), bound, (1 / ratio, ratio), "prior", tries)
    out = crop.set_random_state(seed)(coordinates(height, width), lungs=box)
    inside = np.clip(box, 0, 1)
    is_given = out.meta["lung_source"] == "given"
    assert is_given or (inside[2:] - inside[:2]).min() <= 1e-6
    lungs = inside if is_given else np.array(ops.PRIOR_LUNG_BOX)
    assert out.numel() > 0
    assert share_kept(out, (height, width), lungs) >= bound - 1e-9
    assert out.meta["lung_coverage"] == pytest.approx(share_kept(out, (height, width), lungs), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), box=edges, margin=st.floats(0, 1))
def test_a_lung_crop_never_cuts_into_the_box(height, width, box, margin):
    out = LungCrop(margin=margin, lungs="prior")(coordinates(height, width), lungs=box)
    lungs = np.clip(box, 0, 1) if out.meta["lung_source"] == "given" else np.array(ops.PRIOR_LUNG_BOX)
    assert share_kept(out, (height, width), lungs) == pytest.approx(1)
    assert out.meta["lung_coverage"] == pytest.approx(1)


def test_a_crop_that_is_too_small_grows_no_more_than_it_must():
    lungs = np.tile([0.1, 0.1, 0.9, 0.9], (500, 1))
    boxes = draw_crops(np.random.RandomState(0), lungs, (0.05, 0.2), (1.0, 1.0), min_coverage=0.7)
    np.testing.assert_allclose(ops.coverage(boxes, lungs), 0.7, atol=1e-6)


def test_a_crop_that_keeps_enough_is_left_as_drawn():
    lungs = np.tile(ops.PRIOR_LUNG_BOX, (500, 1))
    free = draw_crops(np.random.RandomState(0), lungs, (0.3, 1.0), (0.75, 4 / 3), 0.0, max_tries=1)
    bound = draw_crops(np.random.RandomState(0), lungs, (0.3, 1.0), (0.75, 4 / 3), 0.8, max_tries=1)
    enough = ops.coverage(free, lungs) >= 0.8
    assert 0.3 < enough.mean() < 0.9
    np.testing.assert_array_equal(free[enough], bound[enough])


def test_the_same_numbers_are_drawn_whatever_is_accepted():
    states = []
    for bound in (0.0, 0.5, 1.0):
        random = np.random.RandomState(0)
        draw_crops(random, np.tile(BOX, (3, 1)), (0.1, 0.5), (1.0, 1.0), bound)
        states.append(random.random_sample())
    assert len(set(states)) == 1


def test_areas_of_accepted_crops_span_the_scale():
    lungs = np.tile([0.4, 0.4, 0.6, 0.6], (3000, 1))
    boxes = draw_crops(np.random.RandomState(0), lungs, (0.3, 1.0), (0.75, 4 / 3), 0.5)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert areas.min() < 0.33
    assert areas.max() > 0.97


# the order of sources

MASK = torch.zeros(1, 128, 128)
MASK[:, 20:50, 30:80] = 1
MASK_BOX = np.array([30, 20, 80, 50]) / 128


@pytest.mark.parametrize("crop_class", CLASSES)
@pytest.mark.parametrize(
    ("given", "lungs", "box", "source"),
    [
        (BOX, Localizer([0.1, 0.1, 0.5, 0.5]), BOX, "given"),
        (BOX.tolist(), "prior", BOX, "given"),
        (torch.tensor(BOX), "located", BOX, "given"),
        (MASK, Localizer(), MASK_BOX, "given"),
        (MASK[0].numpy() > 0, Localizer(), MASK_BOX, "given"),
        (MetaTensor(MASK), Localizer(), MASK_BOX, "given"),
        (None, Localizer(), BOX, "localizer"),
        (torch.zeros(1, 9, 9), Localizer(), BOX, "localizer"),
        ([np.nan] * 4, Localizer(), BOX, "localizer"),
        ([1.2, 0.1, 1.4, 0.3], Localizer(), BOX, "localizer"),
        (None, Localizer([0.5, 0.5, 1.5, 0.75]), [0.5, 0.5, 1.0, 0.75], "localizer"),
        (None, Localizer(confidence=0.0), None, "located"),
        (None, Localizer([-0.5, 0.0, -0.1, 1.0]), None, "located"),
        (None, "located", None, "located"),
        (None, ops.locate_lungs, None, "localizer"),
        (None, "prior", ops.PRIOR_LUNG_BOX, "prior"),
    ],
)
def test_the_first_source_that_has_a_box_is_used(crop_class, given, lungs, box, source, image):
    found = crop_class(lungs=lungs).find(image, given)
    expected = ops.locate_lungs(image[None]).boxes[0] if box is None else box
    np.testing.assert_allclose(found.box, expected)
    assert found.source == source


def test_without_confidence_of_the_built_in_localizer_the_prior_box_is_used():
    found = LungCrop().find(torch.zeros(1, 32, 32))
    assert (found.source, tuple(found.box)) == ("prior", ops.PRIOR_LUNG_BOX)


def test_a_localizer_sees_the_plain_image_as_a_batch_of_one(image):
    localizer = Localizer()
    LungCrop(lungs=localizer)(MetaTensor(image))
    assert [(type(seen), seen.shape) for seen in localizer.seen] == [(torch.Tensor, (1, 1, 128, 128))]


@pytest.mark.parametrize("crop_class", CLASSES)
@pytest.mark.parametrize("key", ["lung_box", "mask"])
def test_a_key_of_the_item_or_of_the_metadata_goes_first(crop_class, key, image):
    value = {"lung_box": MASK_BOX, "mask": MASK}[key]
    arguments = {"lungs_key": key} | ({"margin": 0.0} if crop_class is LungCrop else {})
    transform = DICTIONARY[crop_class]("image", **arguments)
    if crop_class is LungCrop:
        out = transform({"image": image, key: value})["image"]
        assert out.shape == (1, 30, 50)
    else:
        out = transform.set_random_state(0)({"image": image, key: value})["image"]
    assert out.meta["lung_source"] == "given"
    noted = MetaTensor(image, meta={key: value})
    assert crop_class(**arguments)(noted).meta["lung_source"] == "given"
    assert (
        DICTIONARY[crop_class]("image", **arguments, allow_missing_keys=True)({"image": noted})["image"].meta[
            "lung_source"
        ]
        == "given"
    )


@pytest.mark.parametrize("crop_class", CLASSES)
def test_a_missing_lungs_key_is_an_error_unless_allowed(crop_class, image):
    make = DICTIONARY[crop_class]
    with pytest.raises(KeyError, match=r"lungs_key='mask' is not in the item, which has \['image'\]"):
        make("image", lungs_key="mask")({"image": image})
    out = make("image", lungs_key="mask", allow_missing_keys=True)({"image": image})
    assert out["image"].meta["lung_source"] == "located"
    assert make("image", lungs_key="mask")({"image": image, "mask": None})["image"].meta["lung_source"] == "located"


# MONAI's ways


@pytest.mark.parametrize("make", DICTIONARY.values())
def test_all_keys_get_the_crop_of_the_first_whatever_they_show(make, image):
    where = coordinates(128, 128)
    transform = make(["image", "where"])
    if make is RandLungPreservingCropd:
        transform.set_random_state(0)
    out = transform({"image": image, "where": where})
    (top, left), (bottom, right) = out["where"].amin((1, 2)).int().tolist(), out["where"].amax((1, 2)).int().tolist()
    assert torch.equal(out["image"], MetaTensor(image[:, top : bottom + 1, left : right + 1]))
    assert out["image"].meta["lung_source"] == out["where"].meta["lung_source"] == "located"


@pytest.mark.parametrize("make", DICTIONARY.values())
def test_keys_of_other_sizes_get_the_same_part(make, image):
    transform = make(["image", "mask"], lungs="prior")
    if make is RandLungPreservingCropd:
        transform.set_random_state(0)
    out = transform({"image": image, "mask": torch.zeros(1, 256, 64)})
    height, width = out["image"].shape[1:]
    assert abs(out["mask"].shape[1] - 2 * height) <= 4
    assert abs(out["mask"].shape[2] - width / 2) <= 2


@pytest.mark.parametrize("crop_class", CLASSES)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (64, 64), (65, 91)])
def test_lazy_is_eager_and_the_inverse_brings_the_frame_back(crop_class, size):
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0)) + 0.1
    make = DICTIONARY[crop_class]

    def pipeline(lazy: bool) -> Compose:
        return Compose([make("image")], lazy=lazy).set_random_state(1)

    one = pipeline(lazy=False)
    eager, lazy = (crop({"image": MetaTensor(image)})["image"] for crop in (one, pipeline(lazy=True)))
    assert eager.shape == lazy.shape
    torch.testing.assert_close(eager.as_tensor(), lazy.as_tensor())
    assert eager.meta["lung_coverage"] == lazy.meta["lung_coverage"]
    back = one.inverse({"image": eager})["image"]
    assert back.shape == image.shape
    inside = back.as_tensor() != 0
    torch.testing.assert_close(back.as_tensor()[inside], image[inside])
    assert inside.sum() == eager.numel()


@pytest.mark.parametrize("make", DICTIONARY.values())
def test_pixels_are_read_after_what_is_pending_was_applied(make, image):
    def pipeline(lazy: bool) -> Compose:
        rotate = RandRotated("image", range_x=0.3, prob=1.0, padding_mode="border")
        return Compose([rotate, make("image")], lazy=lazy).set_random_state(0)

    eager, lazy = (pipeline(choice)({"image": image})["image"] for choice in (False, True))
    assert eager.shape == lazy.shape
    assert (eager - lazy).abs().mean() < 0.01


def test_crops_that_read_pixels_require_current_data():
    assert LungCrop().requires_current_data
    assert LungCrop(lungs=Localizer()).requires_current_data
    assert LungCrop(lungs="prior", lungs_key="mask").requires_current_data
    assert not LungCrop(lungs="prior").requires_current_data
    assert RandLungPreservingCropd("image").requires_current_data


@pytest.mark.parametrize("crop_class", CLASSES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64])
def test_dtype_stays_and_the_input_is_not_written(crop_class, dtype, image):
    given = MetaTensor((image * 200).to(dtype))
    before, meta = given.clone(), dict(given.meta)
    out = crop_class()(given)
    assert out.dtype == dtype
    assert torch.equal(given, before)
    assert set(given.meta) == set(meta)
    assert not given.applied_operations
    out.fill_(0)  # the crop is no window to the input
    assert torch.equal(given, before)


@pytest.mark.parametrize("crop_class", CLASSES)
def test_uint16_of_numpy_stays_uint16(crop_class, image):
    assert crop_class()((image * 65535).numpy().astype(np.uint16)).dtype == torch.uint16


@pytest.mark.parametrize("crop_class", CLASSES)
def test_without_metadata_a_plain_tensor_comes_out(crop_class, image):
    set_track_meta(False)
    try:
        out = crop_class()(image.numpy())
    finally:
        set_track_meta(True)
    assert type(out) is torch.Tensor


@pytest.mark.parametrize("crop_class", CLASSES)
def test_with_a_localizer_it_pickles_and_parses_from_a_config(crop_class, image):
    transform = pickle.loads(pickle.dumps(crop_class(lungs=ops.locate_lungs)))
    assert transform(image).meta["lung_source"] == "localizer"
    config = {
        "_target_": f"monai_simclr.transforms.{DICTIONARY[crop_class].__name__}",
        "keys": "image",
        "lungs": "$__import__('monai_simclr').ops.locate_lungs",
    }
    configured = ConfigParser({"crop": config}).get_parsed_content("crop")
    assert configured({"image": image})["image"].meta["lung_source"] == "localizer"


def test_without_a_draw_it_cannot_repeat_one(image):
    with pytest.raises(RuntimeError, match="has drawn no crop; call it with randomize=True first"):
        RandLungPreservingCrop()(image, randomize=False)


def test_a_draw_can_be_repeated_on_another_image(image):
    crop = RandLungPreservingCrop().set_random_state(0)
    first = crop(coordinates(128, 128))
    assert torch.equal(crop(coordinates(128, 128), randomize=False), first)


# errors


@pytest.mark.parametrize("crop_class", CLASSES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0.1, 0.2, 0.3], r"four edges, shape \(4,\), or a mask.*got shape \(3,\)"),
        (np.zeros((2, 8, 8)), r"got shape \(2, 8, 8\)"),
        ([0.9, 0.2, 0.1, 0.8], r"left < right and top < bottom.*got \[0\.9, 0\.2, 0\.1, 0\.8\]"),
        ([12, 20, 200, 220], r"shares of the image, got \[12\.0, 20\.0, 200\.0, 220\.0\]; divide pixels"),
    ],
)
def test_invalid_boxes_and_masks_are_refused(crop_class, given, message, image):
    with pytest.raises(ValueError, match=message):
        crop_class()(image, lungs=given)


@pytest.mark.parametrize("crop_class", CLASSES)
def test_a_localizer_that_returns_other_shapes_is_refused(crop_class, image):
    def wrong(images):
        return ops.LocatedLungs(np.zeros(4), np.ones(1))

    with pytest.raises(ValueError, match=r"boxes \(1, 4\) and confidence \(1,\), got \(4,\) and \(1,\) from .*wrong"):
        crop_class(lungs=wrong)(image)


@pytest.mark.parametrize("crop_class", CLASSES)
@pytest.mark.parametrize("shape", [(1, 8), (1, 8, 8, 8), (8, 8), (1, 0, 8)])
def test_images_of_another_rank_or_without_pixels_are_refused(crop_class, shape):
    with pytest.raises(ValueError, match=r"a radiograph has shape \(C, H, W\) and some pixels, got"):
        crop_class(lungs="prior")(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": (0.5, 0.3)}, r"scale must be \(lowest, highest\)"),
        ({"scale": (0.5, 1.1)}, r"within \[0\.001, 1\], got \(0\.5, 1\.1\)"),
        ({"min_lung_coverage": 1.5}, r"min_lung_coverage must be in \[0, 1\], got 1\.5"),
        ({"aspect": (0.0, 1.0)}, "aspect must be"),
        ({"max_tries": 0}, "max_tries must be at least 1, got 0"),
        ({"lungs": "found"}, "lungs must be 'located', 'prior' or a LungLocalizer.*got 'found'"),
    ],
)
def test_the_error_names_an_argument_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandLungPreservingCrop(**arguments)


def test_the_error_names_a_margin_out_of_range():
    with pytest.raises(ValueError, match=r"margin must be in \[0, 1\], got -0\.1"):
        LungCrop(margin=-0.1)


# real radiographs


def test_random_crops_of_real_radiographs_keep_most_of_the_mask(cxr):
    """The bound is on the box; of the mask itself a crop keeps about as much."""
    crop, kept = RandLungPreservingCropd(["image", "mask"], scale=(0.1, 1.0)).set_random_state(0), []
    for path in sorted((cxr / "hannover/lung_masks").glob("*.png")):
        mask = torch.from_numpy(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) == 255)[None].float()
        image = torch.from_numpy(cv2.imread(str(cxr / "hannover/images_square" / path.name), cv2.IMREAD_GRAYSCALE))
        out = crop({"image": image[None], "mask": mask})
        kept.append(float(out["mask"].sum() / mask.sum()))
    assert len(kept) >= 50
    assert np.percentile(kept, 5) >= 0.75
