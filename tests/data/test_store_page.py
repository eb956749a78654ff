"""docs/how-to/store.md: its commands run, one after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from monai_simclr.cli.app import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "store.md"


def test_the_commands_of_the_page_run_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) == 5
    for first, *rest in commands:
        assert first == "monai-simclr"
        done = CliRunner().invoke(app, rest)
        assert done.exit_code == 0, f"{rest}: {done.output}"
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "store", "small"}
    assert "made store: 104 images of 64 x 64 pixels (0.4 MB)" in PAGE.read_text(encoding="utf-8")
