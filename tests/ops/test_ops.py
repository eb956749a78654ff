"""Operations against their oracles: OpenCV, pydicom, and each backend against the other."""

from __future__ import annotations

import cv2
import numpy as np
import pydicom
import pytest
import torch
from pydicom.pixels import apply_windowing

from monai_simclr import ops


@pytest.fixture
def pixels() -> np.ndarray:
    noise = np.random.RandomState(0).rand(3, 64, 64).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 2) for plane in noise])
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


@pytest.fixture
def images(pixels) -> torch.Tensor:
    return torch.from_numpy(pixels)[:, None]


def levels_apart(one: torch.Tensor, two: torch.Tensor) -> int:
    return int((one.int() - two.int()).abs().max())


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "LINEAR", "SIGMOID"])
def test_window_is_what_pydicom_computes(function):
    stored = np.arange(0, 4096, 7, dtype=np.uint16)
    dataset = pydicom.Dataset()
    dataset.update({"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": function, "BitsStored": 12})
    dataset.PixelRepresentation, dataset.PhotometricInterpretation = 0, "MONOCHROME2"
    oracle = apply_windowing(stored, dataset) / 4095
    ours = ops.window(torch.from_numpy(stored.astype(np.float64)).view(1, 1, 1, -1), 2000, 1500, function)
    np.testing.assert_allclose(ours.flatten(), oracle, atol=1e-6)


def test_a_window_of_width_one_is_a_step_in_linear_and_nan_stays_nan():
    images = torch.tensor([9.0, 9.5, 9.6, float("nan")]).view(1, 1, 1, 4)
    out = ops.window(images, 10, 1, "LINEAR").flatten()
    assert out[:3].tolist() == [0.0, 0.0, 1.0]
    assert out[3].isnan()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 0.5, "LINEAR"), r"window width of LINEAR must be at least 1, got 0\.5"),
        ((float("nan"), 1), r"window center must be finite"),
        ((np.ones(3), 1), r"window center must be one number or 1, one for each image, got shape \(3,\)"),
        ((1, 1, "LOG"), r"window function must be LINEAR_EXACT, LINEAR or SIGMOID, got 'LOG'"),
    ],
)
def test_invalid_windows_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ops.window(torch.rand(1, 1, 2, 2), *arguments)


def test_a_window_of_width_zero_is_refused():
    with pytest.raises(ValueError, match=r"must be greater than 0, got 0\.0"):
        ops.window(torch.rand(1, 1, 2, 2), 0.5, 0.0)


def test_adjust_of_uint8_is_within_one_level_of_float(images):
    factors = np.array([0.8, 1.0, 1.25]), np.array([1.2, 1.0, 0.7]), np.array([0.6, 1.0, 1.4])
    table = ops.adjust(images, *factors)
    torch.testing.assert_close(table / 255, ops.adjust(images / 255, *factors), rtol=0, atol=1 / 255)
    assert torch.equal(table[1], images[1])


def test_blur_in_torch_is_opencvs(images):
    sigmas = np.array([0.0, 0.4, 1.7])
    assert levels_apart(ops.gaussian_blur(images, sigmas, backend="torch"), ops.gaussian_blur(images, sigmas)) <= 1
    floats = images / 255
    torch.testing.assert_close(
        ops.gaussian_blur(floats, sigmas, backend="torch"), ops.gaussian_blur(floats, sigmas), rtol=0, atol=1e-5
    )
    assert torch.equal(ops.gaussian_blur(images, sigmas)[0], images[0])


def test_blur_of_uint8_is_the_rounded_convolution(images, pixels):
    for sigma in (0.4, 1.0, 2.3):
        reach = 2 * int(np.ceil(3 * sigma)) + 1
        oracle = cv2.GaussianBlur(pixels[0].astype(np.float64), (reach, reach), sigma, borderType=cv2.BORDER_REPLICATE)
        assert np.abs(ops.gaussian_blur(images[:1], sigma)[0, 0].numpy() - oracle).max() <= 0.501


def test_blur_keeps_a_constant_image():
    assert (ops.gaussian_blur(torch.full((1, 1, 20, 20), 97, dtype=torch.uint8), 1.3) == 97).all()


def test_blur_refuses_a_negative_width(images):
    with pytest.raises(ValueError, match=r"sigma must be at least 0, got \[-1\.0, 1\.0, 1\.0\]"):
        ops.gaussian_blur(images, np.array([-1.0, 1.0, 1.0]))


def test_adjust_in_torch_is_the_same_table(images):
    factors = np.array([0.8, 1.0, 1.25]), np.array([1.2, 1.0, 0.7]), np.array([0.6, 1.0, 1.4])
    assert torch.equal(ops.adjust(images, *factors, backend="torch"), ops.adjust(images, *factors))


@pytest.mark.parametrize("fill", [None, 0.0])
def test_warp_in_torch_is_opencvs_inside_the_image(images, fill):
    matrices = np.array([[[0.9, 0.1, 2.3], [-0.1, 0.9, 5.1]], [[1, 0, 0], [0, 1, 0]], [[0.5, 0, 9], [0, 0.7, 9]]])
    ours, other = (
        ops.warp(images, matrices, (48, 48), fill),
        ops.warp(images, torch.tensor(matrices), (48, 48), fill, backend="torch"),
    )
    assert levels_apart(ours, other) <= 1
    assert torch.equal(ours[1], images[1, :, :48, :48])


def test_another_backend_is_refused(images):
    with pytest.raises(ValueError, match=r"backend must be one of \['auto', 'torch'\], got 'opencv'"):
        ops.gaussian_blur(images, 1.0, backend="opencv")


def test_warp_needs_a_matrix_for_each_image(images):
    with pytest.raises(ValueError, match="3 images need matrices of shape"):
        ops.warp(images, np.zeros((1, 2, 3)), (8, 8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pad_resize_keeps_dtype_and_centers_the_image(dtype):
    out = ops.pad_resize(np.full((20, 40), 100, dtype=dtype), 10)
    assert (out.dtype, out.shape) == (dtype, (10, 10))
    assert out[:2].max() == 0
    assert out[4:6].min() == 100


def test_quantize_refuses_values_outside_0_to_1():
    with pytest.raises(ValueError, match=r"values in \[0, 1\], got 0 to 7"):
        ops.quantize(np.array([[0, 7]], dtype=np.float32), 2)
    with pytest.raises(ValueError, match=r"values in \[0, 1\], got nan to nan"):
        ops.quantize(np.array([[0, np.nan]], dtype=np.float32), 2)
    rounded = ops.quantize(np.array([[-5e-4, 1.0005]] * 2, dtype=np.float32), 2)
    assert rounded.tolist() == [[0, 255]] * 2
