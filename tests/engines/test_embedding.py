"""Embedding by several workers equals embedding in one process."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from monai_simclr.data import build_store, open_index
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.engines import embed, embed_spread
from monai_simclr.ops.geometry import to_network_input
from monai_simclr.runtime.exit_codes import SettingError
from monai_simclr.workflows import Clustering, Run, clustering

FINISH = functools.partial(to_network_input, size=32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedding")
    return build_store(open_index(write_nih_phantoms(folder / "nih", n_patients=20, size=64)), folder / "s", 40, 0)


def _network():
    """Of torch only, so that workers need not import MONAI."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


@pytest.mark.parametrize("engine", ["processes", "dask://local"])
def test_several_workers_give_the_embeddings_of_one_process(store, tmp_path, engine):
    if engine != "processes":
        pytest.importorskip("distributed")
    network = _network()
    alone = embed(network, store.images, FINISH, batch_size=16)
    spread = embed_spread(network, store.folder / "images.npy", FINISH, tmp_path, engine, 2, batch_size=16)
    assert spread.dtype == np.float32
    np.testing.assert_allclose(spread, alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    assert np.abs(alone - alone[0]).max() > 1e-3 * np.abs(alone).max(), (
        "all embeddings are alike, so this tests nothing"
    )
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_not_finite_are_refused(store, tmp_path):
    network = _network()
    for weights in network.parameters():
        torch.nn.init.constant_(weights, float("nan"))
    with pytest.raises(FloatingPointError, match="not finite, the first is image 0"):
        embed_spread(network, store.folder / "images.npy", FINISH, tmp_path, "processes")


def test_an_engine_that_is_not_there_is_refused_before_any_work():
    with pytest.raises(SettingError, match="no engine 'spark'"):
        Clustering(["Mass"], engine="spark")


def test_all_embeddings_of_a_command_are_made_by_workers_that_are_started_once(store, tmp_path, monkeypatch):
    opened = []

    def open_threads(*asked):
        opened.append(asked)
        return ThreadPoolExecutor(1)

    monkeypatch.setattr(clustering, "open_executor", open_threads)
    run = Run(str(tmp_path), 32, 0, torch.device("cpu"))
    alone, spread = (
        clustering.embed_with_references(run, store, _network(), _network(), options)
        for options in (
            Clustering(["Mass"], join_sides=True),
            Clustering(["Mass"], join_sides=True, engine="processes"),
        )
    )
    assert opened == [("processes", 2)]
    assert set(spread[2]) == {"encoder", "random encoder", "raw pixels"}
    np.testing.assert_allclose(spread[0].features, alone[0].features, rtol=0, atol=1e-5)
    for mine, theirs in ((spread[1], alone[1]), (spread[2], alone[2])):
        assert mine.keys() == theirs.keys()
        assert all(np.allclose(mine[name], theirs[name], rtol=0, atol=1e-5) for name in mine)
