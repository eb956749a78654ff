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
TABLES = {"family.py": "ARGUMENTS: dict", "gallery.py": "ENTRIES = [", "open.py": "SOURCES: tuple"}
STEP = r"`((?:monai_simclr|tests|docs)/[\w/]+\.py)`|^   ```python\n(.*?)^   ```"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("monai_simclr", "bundles", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "_build", "output", "cache")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def follow(project: Path, title: str) -> list[str]:
    """Put every block of a section into the file named before it, and return those files."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split(f"## {title}")[1].split("\n## ")[0]
    files, file = [], ""
    for part in re.finditer(STEP, section, re.S | re.M):
        file = part[1] or file
        if part[2]:
            path = project / file
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            path.write_text(insert(textwrap.dedent(part[2]), text, path.name), encoding="utf-8")
            files.append(file)
    return files


def insert(code: str, text: str, name: str) -> str:
    """A file's text with a block of code where it belongs: with the imports, at the top of a table, or at the end."""
    if code.startswith(("from ", "import ")) and name == "open.py":
        return text.replace("\nimport pandas", f"\n{code}\nimport pandas", 1)
    if name in TABLES:
        before, start, after = text.partition(TABLES[name])
        line, _, rest = after.partition("\n")
        entry = code.strip().rstrip(",")  # a formatter would make a tuple of an entry with its comma
        return f"{before}{start}{line}\n{entry},\n{rest}"
    return f"{text}\n\n{code}" if text else code


def run(project: Path, *words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, *words], cwd=project, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_a_transform_in_four_steps_keeps_the_contract(project):
    assert len(follow(project, "Add a transform in four steps")) == 6
    run(project, "docs/gallery.py")
    tests = ("tests/transforms/test_contract.py", "tests/test_gallery.py", "tests/test_doctests.py")
    chosen = "RandScatter or scatter or every or about or names"
    run(project, "-m", "pytest", "-p", "no:cacheprovider", *tests, "-k", chosen)


@pytest.mark.slow
def test_a_source_in_three_steps_is_read(project):
    assert len(follow(project, "Add a source in three steps")) == 4
    tests = ("tests/data/test_sources_registry.py", "tests/test_layers.py")
    run(project, "-m", "pytest", "-p", "no:cacheprovider", *tests)
