"""MONAI and its apps look at a bundle where no data is; a run without data is still an error with a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from bundle_command import Forked, bundle_command
from monai.bundle import ConfigWorkflow

from monai_simclr.workflows import find_store
from monai_simclr.workflows.bundle import copy_bundle

KINDS = [("train", "pretrain"), ("train", "train"), ("infer", "inference")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_bundle(tmp_path_factory.mktemp("no_data") / "bundle", ["Mass", "Edema"], size=56, width=0.25)


def _workflow(bundle: Path, kind: str, name: str, **overrides: object) -> ConfigWorkflow:
    config = str(bundle / "configs" / f"{name}.json")
    workflow = ConfigWorkflow(config, workflow_type=kind, logging_file=False, bundle_root=str(bundle), **overrides)
    workflow.initialize()
    return workflow


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_every_property_exists_without_data_encoder_and_classifier(bundle: Path, kind: str, name: str) -> None:
    assert not (bundle / "data").exists()
    assert not list((bundle / "models").iterdir())
    workflow = _workflow(bundle, kind, name)
    assert workflow.check_properties() == []
    names = {"inference": ["dataset_data"], "pretrain": ["train_dataset_data"]}
    for data in names.get(name, ["train_dataset_data", "val_dataset_data"]):
        assert isinstance(getattr(workflow, data), Sequence), f"the zoo asks for {data}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["pretrain", "train"])
def test_running_the_trainer_without_data_raises_the_message(bundle: Path, name: str) -> None:
    trainer = _workflow(bundle, "train", name, **({} if name == "pretrain" else {"pretrained": False})).trainer
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*data; pass --dataset_dir"):
        trainer.run()


@pytest.mark.filterwarnings("ignore")
def test_running_the_trainer_without_an_encoder_raises_the_message(bundle: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no encoder at .*; run configs/pretrain\.json first"):
        _workflow(bundle, "train", "train").trainer.run()


@pytest.mark.parametrize(
    "config",
    [
        "configs/train.json",
        "configs/pretrain.json",
        "configs/cluster.json",
        "configs/inference.json",
        "['configs/train.json','configs/evaluate.json']",
    ],
)
def test_a_run_without_data_ends_with_3_and_the_message(bundle: Path, tmp_path: Path, config: str) -> None:
    command = Forked(bundle, tmp_path, bundle_command(config))
    _, errors = command.communicate()
    assert command.returncode == 3, errors
    said = "no checkpoint at" if "inference" in config else "there is no folder"
    assert said in errors.splitlines()[-1]


def test_an_archive_of_an_unknown_kind_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "is empty; pass --dataset_dir" in find_store(tmp_path / "data", tmp_path / "cache", 56).absent
    (tmp_path / "data" / "notes.txt").write_text("nothing")
    with pytest.raises(FileNotFoundError, match=r"has no index\.csv"):
        find_store(tmp_path / "data", tmp_path / "cache", 56)
