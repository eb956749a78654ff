"""Options of fine-tuning: which stages train, how fast, how rare findings are weighed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from monai_simclr.data.loading import BalancedSampler
from monai_simclr.losses.labels import pos_weight
from monai_simclr.networks import FindingClassifier, encoder
from monai_simclr.networks.stages import freeze_stages, stages
from monai_simclr.optimizers import layerwise_optimizer


def _network(name: str = "resnet10") -> FindingClassifier:
    torch.manual_seed(0)
    return FindingClassifier(encoder(name, width=0.125), ["Mass", "Edema"])


@pytest.mark.parametrize("trained", [0, 1, 3])
def test_a_training_step_moves_the_trained_stages_only_batch_statistics_included(trained):
    network = freeze_stages(_network(), trained).train()
    parts = stages(network.encoder)
    before = {key: value.clone() for key, value in network.state_dict().items() if key != "_extra_state"}
    optimizer = layerwise_optimizer(network, 0.1, 0.0)
    network.train()
    network(torch.rand(4, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    names = {id(module): name for name, module in network.named_modules()}
    for i, part in enumerate(parts):
        for module in part:
            prefix = names[id(module)] + "."
            moved = [
                key
                for key, value in before.items()
                if key.startswith(prefix) and not torch.equal(value, network.state_dict()[key])
            ]
            assert bool(moved) == (i >= len(parts) - trained), prefix


def test_more_stages_than_there_are_is_refused():
    with pytest.raises(ValueError, match="n_trainable_stages is 9, but the encoder has 5 stages"):
        freeze_stages(_network(), 9)


def test_rates_fall_from_the_head_to_the_image_and_frozen_stages_have_none():
    network = freeze_stages(_network(), 2)
    rates = {round(group["lr"], 6) for group in layerwise_optimizer(network, 0.1, 0.01, 0.5).param_groups}
    assert rates == {0.1, 0.05, 0.025}
    with pytest.raises(ValueError, match="layer_decay must be greater than 0 and at most 1, got 0"):
        layerwise_optimizer(network, 0.1, 0.0, 0.0)


def _store() -> SimpleNamespace:
    mass, edema = [1.0] * 10 + [0.0] * 90, [np.nan] * 50 + [0.0] * 25 + [1.0] * 25
    return SimpleNamespace(index=pd.DataFrame({"split": "train", "Mass": mass, "Edema": edema}))


def test_class_weights_are_negatives_over_positives_of_known_labels():
    store = _store()
    assert pos_weight(store.index[["Mass", "Edema"]].to_numpy(), "class_weights") == [9.0, 1.0]
    assert pos_weight(store.index[["Mass", "Edema"]].to_numpy(), "balanced_sampling") is None
    with pytest.raises(ValueError, match="balance must be 'none', 'class_weights' or 'balanced_sampling', got 'focal'"):
        pos_weight(store.index[["Mass"]].to_numpy(), "focal")


def test_balanced_sampling_shows_a_rare_finding_as_often_as_others_and_is_a_function_of_seed_and_epoch():
    class Labelled(torch.utils.data.Dataset):
        labels = np.array([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 45 + [[0.0, np.nan]] * 150)

        def __len__(self):
            return len(self.labels)

    sampler = BalancedSampler(Labelled(), seed=3)
    drawn = []
    for epoch in range(40):
        sampler.set_epoch(epoch)
        drawn += [position for _, position in sampler]
    share = np.bincount(np.digitize(drawn, [5, 50]), minlength=3) / len(drawn)
    np.testing.assert_allclose(share, 1 / 3, atol=0.03)
    assert list(sampler) == list(sampler)
