"""Every `monai-simclr index` and `audit` command of the how-to pages runs, on small archives of the pages' names."""

from __future__ import annotations

import re
import shlex
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from monai_simclr.cli.app import app
from monai_simclr.data.phantoms import write_dicom_phantoms, write_nih_phantoms

PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)


def _picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(zlib.crc32(str(path).encode()))
    Image.fromarray(generator.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)


def _chexpert(folder):
    for part, patient in {"train": "patient00001", "valid": "patient64541"}.items():
        _picture(folder / part / patient / "study1" / "view1_frontal.jpg")
        row = f"CheXpert-v1.0-small/{part}/{patient}/study1/view1_frontal.jpg,Male,70,Frontal,AP,{'0.0,' * 13}1.0\n"
        (folder / f"{part}.csv").write_text(CHEXPERT + row, encoding="utf-8")


def _own_table(folder):
    for name in ("1.png", "2.png"):
        _picture(folder / name)
    (folder / "cases.csv").write_text("file,pid,gender,Effusion\n1.png,1,F,yes\n2.png,2,M,no\n", encoding="utf-8")


def _commands(page):
    blocks = re.findall(r"^```bash\n(.*?)^```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("monai-simclr")]


@pytest.mark.parametrize("page", ["nih.md", "chexpert.md", "own-dicom-archive.md"])
def test_the_commands_of_a_page_run_in_their_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_nih_phantoms("NIH", n_patients=12, size=64, seed=0)
    write_dicom_phantoms("ARCHIVE", n_patients=12, size=64, seed=0)
    _chexpert(tmp_path / "CHEXPERT")
    _own_table(tmp_path)
    commands = _commands(page)
    assert len(commands) >= 2
    for words in commands:
        words = [*words, "--workers", "0"] if words[0] == "audit" else words
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{page}: {' '.join(words)}: {done.output} {done.exception}"
