"""The tutorial's commands, as they stand, in an empty folder; and the bundle page's script under torchrun."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def _shell(code: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1000,
        env={**os.environ, "PATH": path, "MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"


def test_every_command_of_the_tutorial_runs(tmp_path):
    for block in _blocks(DOCS / "tutorial.md", "bash"):
        _shell(block, tmp_path)
    table = pd.read_csv(tmp_path / "my_bundle" / "output" / "inference" / "predictions.csv")
    assert len(table) == len(list((tmp_path / "incoming").rglob("*.dcm")))
    assert table["Effusion"].notna().all()
    for made in ("audit/index.html", "preview.png", "report.html", "scratch/metrics.json"):
        assert (tmp_path / made).stat().st_size > 1000, made


def test_the_script_of_the_bundle_page_runs_in_two_processes(tmp_path):
    blocks = _blocks(DOCS / "how-to" / "bundle.md", "python")
    (tmp_path / "pretrain.py").write_text(blocks[-1], encoding="utf-8")
    (tmp_path / "store.py").write_text(blocks[0], encoding="utf-8")
    assert "LOCAL_RANK" in blocks[-1]
    _shell("python store.py", tmp_path)
    _shell("torchrun --standalone --nproc_per_node=2 pretrain.py", tmp_path)
    assert (tmp_path / "encoder.safetensors").is_file()
