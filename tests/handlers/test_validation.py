"""Scores during training: the validation metric, early stopping by it, and the linear probe."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer
from monai.handlers import ValidationHandler
from sklearn.metrics import roc_auc_score

from monai_simclr.handlers import EarlyStopping, LinearProbe, MeanAUROC


def _train(
    scores: list[float], patience: int, restore_best: bool = True, from_start: bool = False
) -> tuple[Engine, EarlyStopping, torch.nn.Linear]:
    network = torch.nn.Linear(1, 1, bias=False)
    waiting = iter(scores)

    def validate(engine, batch):
        engine.state.metrics["val_mean_auroc"] = next(waiting)

    validator, trainer = Engine(validate), Engine(lambda engine, batch: None)
    best = EarlyStopping(validator, network, patience, restore_best=restore_best)

    @trainer.on(Events.EPOCH_COMPLETED)
    def _(engine):
        network.weight.data.fill_(float(engine.state.epoch))
        validator.run([0])

    if from_start:
        trainer.add_event_handler(Events.STARTED, lambda engine: network.weight.data.zero_())
        trainer.add_event_handler(Events.STARTED, lambda engine: validator.run([0]))
    best.attach(trainer)
    trainer.run([0], max_epochs=len(scores) - from_start)
    return trainer, best, network


def test_the_best_weights_are_restored_and_training_stops_without_improvement():
    trainer, best, network = _train([0.6, 0.8, 0.7, 0.7, 0.9, 0.5], patience=2)
    assert (trainer.state.epoch, best.best, best.best_epoch) == (4, 0.8, 2)
    assert network.weight.item() == 2


def test_training_that_improves_nothing_ends_with_the_weights_it_started_from():
    trainer, best, network = _train([0.8, 0.7, 0.8, 0.6], patience=2, from_start=True)
    assert (trainer.state.epoch, best.best, best.best_epoch, network.weight.item()) == (2, 0.8, 0, 0)


def test_the_last_weights_are_kept_when_the_best_are_not_to_be_restored():
    trainer, best, network = _train([0.6, 0.8, 0.7, 0.7, 0.9], patience=2, restore_best=False)
    assert (trainer.state.epoch, best.best_epoch, network.weight.item()) == (4, 2, 4)


def test_without_patience_all_epochs_run_and_without_scores_the_last_weights_are_kept(caplog):
    trainer, _, network = _train([0.6, 0.8, 0.7, 0.9], patience=0)
    assert (trainer.state.epoch, network.weight.item()) == (4, 4)
    _, _, network = _train([float("nan")] * 3, patience=1)
    assert network.weight.item() == 3
    assert "the last weights are kept" in caplog.text


def _fine_tune(epochs: int, interval: int, scores: list[float], labels: list[float], from_start: bool = True):
    """As `configs/train.json` is wired: the network's weight is the epoch, and its validation scores are given."""
    network, waiting = torch.nn.Linear(1, 1, bias=False), iter(scores)
    network.weight.data.zero_()
    torch_device = torch.device("cpu")

    def scored(engine, batch):
        engine.state.metrics["val_mean_auroc"] = next(waiting) if len(set(labels)) == 2 else float("nan")
        return {}

    def trained(engine, batch):
        network.weight.data.fill_(float(engine.state.epoch))
        return {}

    validator = Evaluator(torch_device, [0], iteration_update=scored)
    best = EarlyStopping(validator, network)
    handlers = [ValidationHandler(interval, validator, exec_at_start=from_start), best]
    trainer = Trainer(torch_device, epochs, [0], iteration_update=trained)
    for handler in handlers:
        handler.attach(trainer)
    trainer.run()
    return best, network.weight.item(), list(waiting)


