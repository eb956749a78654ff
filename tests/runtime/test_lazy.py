"""Packages that import their parts when asked: everything they pass on is there, and nothing comes before its time."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

LAZY = [f"monai_simclr.{name}" for name in ("audit", "data", "engines", "evaluation", "ops", "report", "workflows")]


def _listed(package: str) -> dict[str, str]:
    """Name to module of what a package says it passes on."""
    tree = ast.parse(inspect.getsource(importlib.import_module(package)))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    return {a.name: str(n.module) for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}


@pytest.mark.parametrize("package", LAZY)
def test_every_name_that_a_lazy_package_lists_is_the_one_of_its_module(package):
    listed = _listed(package)
    assert listed
    for name, module in listed.items():
        assert getattr(importlib.import_module(package), name) is getattr(importlib.import_module(module), name), name


@pytest.mark.parametrize("package", LAZY)
def test_no_name_that_a_lazy_package_lists_is_that_of_one_of_its_modules(package):
    clashes = [name for name in _listed(package) if importlib.util.find_spec(f"{package}.{name}")]
    assert not clashes, f"importing the module would hide the name: {clashes}"


@pytest.mark.parametrize("package", LAZY)
def test_a_name_that_is_not_there_is_an_attribute_error_with_the_package_s_name(package):
    with pytest.raises(AttributeError, match=rf"module '{package}' has no attribute 'nobody_has_this'"):
        _ = importlib.import_module(package).nobody_has_this


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("monai_simclr.data.decoding", ("torch", "monai", "pandas", "scipy", "nibabel")),
        ("monai_simclr.audit.scan", ("torch", "monai", "pandas", "sklearn")),
        ("monai_simclr.ops.resize", ("torch", "monai", "pandas")),
        ("monai_simclr.workflows.bundle", ("torch", "monai", "pandas")),
        ("monai_simclr.workflows.verify", ("torch", "monai", "pandas")),
        ("monai_simclr.report.html", ("torch", "monai", "matplotlib")),
        ("monai_simclr.evaluation.embeddings", ("torch", "monai", "sklearn")),
        ("monai_simclr.engines.embedding", ("monai", "ignite", "pandas")),
    ],
)
def test_a_light_module_stays_light_although_its_package_has_heavy_ones(module, without):
    code = f"import sys, {module}; print(sorted(set({without!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
