"""What is an upright chest from the front, and what is not: drawn ones everywhere, real ones where available."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from monai_simclr import ops
from monai_simclr.data.phantoms import draw_phantom
from monai_simclr.ops.chest_check import ChestCheck, seen

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def chests() -> torch.Tensor:
    """Drawn chests of another seed than the numbers were fitted with."""
    drawn = [draw_phantom(patient, 0, 128, seed=7).pixels.astype(np.float32) for patient in range(30)]
    return torch.from_numpy(np.stack(drawn))[:, None]


@pytest.fixture
def not_chests(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import not_chests

    return not_chests


def flagged(images: torch.Tensor) -> float:
    return float((ops.chest_scores(images) < 0).mean())


@pytest.mark.parametrize("size", [48, 64, 224])
def test_drawn_chests_pass_at_every_size(chests, size):
    images = torch.nn.functional.interpolate(chests, (size, size), mode="bilinear", antialias=True)
    assert flagged(images) <= 0.04


def test_a_mirror_image_passes(chests):
    assert flagged(chests.flip(-1)) <= 0.04


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x.rot90(1, (-2, -1)),
        lambda x: x.rot90(2, (-2, -1)),
        lambda x: x.rot90(3, (-2, -1)),
        lambda x: x.flip(-2),
        lambda x: x.transpose(-2, -1),
        lambda x: 1 - x,
        lambda x: 1 - x.rot90(2, (-2, -1)),
        lambda x: x[..., 8:48, 20:60],
        lambda x: x[..., 50:90, 60:100],
    ],
    ids=["90", "180", "270", "upside down", "transposed", "inverted", "inverted, 180", "apex", "basis"],
)
def test_a_spoiled_chest_is_stopped(spoil, chests):
    assert flagged(spoil(chests)) >= 0.95


def test_drawings_without_a_chest_are_stopped(not_chests):
    shares = {}
    for kind, draw in not_chests.DRAWN.items():
        random = np.random.RandomState(11)
        planes = np.stack([draw(random) for _ in range(25)])
        shares[kind] = flagged(torch.from_numpy(planes)[:, None])
    assert min(shares.values()) >= 0.9, shares
    assert np.mean(list(shares.values())) >= 0.97, shares


def test_photographs_are_stopped():
    """Nothing was fitted on a photograph."""
    data = pytest.importorskip("skimage.data", reason="the photographs are those of scikit-image")
    paths = sorted(Path(data.__file__).parent.glob("*.*g"))
    photos = [image for path in paths if (image := cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) is not None]
    assert len(photos) >= 10
    assert np.mean([flagged(torch.from_numpy(photo)[None, None]) for photo in photos]) >= 0.95


def test_real_chests_pass_and_the_same_ones_spoiled_do_not(cxr):
    """In part patients that the numbers were fitted on: benchmarks/chests.py scores the others."""
    paths = [
        *sorted(cxr.glob("nih/images/*.png"))[::12],
        *sorted(cxr.glob("kermany/images/*/*.jpeg"))[::20],
        *sorted(cxr.glob("hannover/images_square/*.png"))[::2],
    ]
    planes = [cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (224, 224)) for path in paths]
    images = torch.from_numpy(np.stack(planes))[:, None].float()
    assert flagged(images) <= 0.02
    for spoiled in (
        images.rot90(1, (-2, -1)),
        images.rot90(2, (-2, -1)),
        images.rot90(3, (-2, -1)),
        255 - images,
        images[..., 20:90, 30:100],
        images[..., 90:160, 120:190],
    ):
        assert flagged(spoiled) >= 0.95


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, math.inf])
def test_constant_images_and_nan_are_not_a_chest(value):
    assert ops.chest_scores(torch.full((1, 1, 32, 32), value))[0] == -math.inf


def test_an_image_with_one_nan_is_not_a_chest(chests):
    damaged = chests[:1].clone()
    damaged[0, 0, 5, 5] = math.nan
    assert ops.chest_scores(damaged)[0] == -math.inf


def test_without_confidence_of_the_localizer_the_score_is_minus_infinity(chests):
    images = torch.cat([chests.rot90(1, (-2, -1)), torch.rand(20, 1, 64, 64).repeat(1, 1, 2, 2)])
    unsure = ops.locate_lungs(images).confidence == 0
    assert unsure.sum() >= 20
    assert (ops.chest_scores(images)[unsure] == -math.inf).all()


def test_a_batch_gets_what_its_images_get_alone(chests):
    alone = np.concatenate([ops.chest_scores(image[None]) for image in chests[:5]])
    np.testing.assert_array_equal(ops.chest_scores(chests[:5]), alone)


def test_unit_and_dtype_hardly_matter(chests):
    base = ops.chest_scores(chests)
    for other in ((chests * 65535).to(torch.uint16), chests.double() * 4000 - 1000, chests.clone().requires_grad_()):
        np.testing.assert_allclose(ops.chest_scores(other), base, atol=0.2)


def test_an_empty_batch_has_no_scores():
    assert ops.chest_scores(torch.zeros(0, 1, 8, 8)).shape == (0,)


def test_inputs_of_another_rank_are_refused():
    with pytest.raises(ValueError, match=r"images must have shape \(B, C, H, W\).*got"):
        ops.chest_scores(torch.zeros(8, 8))


def test_a_score_is_the_weighted_sum_of_the_features(chests):
    plane, check = chests[0, 0].numpy(), ChestCheck.shipped()
    found = seen(plane).features
    expected = sum(float(w) * float(x) for w, x in zip(check.weights, found, strict=True)) + check.bias
    assert ops.chest_scores(chests[:1])[0] == pytest.approx(expected, abs=1e-3)


def test_other_numbers_have_another_checksum():
    check = ChestCheck.shipped()
    assert check.checksum != ChestCheck(check.weights, check.bias + 0.1).checksum
    assert check.checksum == ChestCheck(check.weights.copy(), check.bias).checksum


def test_a_saved_check_reads_back(tmp_path):
    shipped = ChestCheck.shipped()
    with (tmp_path / "check.npz").open("wb") as file:
        shipped.save(file)
    with np.load(tmp_path / "check.npz") as numbers:
        np.testing.assert_array_equal(numbers["weights"], shipped.weights)
        assert float(numbers["bias"]) == shipped.bias


@pytest.mark.slow
def test_the_shipped_numbers_are_what_the_script_makes(cxr, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import chest_data
    import chest_fit

    if not (cxr.parent / "unlabelled" / "manifest.csv").is_file():
        pytest.skip("the packs beside cxr are not here")
    table = chest_data.read_table(cxr.parent)
    made = chest_fit.fitted(chest_fit.lessons(table))
    bias = made.bias - chest_fit.threshold(made, table)
    shipped = ChestCheck.shipped()
    assert np.corrcoef(made.weights, shipped.weights)[0, 1] > 0.999
    assert bias == pytest.approx(shipped.bias, abs=0.1)
