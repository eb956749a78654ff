"""CONTRIBUTING's steps, done in a copy of the project: the transform keeps the contract, the source is read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLES = {"family.py": "ARGUMENTS: dict", "gallery.py": "ENTRIES = ["}


def _steps(title: str) -> list[tuple[str, str]]:
    """(file, code) of every block of a section; a second block after the same file goes into it, too."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split(f"## {title}")[1].split("\n## ")[0]
    found, file = [], ""
    for part in re.finditer(
        r"`((?:monai_simclr|tests|docs)/[\w/]+\.py)`|^   ```python\n(.*?)^   ```", section, re.S | re.M
    ):
        file = part[1] or file
        if part[2]:
            found.append((file, textwrap.dedent(part[2])))
    return found


def _follow(project: Path, title: str) -> list[str]:
    steps = _steps(title)
    for file, code in steps:
        path = project / file
        if not path.exists():
            path.write_text(code, encoding="utf-8")
        elif path.name == "open.py":
            place = "\nimport pandas" if code.startswith("from ") else "SOURCES = ("
            new = f"\n{code}{place}" if code.startswith("from ") else f"{place}{code.strip()}, "
            path.write_text(path.read_text(encoding="utf-8").replace(place, new, 1), encoding="utf-8")
        elif path.name in TABLES:
            before, start, after = path.read_text(encoding="utf-8").partition(TABLES[path.name])
            line, _, rest = after.partition("\n")
            entry = code.strip().rstrip(",")  # a formatter would make a tuple of an entry with its comma
            path.write_text(f"{before}{start}{line}\n{entry},\n{rest}", encoding="utf-8")
        else:
            path.write_text(path.read_text(encoding="utf-8") + "\n\n" + code, encoding="utf-8")
    return [file for file, _ in steps]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("monai_simclr", "bundles", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "_build", "output", "cache")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def _run(project: Path, *words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, *words], cwd=project, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_a_transform_in_four_steps_keeps_the_contract(project):
    files = _follow(project, "Add a transform in four steps")
    assert len(files) == 6
    _run(project, "docs/gallery.py")
    tests = ("tests/transforms/test_contract.py", "tests/test_gallery.py", "tests/test_doctests.py")
    _run(
        project,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        *tests,
        "-k",
        "RandScatter or scatter or every or about or names",
    )


@pytest.mark.slow
def test_a_source_in_three_steps_is_read(project):
    files = _follow(project, "Add a source in three steps")
    assert len(files) == 4
    _run(
        project, "-m", "pytest", "-p", "no:cacheprovider", "tests/data/test_sources_registry.py", "tests/test_layers.py"
    )
