"""The operations on batches, whatever the layout of a tensor in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_simclr import ops
from monai_simclr.transforms import RandRadiographView

DRAWN = RandRadiographView(size=24).set_random_state(2).draw(3)
BOTH = {
    "clahe": ops.clahe,
    "clahe in torch": lambda images: ops.clahe(images, backend="torch"),
    "gaussian_blur": lambda images: ops.gaussian_blur(images, 1.5),
    "gaussian_blur in torch": lambda images: ops.gaussian_blur(images, 1.5, backend="torch"),
    "adjust": lambda images: ops.adjust(images, 1.2, 0.9),
    "adjust in torch": lambda images: ops.adjust(images, 1.2, 0.9, backend="torch"),
    "window": lambda images: ops.window(images, 0.5, 0.7),
    "warp": lambda images: ops.warp(images, np.tile([[1.0, 0.1, 2.0], [0.0, 0.9, 1.0]], (3, 1, 1)), (20, 20)),
    "make_views": lambda images: ops.make_views(images[:, :1], DRAWN, 24),
    "make_views in torch": lambda images: ops.make_views(images[:, :1], DRAWN, 24, backend="torch"),
    "locate_lungs": lambda images: torch.from_numpy(np.asarray(ops.locate_lungs(images[:, :1]).boxes)),
}
LAYOUTS = {
    "transposed": lambda images: images.transpose(2, 3).contiguous().transpose(2, 3),
    "strided": lambda images: images.repeat_interleave(2, 3)[..., ::2],
    "channels_last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "batch last": lambda images: images.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "expanded": lambda images: images[:1, :, :1].expand(images.shape),
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operation", BOTH)
def test_the_layout_of_a_tensor_changes_no_result(operation, layout, dtype):
    images = torch.rand(3, 2, 32, 40, generator=torch.Generator().manual_seed(0))
    images = (images * 255).to(torch.uint8) if dtype == torch.uint8 else images
    laid_out = LAYOUTS[layout](images)
    assert not laid_out.is_contiguous()
    want = BOTH[operation](laid_out.clone(memory_format=torch.contiguous_format))
    tolerance = 1e-6 if want.is_floating_point() else 0  # torch's vectorized pow rounds unlike its plain one
    torch.testing.assert_close(BOTH[operation](laid_out), want, rtol=0, atol=tolerance)
