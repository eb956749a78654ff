"""What a training step does not pay for: metadata in the network."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_simclr.engines import PrepareLabelled, PrepareTwoViews


@pytest.mark.parametrize(
    ("prepare", "keys"), [(PrepareTwoViews(), ("image_1", "image_2")), (PrepareLabelled(), ("image",))]
)
def test_a_network_gets_plain_tensors_whatever_the_loader_gives(prepare, keys):
    batch = {key: MetaTensor(torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)) for key in keys}
    images, _ = prepare(batch)
    assert type(images) is torch.Tensor
    assert torch.equal(images, torch.cat([batch[key].as_tensor() for key in keys]) / 255)


def test_a_relu_in_place_copies_no_gradient_of_plain_images_but_does_of_metatensors():
    def history(images):
        return type(torch.relu_(torch.nn.Conv2d(1, 1, 1)(images)).grad_fn).__name__

    images = MetaTensor(torch.rand(2, 1, 8, 8))
    assert "Relu" in history(PrepareLabelled()({"image": images})[0])
    assert "Relu" not in history(images)  # the reason; when MONAI mends it, the copy in PrepareTwoViews may go
