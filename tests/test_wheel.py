"""The wheel, installed in a fresh environment: the demo in an empty folder without a network, and the bundle."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from bare_environment import bare_environment

import monai_simclr

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


def _run(*words: str | Path, cwd: Path) -> str:
    names = ("PYTHONPATH", "PIP_FIND_LINKS", "http_proxy", "https_proxy")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=800,
        env={**kept, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing of an earlier build in the checkout gets in."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "output", "cache")
    for name in ("monai_simclr", "bundles"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    _run(sys.executable, "-c", BUILD, source / "dist", cwd=source)
    (made,) = (source / "dist").glob("*.whl")
    return made


def _required(wheel: Path) -> list[str]:
    """What the wheel says that it requires, without extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(name).decode().split("\n\n")[0].splitlines()
    found = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [line for line in found if "extra ==" not in line]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Folder of the commands of a fresh environment: the wheel, and beside it what it requires and nothing else."""
    folder = tmp_path_factory.mktemp("fresh")
    python = bare_environment(folder, [re.split(r"[<>=\[; ]", line)[0] for line in _required(wheel)])
    (packages,) = folder.glob("lib/python*/site-packages")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--disable-pip-version-check",
    ]
    _run(*pip, "--no-index", "--no-deps", "--ignore-installed", wheel, cwd=folder)
    where = _run(folder / "bin/python", "-c", "import monai_simclr as m; print(m.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(packages)
    return folder / "bin"


def _offline() -> list[str]:
    """A network of nothing where the system allows one to be made."""
    command = ["unshare", "--map-root-user", "--net"]
    allowed = shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if allowed else []


def test_the_wheel_holds_the_package_the_bundle_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"monai_simclr", f"monai_simclr-{monai_simclr.__version__}.dist-info"}
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "monai_simclr").rglob("*.py")}
    assert there <= set(names)
    configs = {
        f"monai_simclr/bundles/{path.relative_to(ROOT / 'bundles')}" for path in ROOT.glob("bundles/*/configs/*")
    }
    assert configs
    assert configs <= set(names)
    weights = sorted(name for name in names if name.endswith((".pt", ".safetensors")))
    models = "monai_simclr/bundles/chest_xray_simclr/models"
    assert weights == [f"{models}/{name}" for name in ("encoder.safetensors", "model.pt", "novelty.safetensors")]
    assert wheel.stat().st_size < 20e6
    assert not [name for name in names if "/output/" in name]


def test_the_installed_encoder_is_loaded_by_name_without_a_network(installed, tmp_path):
    code = "from monai_simclr.networks import load_encoder as load; print(load('chest_xray_resnet18').out_features)"
    assert int(_run(*_offline(), installed / "python", "-c", code, cwd=tmp_path).split()[-1]) >= 128


def test_the_bundle_that_the_wheel_writes_runs_under_monai(installed, tmp_path):
    said = _run(installed / "monai-simclr", "bundle", "small", "--findings", "Effusion", "--size", "32", cwd=tmp_path)
    assert "made small" in said
    assert "0 of them are not in the bundle" in _run(installed / "monai-simclr", "verify", "small", cwd=tmp_path)
    _run(installed / "monai-simclr", "phantoms", "archive", "--patients", "24", "--size", "64", cwd=tmp_path)
    settings = ["--dataset_dir", "archive", "--bundle_root", "small", "--num_workers", "0", "--batch_size", "16"]
    command = [installed / "python", "-m", "monai.bundle", "run", "--config_file", "small/configs/pretrain.json"]
    _run(*_offline(), *command, *settings, "--max_epochs", "1", cwd=tmp_path)
    assert (tmp_path / "small" / "models" / "encoder.safetensors").is_file()


@pytest.mark.timeout(900)
def test_the_demo_runs_in_an_empty_folder_without_a_network(installed, tmp_path):
    small = ["--patients", "120", "--epochs", "1", "--draws", "2"]
    said = _run(*_offline(), installed / "monai-simclr", "demo", *small, cwd=tmp_path)
    assert "What the encoder learned" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo"]
    assert (tmp_path / "demo" / "report.html").read_text(encoding="utf-8").count("data:image/png") >= 4
