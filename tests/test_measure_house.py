"""The measure of the house, on a small house whose figures are known by counting."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    "monai_simclr/__init__.py": "",
    "monai_simclr/low.py": (
        '__all__ = ["once"]\n\n\ndef _helper(x):\n    return x\n\n\ndef once(x):\n    return _helper(x)\n'
    ),
    "monai_simclr/middle/__init__.py": "from monai_simclr.low import once as once\n",
    "monai_simclr/middle/part.py": (
        "from monai_simclr.middle import other\n\n\ndef open_store(folder):\n    return _twice(_twice(folder))\n\n\n"
        "def _twice(x):\n    return x  # fmt: skip\n"
    ),
    "monai_simclr/middle/other.py": "",
    "monai_simclr/top.py": (
        "class NTXentLoss:\n    def loss(self):\n        from monai_simclr import middle\n\n        return middle\n"
    ),
    "benchmarks/run.py": "import monai_simclr.top\n",
    "docs/architecture.md": "| 2 | `low` | it | - |\n| 2 | `middle` | it | low |\n",
    "bundles/chest_xray_simclr/configs/pretrain.json": json.dumps(
        [{"_target_": "monai_simclr.top.NTXentLoss"}, {"_target_": "monai.inferers.SimpleInferer"}]
    ),
}


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "docs" / "measure_house.py"))


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_the_figures_of_a_small_house_are_those_that_one_counts(script, house):
    rows = {row.what: row.now for row in script["measure"](house)}
    assert rows["public names at the top of the package"] == "3"  # low, middle, top
    assert rows["rooms"] == "5"  # those, __init__ and benchmarks
    assert rows["floors"] == "4"  # benchmarks -> top -> middle -> low
    assert rows["arrows between rooms"] == "3"
    assert rows["rooms in circles"] == "0"
    assert rows["arrows that lead up"] == "1"  # middle -> low, on one floor in the page's table
    assert rows["entry points of the image store"] == "1"
    assert rows["private functions named in one place, per 1,000 lines"].endswith("(1 of 2)")
    assert rows["`__all__` in modules that are not packages"] == "1"
    assert rows["`fmt: skip`"] == "1"
    assert rows["targets of pretrain.json that are MONAI's, torch's or ignite's"] == "1 of 2"


def test_two_rooms_that_import_each_other_are_a_circle(script, house):
    (house / "monai_simclr/low.py").write_text("def late():\n    import monai_simclr.middle.part\n", encoding="utf-8")
    rows = {row.what: row.now for row in script["measure"](house)}
    assert rows["rooms in circles"] == "2"


def test_the_table_of_this_project_has_a_figure_in_every_row(script):
    rows = script["measure"](ROOT)
    assert len(rows) == 13
    assert all(row.now[0].isdigit() for row in rows)
