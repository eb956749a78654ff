from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import ContrastiveLoss
from nt_xent_oracles import MODES, batch, pair_by_pair, row_by_row, value_and_gradient
from torch import Tensor

from monai_simclr.losses import nt_xent, tiles


def assert_same(
    z: Tensor, ids: Tensor, temperature: float, n_views: int, mode: str, decoupled: bool, block: int
) -> None:
    want = value_and_gradient(lambda x: pair_by_pair(x, ids.tolist(), temperature, n_views, mode, decoupled), z)
    got = value_and_gradient(
        lambda x: nt_xent(x, ids, temperature, n_views=n_views, same_group=mode, decoupled=decoupled, block=block),
        z,
    )
    assert got[0] == pytest.approx(want[0], rel=1e-9, abs=1e-9)
    torch.testing.assert_close(got[1], want[1], rtol=1e-7, atol=1e-9 * float(want[1].abs().max()) + 1e-12)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("n_views", "block"), [(2, 1024), (2, 5), (3, 7), (4, 1)])
def test_value_and_gradient_are_those_of_the_definition(mode: str, decoupled: bool, n_views: int, block: int) -> None:
    for temperature in (0.005, 0.1, 10.0):
        z, ids = batch(7, 6, n_views, groups=4)
        assert_same(z, ids, temperature, n_views, mode, decoupled, block)


