"""Encoders that start from weights with the names and shapes that torchvision and torchxrayvision write."""

from __future__ import annotations

import argparse
import importlib.util
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from monai_simclr.networks import encoder, load_pretrained

RESNETS = {"resnet18": (2, [2, 2, 2, 2]), "resnet50": (3, [3, 4, 6, 3])}


def _norm(name, channels):
    return {
        f"{name}.weight": torch.rand(channels),
        f"{name}.bias": torch.rand(channels),
        f"{name}.running_mean": torch.rand(channels),
        f"{name}.running_var": torch.rand(channels) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def _conv(name, out, into, size):
    return {f"{name}.weight": torch.randn(out, into, size, size) / (into * size * size) ** 0.5}


def torchvision_resnet(name, channels=3):
    """Names and shapes of `torchvision.models.resnet18/50().state_dict()`, random values."""
    convs, blocks = RESNETS[name]
    state = {**_conv("conv1", 64, channels, 7), **_norm("bn1", 64)}
    into = 64
    for stage, count in enumerate(blocks):
        planes = 64 * 2**stage
        out = planes * (4 if convs == 3 else 1)
        for block in range(count):
            at = f"layer{stage + 1}.{block}"
            widths = [planes, planes, out] if convs == 3 else [planes, planes]
            sizes = [1, 3, 1] if convs == 3 else [3, 3]
            source = into
            for number, (width, size) in enumerate(zip(widths, sizes, strict=True), start=1):
                state |= {**_conv(f"{at}.conv{number}", width, source, size), **_norm(f"{at}.bn{number}", width)}
                source = width
            if block == 0 and into != out:
                state |= {**_conv(f"{at}.downsample.0", out, into, 1), **_norm(f"{at}.downsample.1", out)}
            into = out
    return {**state, "fc.weight": torch.randn(1000, into), "fc.bias": torch.randn(1000)}


def torchvision_densenet(channels=3, dotted=False):
    """Names and shapes of `torchvision.models.densenet121().state_dict()`; `dotted` as in its file of 2017."""
    state = {**_conv("features.conv0", 64, channels, 7), **_norm("features.norm0", 64)}
    dot, width = "." if dotted else "", 64
    for block, count in enumerate([6, 12, 24, 16], start=1):
        for layer in range(1, count + 1):
            at = f"features.denseblock{block}.denselayer{layer}"
            state |= {**_norm(f"{at}.norm{dot}1", width), **_conv(f"{at}.conv{dot}1", 128, width, 1)}
            state |= {**_norm(f"{at}.norm{dot}2", 128), **_conv(f"{at}.conv{dot}2", 32, 128, 3)}
            width += 32
        if block < 4:
            at = f"features.transition{block}"
            state |= {**_norm(f"{at}.norm", width), **_conv(f"{at}.conv", width // 2, width, 1)}
            width //= 2
    return {**state, **_norm("features.norm5", width), "classifier.weight": torch.randn(1000, width)}


def _stem(state):
    return state["conv1.weight" if "conv1.weight" in state else "features.conv0.weight"]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_an_encoder_takes_torchvisions_weights_and_answers_gray_as_three_equal_channels_would(name):
    torch.manual_seed(0)
    state = torchvision_densenet() if name == "densenet121" else torchvision_resnet(name)
    net = load_pretrained(encoder(name), state).eval()
    stem = net.conv1 if name != "densenet121" else net.features.conv0
    gray = torch.rand(2, 1, 64, 64)
    want = torch.conv2d(gray.repeat(1, 3, 1, 1), _stem(state), stride=2, padding=3)
    torch.testing.assert_close(stem(gray), want, rtol=1e-5, atol=1e-5)
    ours = net.state_dict()
    last = "features.norm5.running_var" if name == "densenet121" else "layer4.1.bn2.running_var"
    assert torch.equal(ours[last], state[last])
    assert net(gray).isfinite().all()


def test_torchxrayvisions_names_are_understood():
    resnet = {f"model.{name}": value for name, value in torchvision_resnet("resnet50", channels=1).items()}
    net = load_pretrained(encoder("resnet50"), {**resnet, "op_threshs": torch.rand(18)})
    assert torch.equal(net.conv1.weight, resnet["model.conv1.weight"])
    dense = torchvision_densenet(channels=1)
    net = load_pretrained(
        encoder("densenet121"), {**dense, "op_threshs": torch.rand(18), "classifier.bias": torch.rand(18)}
    )
    assert torch.equal(net.features.conv0.weight, dense["features.conv0.weight"])


def test_the_dotted_names_of_torchvisions_oldest_files_are_understood():
    old = torchvision_densenet(dotted=True)
    net = load_pretrained(encoder("densenet121"), old)
    last = net.state_dict()["features.denseblock4.denselayer16.layers.conv2.weight"]
    assert torch.equal(last, old["features.denseblock4.denselayer16.conv.2.weight"])


def test_files_from_torch_and_safetensors_are_read(tmp_path):
    state = torchvision_resnet("resnet18")
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        net = load_pretrained(encoder("resnet18"), tmp_path / name)
        assert torch.equal(net.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])
    torch.save(torch.rand(3), tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"b\.pth holds a Tensor, not a state dict; save model\.state_dict\(\)"):
        load_pretrained(encoder("resnet18"), tmp_path / "b.pth")


def test_counts_of_batches_may_be_missing_as_in_old_files():
    state = {name: v for name, v in torchvision_resnet("resnet18").items() if "num_batches" not in name}
    assert load_pretrained(encoder("resnet18"), state).bn1.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("resnet18", {"layer4.1.bn2.bias": None}, "1 weights are missing, the first is 'layer4.1.bn2.bias'"),
        ("resnet18", {"layer9.weight": torch.rand(1)}, "1 have no place, the first is 'layer9.weight'"),
        ("resnet50", {}, r"^120 weights do not fit the 318 of ResNet: .*they are those of encoder\('resnet18'\)"),
        ("densenet121", {}, r"weights are missing.*they are those of encoder\('resnet18'\), with norm='batch'"),
        ("resnet18", {"bn1.bias": torch.rand(3)}, r"bn1.bias has the shape \(3,\), the encoder's is \(64,\)"),
    ],
)
def test_weights_of_another_architecture_are_refused(name, change, message):
    state = {**torchvision_resnet("resnet18"), **change}
    net = encoder(name)
    before = next(net.parameters()).clone()
    with pytest.raises(ValueError, match=message):
        load_pretrained(net, {key: value for key, value in state.items() if value is not None})
    assert torch.equal(next(net.parameters()), before)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_the_features_are_torchvisions_own(name):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("torchvision comes with timm, which is not installed")
    encoder("timm/resnet18")  # lets a torchvision for CUDA be imported beside a torch for CPUs
    models = importlib.import_module("torchvision.models")
    theirs = getattr(models, name)()
    made_up = torchvision_densenet() if name == "densenet121" else torchvision_resnet(name)
    names = {key: value.shape for key, value in theirs.state_dict().items() if key != "classifier.bias"}
    assert {key: value.shape for key, value in made_up.items()} == names
    net = load_pretrained(encoder(name), theirs.state_dict()).eval()
    setattr(theirs, "classifier" if name == "densenet121" else "fc", torch.nn.Identity())
    gray = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(net(gray), theirs.eval()(gray.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4)


_RESNET = torchvision_resnet("resnet18")
_OTHERS = {name: torch.randn_like(value) if value.is_floating_point() else value for name, value in _RESNET.items()}
_CUT = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
_HEAD = {"0.weight": torch.rand(512, 512), "2.weight": torch.rand(128, 512), "2.bias": torch.rand(128)}


def _below(prefix, state=None, head=True):
    state = _RESNET if state is None else state
    return {f"{prefix}{name}": value for name, value in state.items() if head or not name.startswith("fc.")}


def _numbered(prefix):
    parts = {name: name.split(".", 1) for name in _RESNET if not name.startswith("fc.")}
    return {f"{prefix}{_CUT[first]}.{rest}": _RESNET[name] for name, (first, rest) in parts.items()}


def _transformers(state):
    """Names of `transformers.ResNetModel`, from modeling_resnet.py: ResNetConvLayer, ResNetShortCut, ResNetStage."""
    renamed = {}
    for name, value in state.items():
        stem = re.fullmatch(r"(conv|bn)1\.(\w+)", name)
        inside = re.fullmatch(r"layer(\d)\.(\d)\.(?:(conv|bn)(\d)|downsample\.(\d))\.(\w+)", name)
        if stem:
            kind = "convolution" if stem[1] == "conv" else "normalization"
            renamed[f"embedder.embedder.{kind}.{stem[2]}"] = value
        elif inside:
            stage, block, part, number, cut, tail = inside.groups()
            kind = "convolution" if "conv" in (part, {"0": "conv"}.get(cut or "")) else "normalization"
            where = "shortcut" if cut else f"layer.{int(number) - 1}"
            renamed[f"encoder.stages.{int(stage) - 1}.layers.{block}.{where}.{kind}.{tail}"] = value
    return renamed


# The form of the files, after what each project's code writes.
FORMS = {
    "timm, {'model': ...}": {"model": _RESNET, "optimizer": {"state": {0: {"exp_avg": torch.rand(3)}}}, "epoch": 3},
    "torch.compile": _below("_orig_mod."),
    "torch.compile inside DistributedDataParallel": _below("module._orig_mod."),
    "a compiled stage": {name.replace("layer1.", "layer1._orig_mod."): value for name, value in _RESNET.items()},
    "lightly, Sequential of children": {
        "state_dict": {**_numbered("backbone."), **_below("projection_head.layers.", _HEAD)}
    },
    "lightly, named backbone": {
        "state_dict": {**_below("backbone.", head=False), **_below("projection_head.layers.", _HEAD)}
    },
    "solo-learn": {"state_dict": {**_below("backbone.", head=False), **_below("projector.", _HEAD)}, "epoch": 1},
    "solo-learn, older": {"state_dict": {**_below("encoder.", head=False), **_below("projector.", _HEAD)}},
    "MoCo v1 and v2, MoCo-CXR": {
        "arch": "resnet18",
        "state_dict": {
            **_below("module.encoder_k.", _OTHERS),
            **_below("module.encoder_q."),
            "module.queue": torch.rand(2),
        },
    },
    "MoCo v3": {"state_dict": {**_below("module.momentum_encoder.", _OTHERS), **_below("module.base_encoder.")}},
    "SimSiam": {"state_dict": {**_below("module.encoder."), **_below("module.predictor.", _HEAD)}},
    "BYOL": {**_below("target_encoder.net.", _OTHERS), **_below("online_encoder.net.")},
    "DINO": {"teacher": _below("backbone.", _OTHERS, False), "student": _below("module.backbone.", head=False)},
    "Barlow Twins": {"model": {**_below("module.backbone.", head=False), **_below("module.projector.", _HEAD)}},
    "SwAV": {
        **_below("module.", head=False),
        **_below("module.projection_head.", _HEAD),
        "module.prototypes.weight": torch.rand(2),
    },
    "VISSL": {
        "classy_state_dict": {"base_model": {"model": {"trunk": _below("_feature_blocks.", head=False), "heads": {}}}}
    },
    "Spijkervet's SimCLR": {**_below("encoder.", head=False), **_below("projector.", _HEAD)},
    "MMPretrain": {"meta": {"epoch": 3}, "state_dict": {**_below("backbone.", head=False), **_below("head.", _HEAD)}},
    "MONAI's CheckpointSaver": {"net": _below("module.encoder.", head=False), "trainer": {"epoch": 3}},
    "transformers": {f"resnet.{name}": value for name, value in _transformers(_RESNET).items()},
    "an averaged encoder and nothing else": {"momentum_encoder": _below("", head=False)},
    "Lightning": {"state_dict": _below("model.encoder."), "pytorch-lightning_version": "2.4", "lr_schedulers": []},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_encoder_is_found_in_the_checkpoints_of_others(form, tmp_path):
    torch.save(FORMS[form], tmp_path / "theirs.pth")
    net = load_pretrained(encoder("resnet18"), tmp_path / "theirs.pth")
    want = {**_RESNET, "conv1.weight": _RESNET["conv1.weight"].sum(1, keepdim=True)}
    for name, value in net.state_dict().items():
        assert torch.equal(value, want[name]), name


def test_a_deeper_network_of_the_same_family_is_refused_in_every_form():
    deeper = {**_RESNET, **_conv("layer1.2.conv1", 64, 64, 3)}
    with pytest.raises(ValueError, match=r"1 have no place, the first is 'layer1\.2\.conv1\.weight'"):
        load_pretrained(encoder("resnet18"), {"state_dict": _below("module.encoder_q.", deeper)})


def test_the_advice_names_prefix_width_and_what_is_no_encoder_at_all():
    narrow = encoder("resnet18", width=0.25).state_dict()
    with pytest.raises(ValueError, match=r"below 'model\.'.*those of encoder\('resnet18', width=0\.25\)"):
        load_pretrained(encoder("resnet50"), _below("model.", narrow))
    with pytest.raises(ValueError, match=r"\(16, .*those of encoder\('resnet18', width=0\.25\)"):
        load_pretrained(encoder("resnet18"), narrow)
    vit = {"model": {"cls_token": torch.rand(1, 1, 8), "blocks.0.attn.qkv.weight": torch.rand(24, 8)}}
    with pytest.raises(
        ValueError, match=r"holds 2 tensors, the first is 'model\.cls_token', which no encoder here has"
    ):
        load_pretrained(encoder("resnet18"), vit)


def test_arguments_and_scores_that_projects_store_beside_the_weights_are_read(tmp_path):
    beside = {"args": argparse.Namespace(arch="resnet18", lr=0.1), "best_acc1": np.float64(71.5), "epoch": 3}
    torch.save({"student": _below("module.backbone.", head=False), **beside}, tmp_path / "dino.pth")
    net = load_pretrained(encoder("resnet18"), tmp_path / "dino.pth")
    assert torch.equal(net.bn1.bias, _RESNET["bn1.bias"])


def test_a_file_that_needs_code_to_be_read_is_refused_with_what_to_do(tmp_path):
    torch.save({"state_dict": _RESNET, "hyper_parameters": torch.nn.Linear(1, 1)}, tmp_path / "whole.ckpt")
    with pytest.raises(ValueError, match=r"whole\.ckpt holds more than weights.*pass model\.state_dict\(\)"):
        load_pretrained(encoder("resnet18"), tmp_path / "whole.ckpt")
