"""A run is what its executed config computes; a run that goes on with other settings is refused, with each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_simclr.data.phantoms import FINDINGS, write_nih_phantoms
from monai_simclr.networks import encoder_header
from monai_simclr.runtime.exit_codes import exit_code, root_cause
from monai_simclr.workflows import config_identity
from monai_simclr.workflows.bundle import copy_bundle

pytestmark = pytest.mark.filterwarnings("ignore")

FREE: dict[str, Any] = {
    "num_workers": 3,
    "checkpoint_minutes": 1,
    "n_saved": 9,
    "output_dir": "/x",
    "dataset_dir": "/y",
    "store_dir": "/z",
    "encoder_path": "/e",
    "device": "cpu",
    "probe_interval": 1,
    "max_unreadable": 0.5,
    "findings": ["Mass"],
    "allow_missing_findings": True,
    "train#checkpoint#every_iterations": 3,
    "_meta_#defaults#n_bootstrap": 3,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identity")
    write_nih_phantoms(folder / "phantoms", n_patients=60, size=64)
    return copy_bundle(folder / "bundle", FINDINGS, size=32, encoder="resnet10", width=0.125)


def _workflow(bundle: Path, **given: Any) -> ConfigWorkflow:
    settings: dict[str, Any] = {
        "bundle_root": str(bundle),
        "dataset_dir": str(bundle.parent / "phantoms"),
        "num_workers": 0,
        "max_epochs": 1,
        "batch_size": 32,
        "precision": "float32",
        "probe_interval": 0,
    }
    workflow = ConfigWorkflow(str(bundle / "configs/pretrain.json"), logging_file=False, **{**settings, **given})
    workflow.initialize()
    return workflow


def _identity(bundle: Path, **given: Any) -> dict[str, Any]:
    return config_identity(_workflow(bundle, **given).parser)


def _changed(bundle: Path, **given: Any) -> dict[str, tuple[Any, Any]]:
    before, now = _identity(bundle), _identity(bundle, **given)
    return {key: (before.get(key), now.get(key)) for key in {**before, **now} if before.get(key) != now.get(key)}


def test_what_cannot_matter_is_not_part_of_a_run(bundle: Path, tmp_path: Path) -> None:
    assert _changed(bundle, **FREE) == {}
    assert _changed(bundle, tracking="mlflow", output_dir=str(tmp_path)) == {}
    assert _changed(bundle, size="$8 * 4", learning_rate="$1 / 1000") == {}


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({"train#loss#same_group": "negative"}, {"train#loss#same_group": (None, "negative")}),
        ({"temperature": 1}, {"temperature": (0.2, 1.0)}),
        ({"compile": True}, {"compile": (False, True)}),
        ({"splits": ["train"]}, {"splits": (["train", "val", ""], ["train"])}),
        ({"scheduler#warmup_iterations": 3}, {"scheduler#warmup_iterations": ("$len(@train::dataloader)", 3)}),
        ({"_meta_#defaults#weight_decay": 0.1}, {"_meta_#defaults#weight_decay": (0.0001, 0.1)}),
        (
            {"optimizer#weight_decay": 0.1},
            {
                "optimizer#weight_decay": ("@_meta_::defaults::weight_decay", 0.1),
                "_meta_#defaults#weight_decay": (0.0001, None),
            },
        ),
        ({"_meta_#encoder#name": "resnet18"}, {"_meta_#encoder#name": ("resnet10", "resnet18")}),
        ({"train#dataset#replace_damaged": False}, {"train#dataset#replace_damaged": (True, False)}),
        ({"train#handlers#3#epoch_level": True}, {"train#handlers#3#epoch_level": (False, True)}),
        ({"train#views#size": 40}, {"train#views#size": ("@size", 40)}),
    ],
    ids=str,
)
def test_whatever_is_computed_with_is_part_of_a_run(bundle: Path, given: dict, changed: dict) -> None:
    assert _changed(bundle, **given) == changed


def _refusal(bundle: Path, **given: Any) -> str:
    with pytest.raises(RuntimeError) as caught:
        _workflow(bundle, **given).run()
    assert isinstance(root_cause(caught.value), FileExistsError)
    assert exit_code(caught.value) == 4
    return str(root_cause(caught.value))


def test_a_run_resumes_with_its_own_settings_only_and_its_config_is_what_ran(bundle: Path, tmp_path: Path) -> None:
    output = {"output_dir": str(tmp_path / "run")}
    config = tmp_path / "run" / "config.json"
    _workflow(bundle, **output).run()
    first = config.read_bytes()
    assert "train#loss#same_group was not given, is negative" in _refusal(
        bundle, **output, **{"train#loss#same_group": "negative"}
    )
    refusal = _refusal(bundle, **output, strength="mild", learning_rate=0.5, **{"scheduler#warmup_iterations": 7})
    assert "strength was default, is mild" in refusal
    assert "learning_rate was 0.001, is 0.5" in refusal
    assert "scheduler#warmup_iterations was $len(@train::dataloader), is 7" in refusal
    assert config.read_bytes() == first, "a refused command leaves the config of what ran"
    _workflow(bundle, **output, checkpoint_minutes=3).run()
    assert json.loads(config.read_text())["checkpoint_minutes"] == 3, "a run that goes on keeps what it goes on with"


def test_auto_is_the_precision_that_it_stands_for_on_this_machine(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = {"output_dir": str(tmp_path / "run")}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "amx_bf16": True})
    assert _identity(bundle, precision="auto") == _identity(bundle, precision="bfloat16")
    _workflow(bundle, **output, precision="auto").run()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["precision"] == "bfloat16"
    assert encoder_header(bundle / "models" / "encoder.safetensors")["precision"] == "bfloat16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "amx_bf16": False})
    refusal = _refusal(bundle, **output, precision="auto")
    assert "precision was bfloat16, is float32 (auto takes what the device computes natively; pass" in refusal


def test_other_settings_are_refused_before_the_archive_is_decoded_again(bundle: Path, tmp_path: Path) -> None:
    output = {"output_dir": str(tmp_path / "run")}
    _workflow(bundle, **output).run()
    assert "size was 32, is 48" in _refusal(bundle, **output, size=48, store_dir=str(tmp_path / "never"))
    assert not (tmp_path / "never").exists()


def test_another_archive_under_the_same_settings_is_refused_and_leaves_the_config(bundle: Path, tmp_path: Path) -> None:
    output = {"output_dir": str(tmp_path / "run")}
    _workflow(bundle, **output).run()
    first = (tmp_path / "run" / "config.json").read_bytes()
    write_nih_phantoms(tmp_path / "other", n_patients=60, size=64, seed=5)
    refusal = _refusal(bundle, **output, dataset_dir=str(tmp_path / "other"))
    assert "dataset was " in refusal
    assert (tmp_path / "run" / "config.json").read_bytes() == first
