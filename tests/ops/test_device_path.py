"""The device path: the same picture as on the CPU, nothing read back from the device, no loop over images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from monai_simclr import ops, recipes

STRENGTHS = ("mild", "default", "moco_cxr", "simclr")
BANNED = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::bincount", "aten::equal"}


class Record(TorchDispatchMode):
    """Names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    coarse = torch.rand(24, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=(128, 128), mode="bicubic").clamp(-0.1, 1.1) * 0.8 + 0.1
    return (smooth * 255).round().to(torch.uint8)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("seed", range(4))
def test_one_draw_gives_one_picture_on_both_backends(strength, seed, images):
    drawn = recipes.views(strength, 112).set_random_state(seed).draw(len(images))
    apart = (ops.make_views(images, drawn, 112, backend="torch").int() - ops.make_views(images, drawn, 112).int()).abs()
    equalized = torch.from_numpy(drawn["clip"] > 0)  # one gray level that rounds otherwise changes a tile's table
    assert (apart[~equalized] > 0).float().mean() < 0.001
    assert not equalized.any() or (apart[equalized] > 0).float().mean() < 0.01
    assert apart.max() <= 8
    floats = images / 255
    apart = (ops.make_views(floats, drawn, 112, backend="torch") - ops.make_views(floats, drawn, 112)).abs()
    assert apart[~equalized].max() <= 1e-4
    if equalized.any():
        assert (apart[equalized] > 0.002).float().mean() < 0.01


@pytest.mark.parametrize("strength", STRENGTHS)
def test_views_of_8_bit_12_bit_and_float_are_one_picture(strength, images):
    drawn = recipes.views(strength, 112).set_random_state(1).draw(len(images))
    eight, floats = ops.make_views(images, drawn, 112) / 255, ops.make_views(images / 255, drawn, 112)
    sixteen = ops.make_views((images.int() * 257).to(torch.uint16), drawn, 112)
    assert sixteen.dtype == torch.uint16
    torch.testing.assert_close(sixteen.int() / 65535, floats, rtol=0, atol=1e-4)
    assert 255 * (eight - floats).abs().mean() < 1
    assert 255 * (eight - floats).abs().max() <= 8


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_number_is_ever_read_back_from_the_device(dtype):
    images = torch.zeros(5, 1, 64, 64, dtype=dtype, device="meta")  # a device that has no numbers to read
    drawn = recipes.views("default", 48).set_random_state(0).draw(5)
    drawn["clip"][0] = drawn["sigma"][1] = 1.0
    out = ops.make_views(images, drawn, 48, backend="torch")
    assert (out.shape, out.dtype, out.device.type) == ((5, 1, 48, 48), dtype, "meta")
    limits, matrices = np.arange(1.0, 6), np.zeros((5, 2, 3))
    for result in (
        ops.clahe(images, limits, backend="torch"),
        ops.gaussian_blur(images, limits, backend="torch"),
        ops.adjust(images, limits, backend="torch"),
        ops.warp(images, matrices, (64, 64), backend="torch"),
        ops.window(images, 0.5, limits),
    ):
        assert result.shape == images.shape


def test_the_work_does_not_grow_into_a_loop_over_images(images):
    counts = []
    for n in (6, 24):
        drawn = {name: value[:n] for name, value in recipes.views("default", 64).set_random_state(0).draw(24).items()}
        drawn["clip"][:3], drawn["sigma"][:3], drawn["noise"][:3] = (2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.01)
        with Record() as record:
            ops.make_views(images[:n], drawn, 64, backend="torch")
        assert not BANNED & set(record.names)
        counts.append(len(record.names))
    assert counts[0] == counts[1]