@pytest.mark.parametrize(("epochs", "interval"), [(2, 5), (5, 3), (1, 1), (4, 2)])
def test_the_last_epoch_is_validated_once_and_can_win_whatever_the_interval(epochs, interval):
    validations = 1 + -(-epochs // interval)  # the start, each whole interval, and the last epoch
    best, weight, unused = _fine_tune(epochs, interval, [0.5 + 0.01 * k for k in range(validations)], [0.0, 1.0])
    assert (best.best_epoch, weight, unused) == (epochs, epochs, [])


def test_a_last_epoch_that_is_worse_does_not_win_and_that_the_start_is_restored_is_said(caplog):
    caplog.set_level(logging.INFO)
    best, weight, _ = _fine_tune(2, 5, [0.8, 0.7], [0.0, 1.0])
    assert (best.best_epoch, weight) == (0, 0)
    assert "no epoch had a better val_mean_auroc than the start (0.800), which is restored" in caplog.text


def test_a_score_that_is_never_known_and_a_validation_that_never_ran_are_told_apart(caplog):
    assert _fine_tune(2, 1, [], [1.0, 1.0])[1] == 2
    assert "was never known, as no finding has both a positive and a negative validation image" in caplog.text
    caplog.clear()
    validator = Evaluator(torch.device("cpu"), [0], iteration_update=lambda engine, batch: {})
    trainer = Trainer(torch.device("cpu"), 2, [0], iteration_update=lambda engine, batch: engine.terminate())
    EarlyStopping(validator, torch.nn.Linear(1, 1)).attach(trainer)
    trainer.run()
    assert "nothing was validated until training ended in epoch 1, so the last weights are kept" in caplog.text


@pytest.mark.parametrize("findings", [1, 3])
def test_the_validation_score_is_scikit_learns_for_one_finding_as_for_several(findings):
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(40, findings, generator=generator), torch.randint(2, (40, findings)).float()
    labels[:2], labels[2:4], labels[5] = 0.0, 1.0, float("nan")
    evaluator = Engine(lambda engine, rows: {"pred": scores[rows], "label": labels[rows]})
    MeanAUROC().attach(evaluator, "auroc")
    known = [k for k in range(40) if k != 5]
    expected = np.mean([roc_auc_score(labels[known, k], scores[known, k]) for k in range(findings)])
    assert evaluator.run([slice(0, 16), slice(16, 40)]).metrics["auroc"] == pytest.approx(expected)


def _run(handlers: list, epochs: int = 2) -> Engine:
    trainer = Engine(lambda engine, batch: None)
    for handler in handlers:
        handler.attach(trainer)
    trainer.run([0], max_epochs=epochs)
    return trainer


def _findings(rows: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    label = np.tile([0.0, 1.0], rows // 2)
    split = ["train"] * 30 + ["val"] * 20 + ["test"] * 10
    features = np.random.default_rng(0).normal(size=(rows, 3)) + 3 * label[:, None]
    return pd.DataFrame({"split": split, "Mass": label}), features


def test_the_probe_scores_informative_features_and_uses_no_test_patient(caplog):
    caplog.set_level(logging.INFO)
    index, features = _findings()
    looked: list[int] = []
    probe = LinearProbe(lambda rows: looked.extend(rows) or features[rows], index, ["Mass"], every=2)
    trainer = _run([probe], epochs=4)
    assert [record["epoch"] for record in probe.history] == [2, 4]
    for name in ("probe_auroc", "knn_auroc"):
        assert probe.history[0][name] > 0.95
        assert trainer.state.metrics[name] == probe.history[1][name]
    assert set(looked) == set(range(50))
    assert "of a linear probe, " in caplog.text
    assert "of 20 neighbors, on 20 images of val patients" in caplog.text


def test_the_probes_neighbors_are_those_of_the_features_and_not_of_chance():
    index, features = _findings()
    shuffled = np.random.default_rng(1).permutation(features)
    probe = LinearProbe(lambda rows: shuffled[rows], index, ["Mass"], every=1)
    _run([probe], epochs=1)
    assert probe.history[0]["knn_auroc"] < 0.85


@pytest.mark.parametrize("change", [{"Mass": np.nan}, {"split": "train"}])
def test_without_labels_or_held_out_patients_there_is_no_probe(change):
    index = _findings()[0].assign(**change)
    probe = LinearProbe(lambda rows: 1 / 0, index, ["Mass"], every=1)
    _run([probe])
    assert probe.history == []
