"""`--json`: one JSON object on stdout and nothing else there; help with examples that parse; shell completion."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import typer.main
from typer.testing import CliRunner

from monai_simclr.cli.app import app
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.evaluation import Embeddings

COMMANDS = typer.main.get_command(app).commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("json")
    write_nih_phantoms(path / "NIH", n_patients=12, size=64, seed=0)
    index = pd.DataFrame({"image": [f"{i}.png" for i in range(8)], "patient_id": [f"p{i}" for i in range(8)]})
    Embeddings(np.random.default_rng(0).normal(size=(8, 4)), index.assign(split="train", Mass=1.0)).save(path / "e.npz")
    CliRunner().invoke(app, ["bundle", str(path / "b")])
    return path


def _result(words, exit_code=0):
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == exit_code, done.output
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_every_command_with_a_result_takes_json():
    without = [name for name, command in COMMANDS.items() if "--json" not in _options(command)]
    assert without == ["listen"], "it runs until it is stopped"


def test_help_lists_every_command_with_a_whole_sentence():
    listed = CliRunner().invoke(app, ["--help"], terminal_width=80).stdout.split("Commands:")[1].strip().splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


def _options(command):
    return [word for parameter in command.params for word in parameter.opts]


def test_index_audit_and_store_answer_with_one_object(folder):
    made = _result(["index", str(folder / "NIH"), "-o", str(folder / "i.csv")])
    assert (made["index"], made["patients"]) == (str(folder / "i.csv"), 12)
    audited = _result(["audit", str(folder / "NIH"), "-o", str(folder / "audit"), "--workers", "0"])
    assert (audited["images"], audited["patients"], audited["leaks"]) == (made["images"], 12, [])
    stored = _result(["store", str(folder / "NIH"), "-o", str(folder / "s"), "--size", "32", "--workers", "0"])
    assert (stored["images"], stored["rejected"], stored["size"]) == (made["images"], 0, 32)


def test_a_leak_is_in_the_object_and_in_the_exit_code(folder):
    _result(["index", str(folder / "NIH"), "-o", str(folder / "k.csv")])
    table = pd.read_csv(folder / "k.csv", dtype=str).head(2)
    table.assign(patient_id="a", split=["train", "test"]).to_csv(folder / "leak.csv", index=False)
    found = _result(["audit", str(folder / "leak.csv"), "-o", str(folder / "a2"), "--workers", "0"], exit_code=3)
    assert found["leaks"] == ["patients in more than one split: 1"]


def test_select_similar_and_verify_answer_with_one_object(folder):
    chosen = _result(["select", str(folder / "e.npz"), "--budget", "3", "-o", str(folder / "w.csv")])
    assert chosen["images"] == pd.read_csv(folder / "w.csv")["image"].tolist()
    similar = _result(["similar", str(folder / "e.npz"), "7.png", "-n", "2"])
    assert len(similar["similar"]) == 2
    assert similar["similar"][0]["similarity"] >= similar["similar"][1]["similarity"]
    assert _result(["verify", str(folder / "b")])["others"] == 0
    config = folder / "b" / "configs" / "train.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "extra": "$__import__('os').getcwd()"}))
    assert _result(["verify", str(folder / "b")], exit_code=3)["listed"][0]["text"].startswith("$__import__")


def test_stdout_of_a_process_is_one_object_and_the_log_is_on_stderr(folder):
    command = [
        sys.executable,
        "-m",
        "monai_simclr",
        "index",
        str(folder / "NIH"),
        "-o",
        str(folder / "j.csv"),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["index"] == str(folder / "j.csv")
    assert "read as NIH ChestX-ray14" in done.stderr


@pytest.mark.parametrize("name", ["export", "study", "index"])
def test_help_has_an_example_that_the_command_accepts(name):
    shown = CliRunner().invoke(app, [name, "--help"], terminal_width=200).stdout
    example = COMMANDS[name].epilog
    assert " ".join(example.split()) in " ".join(shown.split())
    words = shlex.split(re.match(r"Example: monai-simclr (.*)", example)[1])
    assert words[0] == name
    COMMANDS[name].make_context(name, words[1:], resilient_parsing=False)  # a word that is no option raises
    with pytest.raises(Exception, match="No such option"):
        COMMANDS[name].make_context(name, [*words[1:], "--no-such-option"])


def test_a_shell_completes_the_names_of_commands():
    done = subprocess.run(
        [sys.executable, "-c", "from monai_simclr.cli.app import app; app(prog_name='monai-simclr')"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"_MONAI_SIMCLR_COMPLETE": "complete_bash", "COMP_WORDS": "monai-simclr stu", "COMP_CWORD": "1"},
    )
    assert done.stdout.split() == ["study"]
