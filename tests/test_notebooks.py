"""The notebooks of docs/notebooks run from top to bottom, and are kept without outputs."""

from __future__ import annotations

import ast
import json
import tempfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_two_notebooks_and_both_are_linked() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["few_labels", "own_pipeline"]
    page = (FOLDER.parent / "how-to" / "index.md").read_text(encoding="utf-8")
    assert all(f"../notebooks/{path.name}" in page for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 4
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert cells[0]["source"][0].startswith("# ")


def _run(cell: str, name: str, names: dict[str, object]) -> object:
    """Run a cell; the value that is shown below it."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    return eval(compile(ast.Expression(last.value), name, "eval"), names) if last else None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install 'monai-simclr[dev]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    names: dict[str, object] = {"__name__": "__main__"}
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    shown = [_run(cell, f"{path.name}, cell {number}", names) for number, cell in enumerate(cells, 1)]
    assert sum(value is not None for value in shown) > 3
