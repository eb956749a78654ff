"""`monai-simclr verify` reads a bundle as text: nothing in it runs, and nothing that differs from ours is missed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from monai_simclr.bundling import copy_bundle
from monai_simclr.cli import app
from monai_simclr.verifying import verify_bundle


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
