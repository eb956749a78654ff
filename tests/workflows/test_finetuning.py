"""Options of fine-tuning: which stages train, how fast, how rare findings are weighed."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from monai_simclr import recipes
from monai_simclr.data import KeyedSampler, Store, StoreDataset, loader
from monai_simclr.data.loading import BalancedSampler
from monai_simclr.engines import PrepareLabelled
from monai_simclr.handlers import Checkpoint
from monai_simclr.losses import MaskedBCEWithLogits
from monai_simclr.losses.labels import pos_weight
from monai_simclr.networks import FindingClassifier, encoder
from monai_simclr.networks.stages import freeze_stages, stages
from monai_simclr.optimizers import layerwise_optimizer
from monai_simclr.workflows import FewLabelStart


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


def test_frozen_stages_stay_frozen_when_batch_normalization_is_synchronized_over_gpus():
    network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(freeze_stages(_network(), 1)).train()
    assert not network.encoder.bn1.training
    assert network.encoder.layer4[0].bn1.training


def test_more_stages_than_there_are_is_refused():
    with pytest.raises(ValueError, match="n_trainable_stages is 9, but the encoder has 5 stages"):
        freeze_stages(_network(), 9)


def test_rates_fall_from_the_head_to_the_image_and_frozen_stages_have_none():
    network = freeze_stages(_network(), 2)
    rates = {round(group["lr"], 6) for group in layerwise_optimizer(network, 0.1, 0.01, 0.5).param_groups}
    assert rates == {0.1, 0.05, 0.025}
    with pytest.raises(ValueError, match="layer_decay must be greater than 0 and at most 1, got 0"):
        layerwise_optimizer(network, 0.1, 0.0, 0.0)


class Tokens(torch.nn.Module):
    """As in a vision transformer: some parameters belong to the encoder itself, not to a part of it."""

    out_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.position = torch.nn.Parameter(torch.zeros(1, 8))
        self.patches = torch.nn.Linear(16, 8)
        self.blocks = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.patches(images.flatten(1)[:, :16]) + self.position)


@pytest.mark.parametrize(("n_trainable_stages", "trains"), [(0, False), (1, False), (2, True), (None, True)])
def test_parameters_in_no_stage_train_only_if_all_stages_do(n_trainable_stages, trains):
    network = freeze_stages(FindingClassifier(Tokens(), ["Mass"]), n_trainable_stages)
    assert len(stages(network.encoder)) == 2
    assert network.encoder.position.requires_grad == trains
    assert network.encoder.blocks[2].weight.requires_grad == (n_trainable_stages != 0)
    assert network.encoder.patches.weight.requires_grad == trains


def test_parameters_in_no_stage_have_the_rate_of_the_first():
    network = FindingClassifier(Tokens(), ["Mass"])
    rates = {
        id(parameter): group["lr"]
        for group in layerwise_optimizer(network, 0.1, 0.01, 0.5).param_groups
        for parameter in group["params"]
    }
    assert set(rates) == {id(parameter) for parameter in network.parameters()}
    assert rates[id(network.encoder.position)] == rates[id(network.encoder.patches.weight)] == 0.025
    assert rates[id(network.encoder.blocks[0].weight)] == 0.05


def test_an_encoder_without_stages_is_frozen_and_trained_as_a_whole():
    class One(torch.nn.Module):
        out_features = 1

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((1, 2, 3))[:, None] * self.scale

    assert not freeze_stages(FindingClassifier(One(), ["Mass"]), 0).encoder.scale.requires_grad
    network = FindingClassifier(One(), ["Mass"])
    groups = layerwise_optimizer(network, 0.1, 0.0, 0.5).param_groups
    assert {group["lr"] for group in groups if group["params"][0] is network.encoder.scale} == {0.05}


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


ROWS = np.arange(3, 39)
"""Labelled rows of `_drawn`."""


def _drawn() -> Store:
    """Noise whose brightness is a finding; of the other one, half the labels are unknown."""
    rng = np.random.default_rng(0)
    mass = np.arange(40) % 2
    images = (rng.integers(0, 160, (40, 40, 40)) + 60 * mass[:, None, None]).astype(np.uint8)
    edema = np.where(np.arange(40) < 20, np.nan, rng.integers(0, 2, 40))
    patients = [f"p{row}" for row in range(40)]
    index = pd.DataFrame({"image": patients, "patient_id": patients, "split": "train", "Mass": mass, "Edema": edema})
    return Store(images, index, pd.DataFrame({"image": [], "reason": []}), {})


def _labelled() -> StoreDataset:
    return StoreDataset(_drawn(), ["train"], ["Mass", "Edema"], recipes.augmentation(32), rows=ROWS)


def _trainer(network: FindingClassifier, epochs: int = 3, **settings) -> SupervisedTrainer:
    labelled = _labelled()
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader(labelled, KeyedSampler(labelled, 0), 8, 0, 0),
        network=network,
        optimizer=layerwise_optimizer(network, 1e-3, 0.0),
        loss_function=MaskedBCEWithLogits(),
        prepare_batch=PrepareLabelled(),
        train_handlers=[FewLabelStart(network, labelled, **settings)],
        decollate=False,
    )


def _started(network: FindingClassifier, **settings) -> FindingClassifier:
    """A network as it is when the first epoch begins."""
    trainer = _trainer(network, **settings)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: engine.terminate())
    trainer.add_event_handler(Events.STARTED, lambda engine: network.eval())
    trainer.run()
    return network


@pytest.mark.parametrize("views", [1, 3])
def test_the_last_layer_starts_as_scikit_learns_logistic_regression_on_standardised_features(views):
    network, labelled = _started(_network(), head_views=views).eval(), _labelled()
    items = [labelled[epoch, position] for epoch in range(views) for position in range(len(labelled))]
    labels, images = (torch.stack([item[name] for item in items]) for name in ("label", "image"))
    with torch.no_grad():
        images = images / 255
        features, logits = network.encoder(images).double().numpy(), network(images).numpy()
    for column, found in zip(labels.numpy().T, logits.T, strict=True):
        known, scaler = np.isfinite(column), StandardScaler().fit(features)
        oracle = LogisticRegression(C=0.01 / views, max_iter=1000).fit(scaler.transform(features[known]), column[known])
        np.testing.assert_allclose(found, oracle.decision_function(scaler.transform(features)), atol=1e-4)


def test_with_class_weights_the_last_layer_is_balanced_too():
    network, weighted = _started(_network()), _started(_network(), balance="class_weights")
    assert not torch.equal(network.classifier.bias, weighted.classifier.bias)


@pytest.mark.parametrize("settings", [{"pretrained": False}, {"head_start": "random"}])
def test_a_random_encoder_gets_no_probe_and_a_random_start_stays_one(settings):
    network = _network()
    before = copy.deepcopy(network.state_dict())
    _started(network, freeze_batch_norm_below=100, **settings)
    assert torch.equal(before["classifier.weight"], network.classifier.weight)
    assert network.train().encoder.bn1.training == (not settings.get("pretrained", True))


@pytest.mark.parametrize(("below", "frozen"), [(36, False), (37, True)])
def test_batch_statistics_are_kept_below_that_many_labelled_images_while_weights_train(below, frozen):
    network = _network()
    before = copy.deepcopy(network.state_dict())
    _trainer(network, epochs=1, freeze_batch_norm_below=below).run()
    after = network.state_dict()
    for name in (name for name in before if name.startswith("encoder")):
        statistic = "running" in name or "tracked" in name
        assert torch.equal(before[name], after[name]) == (statistic and frozen), name


def test_an_unknown_start_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="head_start is one of probe, random, of 1 view or more; got 'zero' of 8"):
        FewLabelStart(_network(), _labelled(), head_start="zero")


def test_a_run_that_is_stopped_and_resumed_ends_with_the_weights_of_one_that_was_not(tmp_path: Path):
    def weights(folder: Path, stop_after: int = 0) -> dict[str, torch.Tensor]:
        network = _network()
        made = _trainer(network, freeze_batch_norm_below=100)
        Checkpoint(
            folder, {"network": network, "optimizer": made.optimizer}, {"run": "test"}, every_iterations=1
        ).attach(made)
        if stop_after:
            made.add_event_handler(Events.ITERATION_COMPLETED(once=stop_after), lambda engine: engine.terminate())
        made.run()
        return {name: value for name, value in network.state_dict().items() if name != "_extra_state"}

    whole = weights(tmp_path / "whole")
    stopped = weights(tmp_path / "parts", stop_after=6)
    resumed = weights(tmp_path / "parts")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert not torch.equal(stopped["encoder.conv1.weight"], resumed["encoder.conv1.weight"])
