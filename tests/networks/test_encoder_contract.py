"""What every encoder keeps, ours and timm's: vectors, stages, files, TorchScript and ONNX."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from monai_simclr.networks import (
    ENCODERS,
    FindingClassifier,
    SimCLR,
    encoder,
    feature_dim,
    freeze_stages,
    load_encoder,
    save_encoder,
    stages,
)

TIMM = ("timm/tf_efficientnet_lite0", "timm/convnext_atto", "timm/resnet18")
WIDTH = 0.125
DEEP = ("resnet34", "resnet50", "densenet121", "timm/tf_efficientnet_lite0")
"""Encoders of the same parts as others; ONNX needs up to 12 s for each."""


@pytest.fixture(scope="module", params=[*ENCODERS, *TIMM])
def name(request) -> str:
    if request.param.startswith("timm/") and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    return request.param


@pytest.fixture(scope="module")
def network(name):
    torch.manual_seed(0)
    return encoder(name, width(name)).eval()


def width(name: str) -> float:
    return 1.0 if name.startswith("timm/") else WIDTH


def test_gray_images_of_any_size_become_vectors_of_the_length_that_it_says(network):
    assert feature_dim(network) == network.out_features
    for size in (64, 96):
        assert network(torch.rand(2, 1, size, size)).shape == (2, network.out_features)


def test_every_parameter_is_in_one_stage(network):
    found = [id(p) for part in stages(network) for module in part for p in module.parameters()]
    assert sorted(found) == sorted(id(p) for p in network.parameters())
    assert len(stages(network)) >= 5


def test_stages_run_from_the_image_to_the_features(network):
    order: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *_, i=i: order.append(i))
        for i, part in enumerate(stages(network))
        for module in part
    ]
    network(torch.rand(1, 1, 64, 64))
    for hook in hooks:
        hook.remove()
    assert order == sorted(order)
    assert set(order) == set(range(len(stages(network))))


def test_a_step_trains_the_last_stage_and_leaves_the_others_with_their_statistics(name):
    torch.manual_seed(0)
    net = freeze_stages(FindingClassifier(encoder(name, width(name)), ["Mass"]), 1).train()
    before = {key: value.clone() for key, value in net.encoder.state_dict().items()}
    net(torch.rand(4, 1, 64, 64)).sum().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter.add_(1.0)
    names = {id(module): place for place, module in net.encoder.named_modules()}
    trained = tuple(f"{names[id(module)]}." for module in stages(net.encoder)[-1])
    moved = {key for key, value in net.encoder.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith(trained) for key in moved)


def test_it_trains_with_simclr_in_chunks(name):
    torch.manual_seed(0)
    model = SimCLR(encoder(name, width(name)), chunk_size=2).train()
    model(torch.rand(4, 1, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.encoder.parameters())


def test_it_comes_back_from_its_file(name, network, tmp_path):
    path = save_encoder(tmp_path / "e.safetensors", network, {"name": name, "width": str(width(name))})
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(load_encoder(path)(images), network(images))


def test_it_becomes_torchscript(network):
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        traced = torch.jit.trace(network, torch.zeros(2, 1, 64, 64))
        torch.testing.assert_close(traced(images), network(images))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in (*ENCODERS, *TIMM)],
    indirect=True,
)
def test_it_becomes_onnx(network, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.onnx.export(
        network,
        (torch.zeros(2, 1, 64, 64),),
        tmp_path / "e.onnx",
        input_names=["image"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
    )
    images = torch.rand(3, 1, 64, 64)
    got = runtime.InferenceSession(tmp_path / "e.onnx").run(None, {"image": images.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(got, network(images).numpy(), rtol=1e-3, atol=1e-4)
