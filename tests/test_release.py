"""What a release is made of agrees with setup.cfg (conda recipe, image, workflow), and the package without extras."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from bare_environment import bare_environment, clean_variables

import monai_simclr

ROOT = Path(__file__).resolve().parent.parent
CONDA = {"torch": "pytorch", "opencv-python-headless": "py-opencv", "matplotlib": "matplotlib-base"}
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def _listed(text: str) -> list[str]:
    return [line for line in text.split("\n") if line and not line.startswith("#")]


REQUIRED = _listed(SETUP["options"]["install_requires"])
EXTRAS = {name: _listed(text) for name, text in SETUP["options.extras_require"].items()}


def _parts(requirement: str) -> tuple[str, str]:
    name, bounds = re.fullmatch(r"([\w-]+)(?:\[\w+\])? *(.*)", requirement).groups()  # type: ignore[union-attr]
    return name, bounds


def test_the_conda_recipe_requires_what_the_package_does() -> None:
    recipe = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == monai_simclr.__version__
    wanted = {CONDA.get(name, name): bounds for name, bounds in map(_parts, REQUIRED)}
    runs = dict(map(_parts, recipe["requirements"]["run"]))
    assert runs == {"python": SETUP["options"]["python_requires"], **wanted}
    optional = dict(_parts(line) for lines in EXTRAS.values() for line in lines)
    assert {name: optional[name] for name in ("nibabel", "highdicom", "pynetdicom")} == dict(
        map(_parts, recipe["requirements"]["run_constraints"])
    )
    (command,) = recipe["build"]["python"]["entry_points"]
    assert command.split(" = ") == ["monai-simclr", "monai_simclr.cli.app:main"]


def test_the_image_copies_what_is_installed_and_names_extras_that_exist() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for word in line.split()]
    assert all((ROOT / name).exists() for name in copied)
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "monai_simclr", "bundles"} <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", text, re.M)
    assert set(extras.split(",")) <= set(EXTRAS)
    assert sum(line.startswith("torch==") for line in (ROOT / "constraints.txt").read_text().splitlines()) == 1


def test_the_workflow_runs_what_the_makefile_and_ci_have() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {word for command in commands for word in re.findall(r"make (\w+)", command)} <= targets
    assert "bash .ci/run" in commands
    assert all("@" in step["uses"] for step in steps if "uses" in step)
    publish = workflow["jobs"]["publish"]
    assert set(publish["needs"]) == {"test", "dist", "image"}
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/v')"


WITHOUT_EXTRAS = """
import importlib, json, os, pkgutil, sys
from pathlib import Path
import monai_simclr

names = [part.name for part in pkgutil.walk_packages(monai_simclr.__path__, "monai_simclr.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
from monai_simclr.cli.app import app
from monai_simclr.data.reading import read_radiograph
from monai_simclr.inference.dicom_results import check_installed
from monai_simclr.inference.dicomweb import store_results
from monai_simclr.inference.receiver import Receiver
from monai_simclr.inference.runtimes import OnnxFeatures
from monai_simclr.networks import encoder, from_pretrained
from monai_simclr.runtime.cluster import check_engine
from monai_simclr.runtime.exit_codes import exit_code
from monai_simclr.workflows.export import export_int8, export_onnx

Path("a.nii").write_bytes(bytes(344) + b"n+1\\0" + bytes(200))
asked = {
    "nifti": lambda: read_radiograph("a.nii"),
    "dicom": check_installed,
    "pacs": lambda: Receiver("r"),
    "pacs ": lambda: list(store_results("dicomweb+http://127.0.0.1:9/dicom-web", [])),
    "cluster": lambda: check_engine("dask://local"),
    "export": lambda: export_onnx("b", "b.onnx"),
    "export ": lambda: export_int8("b", "b.onnx", "b"),
    "export  ": lambda: OnnxFeatures("b.onnx"),
    "timm": lambda: encoder("timm/resnet18"),
    "hub": lambda: from_pretrained("somebody/encoder"),
}
said = {}
for extra, call in asked.items():
    try:
        call()
    except Exception as error:
        said[extra] = [str(error), exit_code(error)]
print(json.dumps([len(names), said]), flush=True)
os._exit(0)  # taking MONAI apart takes two seconds
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_environment(
        tmp_path_factory.mktemp("bare") / "env", ["monai-simclr", *(_parts(r)[0] for r in REQUIRED)]
    )


def test_without_extras_every_module_is_there_and_a_sentence_names_the_extra(bare: Path, tmp_path: Path) -> None:
    command = [str(bare), "-W", "ignore", "-c", WITHOUT_EXTRAS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=clean_variables(), timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    n_modules, said = json.loads(done.stdout.splitlines()[-1])
    assert n_modules > 150
    assert len(said) == 10
    for extra, (message, code) in said.items():
        assert f"pip install 'monai-simclr[{extra.strip()}]'" in message
        assert code in (2, 3)


def test_what_one_command_needs_is_in_an_extra() -> None:
    """The heavy packages that were required once, and for one format or one page."""
    required = {_parts(line)[0] for line in REQUIRED}
    assert not required & {"nibabel", "imagehash", "scikit-image", "highdicom", "tensorboard", "onnx", "distributed"}
    assert EXTRAS["nifti"] == ["nibabel>=5.2"]
