"""Networks of timm: what they are asked for, and weights with other names than timm's."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import subprocess
import sys

import pytest
import torch

from monai_simclr.networks import encoder, load_pretrained
from monai_simclr.networks.timm_encoders import TimmEncoder

pytestmark = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "timm/efficientnet_lit0",
            {},
            r"timm 1\.\S+ has no network 'efficientnet_lit0'; near it are timm/efficientnet_",
        ),
        ("timm/hf-hub:timm/resnet18", {}, "has no network"),
        ("timm/vit_tiny_patch16_224", {}, "takes images of 224 pixels only; choose a convolutional network"),
        ("timm/resnet18", {"width": 0.5}, "has a width and a norm of its own; set width 1"),
        ("timm/resnet18", {"norm": "group"}, "has a width and a norm of its own; set width 1"),
    ],
)
def test_what_cannot_be_had_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        encoder(name, **options)


def test_images_are_standardized_as_the_networks_weights_expect():
    network = TimmEncoder("tf_efficientnet_lite0").eval()
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(network(images), network.net((images - 0.5) / 0.5))
    assert TimmEncoder("resnet18").std.item() == pytest.approx(0.226)


def _others(timm_names: dict[str, torch.Tensor], rgb: bool = True) -> dict[str, torch.Tensor]:
    """The state dict of an EfficientNet of timm, in the names of lukemelas's EfficientNet-PyTorch (model.py)."""
    blocks = sorted({tuple(map(int, name.split(".")[1:3])) for name in timm_names if name.startswith("blocks.")})
    inside = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    inside |= {"conv_pwl": "_project_conv", "bn3": "_bn2", "se": "_se"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2", "se": "_se"}
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    renamed = {}
    for name, value in timm_names.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            place = (int(parts[1]), int(parts[2]))
            expanded = f"blocks.{place[0]}.{place[1]}.bn3.weight" in timm_names
            tail = ".".join([(inside if expanded else first)[parts[3]], *parts[4:]]).replace("_se.conv_", "_se_")
            renamed[f"_blocks.{blocks.index(place)}.{tail}"] = value
        else:
            renamed[".".join([outside[parts[0]], *parts[1:]])] = value
    if rgb:
        renamed["_conv_stem.weight"] = renamed["_conv_stem.weight"].repeat(1, 3, 1, 1) / 3
    return {**renamed, "_fc.weight": torch.rand(1000, 1280), "_fc.bias": torch.rand(1000)}


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_b0"])
@pytest.mark.parametrize("prefix", ["", "module.encoder."])
def test_lukemelass_names_of_efficientnet_are_understood(name, prefix):
    torch.manual_seed(0)
    want = {
        key: torch.rand_like(value) if value.ndim else value
        for key, value in TimmEncoder(name).net.state_dict().items()
    }
    state = {f"{prefix}{key}": value for key, value in _others(want).items()}
    shuffled = {key: state[key] for key in sorted(state)}  # as safetensors writes them
    for key, value in load_pretrained(encoder(f"timm/{name}"), shuffled).net.state_dict().items():
        torch.testing.assert_close(value, want[key], msg=key)


def test_weights_for_tensorflows_padding_are_refused_by_a_network_without_it():
    state = _others(TimmEncoder("tf_efficientnet_lite0").net.state_dict())
    with pytest.raises(ValueError, match="need TensorFlow's padding and epsilon: choose timm/tf_efficientnet_"):
        load_pretrained(encoder("timm/efficientnet_lite0"), state)


def test_timms_own_state_dict_and_our_encoder_file_are_a_start():
    torch.manual_seed(0)
    first, second = (encoder("timm/resnet18").eval() for _ in range(2))
    images = torch.rand(2, 1, 64, 64)
    assert not torch.equal(first(images), second(images))
    for state in (
        first.net.state_dict(),
        first.state_dict(),
        {"state_dict": {**first.net.state_dict(), "fc.bias": torch.rand(9)}},
    ):
        assert torch.equal(load_pretrained(encoder("timm/resnet18"), state).eval()(images), first(images))


def test_another_process_can_unpickle_it(tmp_path):
    network = TimmEncoder("resnet18").eval()
    images = torch.rand(1, 1, 32, 32)
    (tmp_path / "e.pickle").write_bytes(pickle.dumps((copy.deepcopy(network), images, network(images))))
    code = (
        "import gc, pickle, sys; net, images, want = pickle.load(open(sys.argv[1], 'rb')); "
        "print(net(images).equal(want)); gc.freeze()"  # else two seconds of a search for garbage at the end
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "e.pickle"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"]
