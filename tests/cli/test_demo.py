"""The demo from end to end, small: it ends with a report, and a folder of somebody else is never replaced."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from monai_simclr.cli.app import app
from monai_simclr.cli.demo import run_demo


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
