"""CLAHE against OpenCV: bit for bit, on the CPU and in torch."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from monai_simclr import ops

SIZES = [(64, 64), (224, 224), (60, 64), (61, 67), (100, 37), (9, 8), (17, 130)]


def smooth(height: int, width: int, top: int = 255, count: int = 3) -> np.ndarray:
    noise = np.random.RandomState(0).rand(count, height, width).astype(np.float32)
    planes = np.stack([cv2.GaussianBlur(plane, (0, 0), 2) for plane in noise])
    planes = (planes - planes.min()) / np.ptp(planes) * top
    return planes.astype(np.uint8 if top < 256 else np.uint16)


def opencv(plane: np.ndarray, limit: float, tile_grid: tuple[int, int]) -> np.ndarray:
    return cv2.createCLAHE(limit, tile_grid[::-1]).apply(np.ascontiguousarray(plane))


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_integers_are_opencvs_bit_for_bit_with_a_clip_limit_for_each_image(top):
    pixels, limits = smooth(64, 80, top), np.array([1.0, 2.0, 40.0])
    ours = ops.clahe(torch.from_numpy(pixels)[:, None], limits, (8, 4))
    for out, plane, limit in zip(ours, pixels, limits, strict=True):
        np.testing.assert_array_equal(out[0].numpy(), opencv(plane, limit, (8, 4)))


@pytest.mark.parametrize("tile_grid", [(8, 8), (3, 5), (1, 1)])
@pytest.mark.parametrize("size", SIZES)
def test_torch_is_opencvs_bit_for_bit_at_every_size(size, tile_grid):
    noise = np.random.RandomState(1).randint(0, 256, (3, *size), dtype=np.uint8)
    limits = np.array([0.5, 2.5, 40.0])
    for pixels in (noise, smooth(*size)):
        images = torch.from_numpy(pixels)[:, None]
        apart = (
            ops.clahe(images, limits, tile_grid, backend="torch").int() - ops.clahe(images, limits, tile_grid).int()
        ).abs()
        # the bar of this project is one gray level on at most 0.5 % of the pixels where the grid does not divide
        assert int(apart.max()) == 0


def test_torch_is_opencvs_for_16_bit_too():
    images = torch.from_numpy(smooth(48, 50, 4095, count=2))[:, None]
    assert torch.equal(ops.clahe(images, 40.0, (4, 4), backend="torch").int(), ops.clahe(images, 40.0, (4, 4)).int())


def test_float_is_within_one_level_of_uint8_and_has_no_bands():
    images = torch.from_numpy(smooth(64, 64))[:, None]
    floats = images / 255
    torch.testing.assert_close(ops.clahe(floats, 2.0), ops.clahe(images, 2.0) / 255, rtol=0, atol=1.01 / 255)
    ramp = torch.linspace(0, 1, 64 * 64).view(1, 1, 64, 64)
    assert len(ops.clahe(ramp, 2.0).unique()) > 2000
    assert ops.clahe(ramp.double(), 2.0).dtype == torch.float64


@pytest.mark.parametrize("size", [64, 61])
def test_a_constant_image_stays_constant_as_opencvs_does(size):
    images = torch.full((1, 1, size, size), 100, dtype=torch.uint8)
    for out in (ops.clahe(images), ops.clahe(images, backend="torch")):
        assert out.unique().tolist() == np.unique(opencv(images[0, 0].numpy(), 2.0, (8, 8))).tolist()
    assert len(ops.clahe(images / 255).unique()) == 1


def test_a_nan_stays_nan_and_counts_as_zero():
    images = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    images[0, 0, 3, 5] = 0
    expected = ops.clahe(images)
    images[0, 0, 3, 5] = float("nan")
    out = ops.clahe(images)
    assert out.isnan().nonzero().tolist() == [[0, 0, 3, 5]]
    torch.testing.assert_close(out.nan_to_num(float(expected[0, 0, 3, 5])), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("images", "limit", "message"),
    [
        (torch.zeros(2, 1, 64, 64), 0.0, r"clip_limit must be greater than 0, got 0\.0"),
        (torch.zeros(2, 1, 64, 64), np.ones(3), r"clip_limit must be one number or 2, one for each image"),
        (torch.zeros(1, 1, 7, 64), 2.0, r"a grid of \(8, 8\) tiles does not fit images of \(7, 64\) pixels"),
        (torch.zeros(1, 1, 64, 64, dtype=torch.int32), 2.0, r"images must be uint8, uint16 or .* got torch.int32"),
        (torch.zeros(64, 64), 2.0, r"CLAHE works on images \(B, C, H, W\), got shape \(64, 64\)"),
    ],
)
def test_invalid_clahe_arguments_are_refused(images, limit, message):
    with pytest.raises(ValueError, match=message):
        ops.clahe(images, limit)
