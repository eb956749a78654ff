"""`monai-simclr verify` reads a bundle as text: nothing in it runs, and nothing that differs from ours is missed."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from monai_simclr.cli.app import app
from monai_simclr.workflows.bundle import copy_bundle
from monai_simclr.workflows.verify import verify_bundle


@pytest.fixture
def bundle(tmp_path):
    return copy_bundle(tmp_path / "bundle", ["Mass"], size=64)


def _set(bundle, name, key, value):
    path = bundle / "configs" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def _others(bundle):
    return [(found.file, found.where, found.text) for found in verify_bundle(bundle) if not found.known]


def test_a_copy_of_our_bundle_runs_nothing_else(bundle):
    assert _others(bundle) == []
    assert len(verify_bundle(bundle)) > 50


@pytest.mark.parametrize(
    ("value", "where", "text"),
    [
        ("$__import__('os').system('touch PWNED')", "extra", "$__import__('os').system('touch PWNED')"),
        ({"_target_": "subprocess.call", "args": "x"}, "extra#_target_", "subprocess.call"),
        ([1, {"deep": [{"_target_": "os.system"}]}], "extra#1#deep#0#_target_", "os.system"),
        ("%other.json#run", "extra", "%other.json#run"),
        (" $import evil", "extra", " $import evil"),
    ],
)
def test_what_ours_does_not_run_is_listed_with_its_place(bundle, value, where, text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    _set(bundle, "train.json", "extra", value)
    assert _others(bundle) == [("configs/train.json", where, text)]
    assert not (tmp_path / "PWNED").exists()


def test_yaml_configs_logging_and_code_are_read_too(bundle):
    (bundle / "configs" / "more.yaml").write_text("run: $evil()\n")
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "helper.py").write_text("raise SystemExit")
    conf = bundle / "configs" / "logging.conf"
    conf.write_text(conf.read_text().replace("args=(sys.stdout,)", "args=(evil(),)"))
    files = {file for file, _, _ in _others(bundle)}
    assert files == {"configs/more.yaml", "scripts/helper.py", "configs/logging.conf"}


def test_yaml_that_builds_objects_is_refused(bundle):
    (bundle / "configs" / "more.yml").write_text("run: !!python/object/apply:os.system ['touch PWNED']\n")
    with pytest.raises(ValueError, match=r"more\.yml cannot be read"):
        verify_bundle(bundle)


def test_the_command_ends_with_3_when_there_is_something_else(bundle):
    assert CliRunner().invoke(app, ["verify", str(bundle)]).exit_code == 0
    _set(bundle, "inference.json", "extra", "$evil()")
    done = CliRunner().invoke(app, ["verify", str(bundle)])
    assert done.exit_code == 3
    assert "OTHER  configs/inference.json  extra  $evil()" in done.output


@pytest.mark.parametrize(
    "name",
    [
        "configs/x.JSON",
        "configs/sub/x.json",
        "any/run.json",
        "run.Json",
        "configs/x.YML",
        "docs/deep/er/x.yaml",
        ".x.json",
    ],
)
def test_a_config_is_read_in_whatever_folder_and_spelling(bundle, name):
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text("{\"run\": [\"$__import__('os').system('touch PWNED')\"]}")
    assert _others(bundle) == [(name, "run#0", "$__import__('os').system('touch PWNED')")]
    assert CliRunner().invoke(app, ["verify", str(bundle)]).exit_code == 3


@pytest.mark.parametrize("key", ["train::loss::_target_", "train#loss#_target_", "+_target_"])
def test_a_target_in_a_joined_key_is_read(bundle, key):
    (bundle / "configs" / "x.json").write_text(json.dumps({key: "os.system"}))
    assert _others(bundle) == [("configs/x.json", key, "os.system")]


class _Evil:
    def __reduce__(self):
        return print, ("PWNED",)


def _weights(kind, path):
    network = torch.nn.Linear(2, 2)
    if kind == "torchscript":
        torch.jit.trace(network, torch.zeros(1, 2)).save(str(path))
    elif kind == "whole network":
        torch.save(network, path)
    elif kind == "old pickle":
        torch.save({"a": _Evil()}, path, _use_new_zipfile_serialization=False)
    elif kind == "array of objects":
        np.savez(path, a=np.array([_Evil()], dtype=object))
    elif kind == "pickle before an archive":
        torch.save(network.state_dict(), path)
        path.write_bytes(pickle.dumps(_Evil(), 2) + path.read_bytes())
    else:
        path.write_bytes(pickle.dumps(_Evil(), protocol=int(kind)))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("torchscript", "models/model.ts"),
        ("torchscript", "models/model.pt"),
        ("whole network", "models/model.pt"),
        ("old pickle", "models/model.pth"),
        ("array of objects", "docs/example.npz"),
        ("pickle before an archive", "models/model.pt"),
        *((str(protocol), name) for protocol in range(6) for name in ("models/model.pt", "weights.dat", "models/w")),
    ],
)
def test_what_runs_when_it_is_loaded_is_listed_and_not_loaded(bundle, kind, name, capsys):
    (bundle / name).parent.mkdir(exist_ok=True)
    _weights(kind, bundle / name)
    assert {file for file, _, _ in _others(bundle)} == {name}
    assert "PWNED" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["helper.pyd", "a.SO", "run.bat", "model.joblib", "x.pkl", "model.engine"])
def test_files_of_code_are_listed_by_their_names(bundle, name):
    (bundle / name).write_bytes(b"x")
    assert [file for file, _, _ in _others(bundle)] == [name]


def test_a_link_is_listed_and_not_followed(bundle, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "run.json").write_text('{"run": "$evil()"}')
    (bundle / "configs" / "more").symlink_to(tmp_path / "elsewhere")
    assert _others(bundle) == [("configs/more", "", "a link, whose target is not read")]


def test_weights_and_tables_as_we_write_them_run_nothing(bundle):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    objects = {"network": network.state_dict(), "optimizer": torch.optim.AdamW(network.parameters()).state_dict()}
    state = {"objects": objects, "iteration": 3, "identity": {"a": "b"}, "scaler": None}
    torch.save(state, bundle / "models" / "checkpoint.pt")
    torch.save(network.state_dict(), bundle / "models" / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(bundle / "scores.npz", scores=np.zeros(3), findings=np.array(["Mass"]))
    for number in range(1, 40):  # headers of many lengths: their first byte may be a pickle's
        save_file({f"w{n}": torch.zeros(2) for n in range(number)}, bundle / "models" / f"{number}.safetensors")
    (bundle / "list.csv").write_text("image,patient_id\na.png,1\n")
    (bundle / "NOTES.md").write_text("conda create\nthen\n.")
    assert _others(bundle) == []
