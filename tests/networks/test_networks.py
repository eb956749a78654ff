"""The encoders, the heads, and that weights come back as they went, or not at all."""

from __future__ import annotations

import pytest
import torch

from monai_simclr.networks import (
    FindingClassifier,
    SimCLR,
    encoder,
    encoder_file,
    encoder_header,
    feature_dim,
    load_classifier,
    load_encoder,
    load_pretrained,
    save_classifier,
    save_encoder,
)
from monai_simclr.networks.chunks import batch_norms

HEADER = {"name": "resnet10", "width": "0.125", "size": "64"}


def test_the_full_resnet18_has_the_papers_size_and_a_stride_2_stem():
    net = encoder("resnet18")
    assert 11.1e6 < sum(p.numel() for p in net.parameters()) < 11.3e6
    assert net.conv1.stride == (2, 2)


def test_the_smallest_declared_shape_passes():
    assert encoder("resnet18", 0.25).eval()(torch.rand(1, 1, 16, 16)).shape == (1, 128)


def test_an_unknown_encoder_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no encoder 'vit'; choose one of \['resnet10'"):
        encoder("vit")


def test_any_module_that_makes_vectors_is_an_encoder():
    pooled = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.AdaptiveAvgPool2d(1))
    network = torch.nn.Sequential(pooled, torch.nn.Flatten()).train()
    network[0][1].eval()
    assert feature_dim(network) == 6
    assert (network.training, network[0][0].training, network[0][1].training) == (True, True, False)
    assert network[0][1].num_batches_tracked == 0
    assert SimCLR(network)(torch.rand(2, 1, 32, 32)).shape == (2, 128)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (torch.nn.Flatten(), r"Flatten must map images to vectors of one length, but makes \(4096,\) of 64-pixel"),
        (torch.nn.Conv2d(1, 2, 3), r"Conv2d must map images to vectors of one length, but makes \(2, 62, 62\)"),
        (torch.nn.Linear(5, 2), r"Linear cannot map an image \(1, 64, 64\) .* give it an integer `out_features`"),
    ],
)
def test_what_makes_no_vectors_is_refused(network, message):
    network.out_features = None
    with pytest.raises(ValueError, match=message):
        SimCLR(network)


def test_group_norm_has_no_batch_statistics_and_comes_back_from_its_file(tmp_path):
    net = encoder("resnet10", 0.125, norm="group")
    assert not batch_norms(net)
    assert batch_norms(encoder("resnet10", 0.125))
    save_encoder(tmp_path / "e.safetensors", net, {**HEADER, "norm": "group"})
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(load_encoder(tmp_path / "e.safetensors")(images), net.eval()(images))
    with pytest.raises(ValueError, match="norm must be one of batch, group, got 'instance'"):
        encoder("resnet10", norm="instance")
    with pytest.raises(ValueError, match="norm of the head must be one of batch, layer, got 'group'"):
        SimCLR(net, norm="group")


def test_an_encoder_comes_back_as_it_went(tmp_path):
    net = encoder("resnet10", 0.125).eval()
    save_encoder(tmp_path / "e.safetensors", net, HEADER)
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(load_encoder(tmp_path / "e.safetensors")(images), net(images))
    assert encoder_header(tmp_path / "e.safetensors")["size"] == "64"


def test_the_installed_encoder_is_known_by_name():
    header = encoder_header("chest_xray_resnet18")
    network = load_encoder("chest_xray_resnet18", header["name"], float(header["width"]))
    assert encoder_file("chest_xray_resnet18").stat().st_size <= 25e6
    again = load_pretrained(encoder(header["name"], float(header["width"])), "chest_xray_resnet18").eval()
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(network(images), again(images))


def test_half_precision_on_disk_halves_the_file_and_keeps_the_features(tmp_path):
    torch.manual_seed(0)
    net = encoder("resnet18", 0.5).train()
    for _ in range(3):
        net(torch.rand(8, 1, 64, 64) * 300)  # statistics that float16 could not hold
    whole = save_encoder(tmp_path / "whole.safetensors", net.eval(), {"name": "resnet18", "width": "0.5"})
    half = save_encoder(tmp_path / "half.safetensors", net, {"name": "resnet18", "width": "0.5"}, torch.float16)
    assert half.stat().st_size < 0.52 * whole.stat().st_size
    images = torch.rand(4, 1, 64, 64)
    torch.testing.assert_close(load_encoder(half)(images), net(images), rtol=2e-3, atol=2e-3)
    assert load_encoder(half).conv1.weight.dtype == torch.float32


def test_a_missing_encoder_says_what_makes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no encoder at .*run configs/pretrain.json first"):
        load_encoder(tmp_path / "none.safetensors")


def test_an_encoder_of_another_architecture_is_refused(tmp_path):
    save_encoder(tmp_path / "e.safetensors", encoder("resnet10", 0.125), HEADER)
    with pytest.raises(
        ValueError, match=r"holds resnet10 of width 0\.125 with batch .* asks for resnet18 of width 1\.0"
    ):
        load_encoder(tmp_path / "e.safetensors", "resnet18", 1.0)


def _classifier(findings=("Mass", "Edema")):
    return FindingClassifier(encoder("resnet10", 0.125), findings)


def test_a_classifier_comes_back_with_its_findings_and_without_pickle(tmp_path):
    net = _classifier().eval()
    save_classifier(tmp_path / "m.pt", net)
    extra = torch.load(tmp_path / "m.pt", weights_only=True)["_extra_state"]
    assert bytes(extra.tolist()) == b'["Mass", "Edema"]'
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(load_classifier(_classifier(), tmp_path / "m.pt")(images), net(images))


def test_a_missing_classifier_is_an_error_and_not_random_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"predictions would come from random weights; run configs/train\.json"):
        load_classifier(_classifier(), tmp_path / "none.pt")


def test_a_classifier_of_other_findings_is_refused_with_both_lists(tmp_path):
    save_classifier(tmp_path / "m.pt", _classifier())
    with pytest.raises(ValueError, match=r"\['Mass', 'Edema'\], the network is for \['Hernia'\]"):
        load_classifier(_classifier(["Hernia"]), tmp_path / "m.pt")


def test_a_classifier_of_another_encoder_is_refused(tmp_path):
    save_classifier(tmp_path / "m.pt", _classifier())
    other = FindingClassifier(encoder("resnet18", 0.25), ["Mass", "Edema"])
    with pytest.raises(ValueError, match="trained with another encoder"):
        load_classifier(other, tmp_path / "m.pt")


def test_a_frozen_encoder_keeps_its_statistics_in_training():
    net = FindingClassifier(encoder("resnet10", 0.125), ["Mass"], freeze_encoder=True).train()
    before = {key: value.clone() for key, value in net.encoder.state_dict().items()}
    net(torch.rand(4, 1, 64, 64)).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in net.encoder.state_dict().items())
    assert net.classifier.weight.grad is not None
    assert all(p.grad is None for p in net.encoder.parameters())
