"""The frame agrees with itself: one version, one licence, pinned requirements, help that names every target."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import monai_simclr

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {"help", "demo", "test", "test-all", "lint", "audit", "clean"}


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(_text("setup.cfg"))
    return parser


def _listed(text: str) -> list[Requirement]:
    lines = (line.strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _installed_by_make() -> list[Requirement]:
    setup = _setup()
    extras = re.search(r'-c constraints\.txt -e "\.\[([a-z,]+)\]"', _text("Makefile"))
    assert extras, "the Makefile no longer installs with -c constraints.txt"
    lists = [setup["options"]["install_requires"]]
    lists += [setup["options.extras_require"][extra] for extra in extras[1].split(",")]
    return [requirement for text in lists for requirement in _listed(text)]


def _pins(python: str) -> dict[str, Version]:
    """Exact versions by name, of the lines of constraints.txt that count on Linux with that Python."""
    environment = {
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    lines = [r for r in _listed(_text("constraints.txt")) if r.marker is None or r.marker.evaluate(environment)]
    names = [line.name.lower().replace("_", "-") for line in lines]
    assert len(names) == len(set(names)), (
        f"pinned twice on {python}: {sorted({n for n in names if names.count(n) > 1})}"
    )
    assert all(re.fullmatch(r"==[^,*]+", str(line.specifier)) for line in lines)
    return {name: Version(str(line.specifier)[2:]) for name, line in zip(names, lines, strict=True)}


def test_the_version_stands_in_one_place() -> None:
    assert _setup()["metadata"]["version"] == "attr: monai_simclr._version.__version__"
    assert not re.search(r"^version\s*=", _text("pyproject.toml"), re.MULTILINE)
    package = ROOT / "monai_simclr"
    defined = [p.name for p in package.rglob("*.py") if re.search(r"^__version__\s*=", p.read_text("utf-8"), re.M)]
    assert defined == ["_version.py"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load(_text("CITATION.cff"))
    assert str(citation["version"]) == monai_simclr.__version__
    assert citation["license"] == _setup()["metadata"]["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## {re.escape(monai_simclr.__version__)}\b", _text("CHANGELOG.md"), re.MULTILINE)


@pytest.mark.parametrize("unwanted", ["torchvision", "kornia", "itk", "pylibjpeg-libjpeg"])
def test_no_requirement_brings(unwanted: str) -> None:
    setup = _setup()
    lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    names = {requirement.name.lower() for text in lists for requirement in _listed(text)}
    assert len(names) > 20
    assert unwanted not in names
    assert unwanted not in _pins("3.11") or (unwanted == "torchvision" and "timm" in names)  # timm asks for it


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_every_requirement_is_pinned_to_a_version_it_allows(python: str) -> None:
    pins = _pins(python)
    for requirement in _installed_by_make():
        name = requirement.name.lower()
        assert name in pins, f"{requirement} has no line in constraints.txt that counts on Python {python}"
        assert requirement.specifier.contains(pins[name]), f"{requirement}, but constraints.txt has {pins[name]}"


def test_torch_is_pinned_and_brings_no_cuda_pins() -> None:
    pins = _pins("3.11")
    assert pins["torch"] == Version("2.13.0")
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_both_licence_files_are_the_apache_licence() -> None:
    assert _text("LICENSE") == _text("bundles/chest_xray_simclr/LICENSE")
    assert "Apache License" in _text("LICENSE")
    assert "Version 2.0, January 2004" in _text("LICENSE")
    assert "END OF TERMS AND CONDITIONS" in _text("LICENSE")


def test_the_help_of_make_names_every_target() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", _text("Makefile"), re.MULTILINE))
    assert targets >= TARGETS
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == targets


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert (ROOT / ".ci/run").stat().st_mode & 0o111, ".ci/run is not executable"
    assert "set -euo pipefail" in _text(".ci/run")
    assert re.search(r"^make test\b", _text(".ci/run"), re.MULTILINE)
    assert re.search(r"^make test\b", _text("README.md"), re.MULTILINE)


def test_every_package_and_every_file_it_reads_is_installed() -> None:
    options, data = _setup()["options"], _setup()["options.package_data"]
    named = set(options["packages"].split())
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "monai_simclr").rglob("__init__.py")}
    assert there | {"monai_simclr.bundles"} == named
    kinds = {".html", ".npz", ".json", ".csv", ".safetensors", ".typed"}
    for path in (ROOT / "monai_simclr").rglob("*"):
        if path.suffix in kinds or path.name == "py.typed":
            patterns = data[".".join(path.parent.relative_to(ROOT).parts)].split()
            assert any(path.match(pattern) for pattern in patterns), path