@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(2, 16),
    width=st.integers(1, 128),
    temperature=st.floats(0.005, 10),
    block=st.integers(1, 40),
    mode=st.sampled_from(MODES),
    decoupled=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_shape_any_temperature_any_tile(images, width, temperature, block, mode, decoupled, seed) -> None:
    z, ids = batch(images, width, groups=max(2, images // 2), seed=seed)
    assert_same(z, ids, temperature, 2, mode, decoupled, block)


def test_the_two_oracles_agree() -> None:
    z, ids = batch(9, 5, groups=6)
    for temperature in (0.005, 0.1, 10.0):
        want = value_and_gradient(lambda x, t=temperature: pair_by_pair(x, ids.tolist(), t), z)
        got = value_and_gradient(lambda x, t=temperature: row_by_row(x, ids, t), z)
        assert got[0] == pytest.approx(want[0], rel=1e-12)
        torch.testing.assert_close(got[1], want[1], rtol=1e-9, atol=1e-12)


def assert_near(z: Tensor, ids: Tensor, temperature: float, dtype: torch.dtype, block: int) -> None:
    """Within what float32 allows: a similarity, up to 1/T, is off by some 1e-7 of that, and so is the value.

    A row's gradient is a sum of pulls of up to 1 / (T * rows * length), and is off by four times that share. What
    comes in as bfloat16 or float16 goes to the oracle after rounding; its gradient is rounded at the end.
    """
    rounded = z.to(dtype)
    want = value_and_gradient(lambda x: row_by_row(x, ids, temperature), rounded.double())
    got = value_and_gradient(lambda x: nt_xent(x, ids, temperature, block=block), rounded)
    near = 2 * torch.finfo(torch.float32).eps * max(1.0, 1 / temperature)
    assert got[0] == pytest.approx(want[0], rel=near, abs=near)
    assert got[1].dtype == dtype
    pull = 1 / (temperature * len(z) * rounded.double().norm(dim=1, keepdim=True))
    allowed = torch.finfo(dtype).eps * want[1].abs() + 4 * near * pull + torch.finfo(dtype).smallest_normal
    assert ((got[1].double() - want[1]).abs() <= allowed).all()


@pytest.mark.parametrize("temperature", [0.005, 0.02, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("width", [1, 2, 17, 128])
@pytest.mark.parametrize(("images", "block"), [(2, 512), (3, 4), (17, 5), (64, 29)])
def test_float32_is_the_float64_loop(images: int, block: int, width: int, temperature: float) -> None:
    z, ids = batch(images, width, groups=max(2, images * 2 // 3))
    assert_near(z, ids, temperature, torch.float32, block)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [0.005, 0.1, 10.0])
@pytest.mark.parametrize(("images", "width"), [(2, 1), (17, 8), (64, 128)])
def test_half_precision_input_is_computed_in_float32(
    images: int, width: int, temperature: float, dtype: torch.dtype
) -> None:
    z, ids = batch(images, width, groups=max(2, images * 2 // 3))
    assert_near(z, ids, temperature, dtype, 0)


@pytest.mark.parametrize("temperature", [0.005, 0.1, 10.0])
def test_hundreds_of_rows_in_ragged_tiles(temperature: float) -> None:
    z, ids = batch(300, 128, groups=200)
    assert_near(z, ids, temperature, torch.float32, 256)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_gradcheck(mode: str, temperature: float) -> None:
    z, ids = batch(5, 4, groups=3)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: nt_xent(x, ids, temperature, same_group=mode, block=4), (z,))


@pytest.mark.parametrize("temperature", [0.02, 0.1])
def test_tiles_computed_again_give_what_kept_tiles_give(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    z, ids = batch(12, 8, groups=5)
    kept = value_and_gradient(lambda x: nt_xent(x, ids, temperature, block=7), z)
    monkeypatch.setattr(tiles, "KEPT_BYTES", 0)
    again = value_and_gradient(lambda x: nt_xent(x, ids, temperature, block=7), z)
    assert kept[0] == again[0]
    torch.testing.assert_close(kept[1], again[1], rtol=1e-12, atol=1e-14)


def test_a_second_backward_pass_gives_the_same_gradient() -> None:
    z, ids = batch(6, 4)
    z.requires_grad_()
    loss = nt_xent(z, ids)
    first = torch.autograd.grad(loss, z, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], first, rtol=0, atol=0)


def test_the_value_of_monai_where_monai_is_valid() -> None:
    z, ids = batch(16, 32)
    for temperature in (0.1, 0.5, 2.0):
        want = ContrastiveLoss(temperature=temperature)(z[:16].float(), z[16:].float()).item()
        assert nt_xent(z.float(), ids, temperature).item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "published"),
    [
        ([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]], 1.0986),
        ([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]], 0.8719),
    ],
)
def test_the_values_that_monai_publishes_in_its_tests(first: list, second: list, published: float) -> None:
    z = torch.tensor(first + second)
    assert nt_xent(z, torch.tensor([0, 1, 0, 1]), 0.5).item() == pytest.approx(published, abs=1e-4)


def test_low_temperature_is_finite_where_monai_is_not() -> None:
    z, ids = batch(16, 32)
    z[16:] = z[:16]
    assert not math.isfinite(ContrastiveLoss(temperature=0.005)(z[:16].float(), z[16:].float()).item())
    value, gradient = value_and_gradient(lambda x: nt_xent(x, ids, 0.005), z.float())
    assert value == pytest.approx(pair_by_pair(z, ids.tolist(), 0.005, 2, "exclude", False).item(), abs=1e-4)
    assert gradient.isfinite().all()


def test_autocast_changes_nothing() -> None:
    z, ids = batch(16, 32)
    plain = value_and_gradient(lambda x: nt_xent(x, ids, 0.05), z.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = value_and_gradient(lambda x: nt_xent(x, ids, 0.05), z.float())
    assert cast[0] == plain[0]
    torch.testing.assert_close(cast[1], plain[1], rtol=0, atol=0)


def test_order_of_images_and_of_views_and_scale_do_not_matter() -> None:
    z, ids = batch(9, 8, groups=6)
    want = nt_xent(z, ids).item()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([order, order + 9])
    assert nt_xent(z[rows], ids[rows]).item() == pytest.approx(want, rel=1e-12)
    assert nt_xent(z.roll(9, 0), ids).item() == pytest.approx(want, rel=1e-12)
    assert nt_xent(z * 37.0, ids).item() == pytest.approx(want, rel=1e-12)


def test_zero_projections_are_not_nan() -> None:
    value, gradient = value_and_gradient(lambda x: nt_xent(x, torch.tensor([0, 1, 0, 1])), torch.zeros(4, 3))
    assert value == pytest.approx(math.log(3))
    assert gradient.isfinite().all()


def test_a_zero_projection_has_no_gradient_and_does_not_affect_others() -> None:
    z, ids = batch(4, 3)
    z[2] = 0.0
    value, gradient = value_and_gradient(lambda x: nt_xent(x, ids), z)
    assert math.isfinite(value)
    assert torch.equal(gradient[2], torch.zeros(3, dtype=torch.float64))
    assert gradient.abs().max() < 100


MEASURE = """
import sys, torch
from pathlib import Path
from monai_simclr.losses import nt_xent

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

torch.set_num_threads(1)
images = int(sys.argv[1])
nt_xent(torch.rand(32, 128, requires_grad=True), torch.arange(16).repeat(2)).backward()
z, before = torch.rand(2 * images, 128, requires_grad=True), resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
nt_xent(z, torch.arange(images).repeat(2)).backward()
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_memory_grows_with_the_batch_and_not_with_its_square() -> None:
    def megabytes(images: int) -> float:
        done = subprocess.run([sys.executable, "-c", MEASURE, str(images)], capture_output=True, text=True, check=True)
        return float(done.stdout)

    matrix = 8192**2 * 4 / 2**20  # one float32 matrix of all similarities of 4,096 images in two views
    assert megabytes(4096) < matrix / 5
