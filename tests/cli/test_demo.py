"""The demo from end to end, small: it ends with a report, and a folder of somebody else is never replaced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from monai_simclr.cli import demo
from monai_simclr.cli.app import app
from monai_simclr.cli.demo import run_demo
from monai_simclr.networks import encoder_header, weights
from monai_simclr.workflows.bundle import read_metadata


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_demo_ends_with_one_table_of_five_rows_and_its_report(tmp_path):
    command = ["demo", "-o", str(tmp_path / "demo"), "--patients", "120", "--epochs", "2", "--draws", "2"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "What the encoder learned, on held-out phantom patients" in shown.stdout
    assert sum(line.startswith("│") for line in shown.stdout.splitlines()) == 5
    assert shown.stdout.count("┏") == 1
    assert "say nothing about patients" in shown.stdout
    report = tmp_path / "demo" / "report.html"
    assert shown.stdout.splitlines()[-1] == f"Report: {report}"
    assert report.read_text(encoding="utf-8").count("data:image/png") >= 4
    steps = shown.stderr.splitlines()
    assert len(steps) == 8, "a line for each step where there is no terminal: phantoms, 2 + 4 runs, predictions"
    assert "epoch 2/2" in (tmp_path / "demo" / "log.txt").read_text(encoding="utf-8")
    rows = json.loads((tmp_path / "demo" / "bundle" / "output" / "few_label" / "comparison.json").read_text())
    assert {row["arm"] for row in rows} == {"scratch", "pretrained"}
    run_demo(tmp_path / "demo", patients=120, epochs=1, draws=2)  # a second run replaces the first


def test_the_demo_never_replaces_another_folder(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty and not a demo of ours; pass -o with another folder"):
        run_demo(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_small_demo_from_the_shipped_encoder_says_where_it_comes_from_and_what_that_changes(tmp_path):
    command = ["demo", "-o", str(tmp_path / "demo"), "--patients", "120", "--epochs", "1", "--draws", "2"]
    shown = CliRunner().invoke(app, [*command, "--pretrained", "--json"])
    assert shown.exit_code == 0, shown.output
    answer = json.loads(shown.stdout)
    assert [row["encoder"] for row in answer["encoders"]] == [
        "random weights",
        "chest_xray_resnet18 as it comes",
        "random weights, then phantoms",
        "chest_xray_resnet18, then phantoms",
    ]
    cells = [cell for row in answer["encoders"] for cell in list(row.values())[1:]]
    assert len(set(cells)) == len(cells) == 12, "no encoder is another by mistake"
    header = encoder_header("chest_xray_resnet18")
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    for said in (answer["notice"], page):
        assert "real radiographs of 2,709 patients and 7,647 whose patients have no name" in said
        assert header["data"] in said
        assert "this start instead of random weights changes the AUROC" in said
    assert "What the start from real radiographs changes" in page
    assert all(row["encoder"] in page for row in answer["encoders"])
    made = encoder_header(tmp_path / "demo" / "bundle" / "models" / "encoder.safetensors")
    assert (made["start_from"], made["width"]) == ("chest_xray_resnet18", header["width"])
    assert "start_from" not in encoder_header(tmp_path / "demo" / "bundle" / "models" / "random_start.safetensors")


@pytest.fixture
def calls(monkeypatch):
    """The bundle commands that a demo would run, with their settings; none runs."""
    made = []

    def run_bundle(bundle: Path, name: str, **settings: object) -> None:
        made.append((name, settings))
        output = Path(str(settings.get("output_dir", bundle / "output" / name)))
        output.mkdir(parents=True)
        if name == "train":
            np.savez(output / "scores.npz", scores=np.zeros((2, 1)))

    monkeypatch.setattr(demo, "run_bundle", run_bundle)
    monkeypatch.setattr(demo, "_report", lambda folder, bundle, runs, notice: (bundle, runs, notice))
    return made


def test_the_two_pretrainings_differ_in_nothing_but_their_start(tmp_path, calls):
    bundle, runs, _ = run_demo(tmp_path / "demo", patients=6, epochs=3, draws=2, pretrained=True)
    random, shipped = (settings for name, settings in calls if name == "pretrain")
    places = ("encoder_path", "output_dir")
    assert {k: v for k, v in random.items() if k not in places} | {"start_from": "chest_xray_resnet18"} == shipped
    assert read_metadata(bundle)["encoder"]["width"] == float(encoder_header("chest_xray_resnet18")["width"])
    assert len(runs) == 8, "four arms of two draws"
    assert len({settings["output_dir"] for name, settings in calls if name == "train"}) == 8


def test_without_pretrained_the_demo_is_what_it_was_and_nothing_of_an_earlier_one_is_left(tmp_path, calls):
    run_demo(tmp_path / "demo", patients=6, epochs=1, draws=2, pretrained=True)
    calls.clear()
    threads = torch.get_num_threads()
    bundle, runs, notice = run_demo(tmp_path / "demo", patients=6, epochs=1, draws=2)
    assert torch.get_num_threads() == threads, "a session's own"
    assert [name for name, _ in calls] == ["pretrain", "cluster", *["train"] * 4, "inference"]
    assert "start_from" not in calls[0][1]
    assert {run["arm"] for run in runs} == {"scratch", "pretrained"}
    assert notice == demo.NOTICE
    assert sorted(path.name for path in (bundle / "output").iterdir()) == [
        "cluster",
        "few_label",
        "inference",
        "pretrain",
    ]
    assert not list((bundle / "models").glob("*.safetensors")), "another width than the shipped encoder's"


def test_without_the_weights_pretrained_says_what_is_missing_and_leaves_an_earlier_demo_alone(
    tmp_path, monkeypatch, calls
):
    run_demo(tmp_path / "demo", patients=6, epochs=1, draws=2)
    monkeypatch.setattr(weights, "PRETRAINED", {"chest_xray_resnet18": tmp_path / "encoder.safetensors"})
    with pytest.raises(
        FileNotFoundError, match=r"weights of chest_xray_resnet18 are not installed.*install monai-simclr"
    ):
        run_demo(tmp_path / "demo", pretrained=True)
    assert (tmp_path / "demo" / "bundle").is_dir()
