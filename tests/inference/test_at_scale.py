"""Jobs for clusters and the table of costs: what they say is sound, and what the package knows."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from monai_simclr import recipes
from monai_simclr.data import get_store
from monai_simclr.data.phantoms import write_dicom_phantoms, write_nih_phantoms
from monai_simclr.data.pseudonyms import KEY_VARIABLE
from monai_simclr.inference import write_inference_config
from monai_simclr.networks import FindingClassifier, encoder, save_classifier
from monai_simclr.workflows import Run
from monai_simclr.workflows.bundle import copy_bundle
from monai_simclr.workflows.inference_config import make_inference_config

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "at-scale.md"
JOBS = sorted((ROOT / "docs" / "how-to" / "at-scale").iterdir())


def _scripts():
    """Name and text of every shell script in the jobs."""
    for path in JOBS:
        if path.suffix == ".sbatch":
            yield path.name, path.read_text()
        else:
            for document in yaml.safe_load_all(path.read_text()):
                for container in document["spec"].get("template", {}).get("spec", {}).get("containers", []):
                    assert container["command"] == ["bash", "-c"]
                    yield path.name, container["args"][0]


SCRIPTS = dict(_scripts())


def test_there_is_a_job_for_both_kinds_of_cluster_and_both_kinds_of_work():
    assert list(SCRIPTS) == ["inference.sbatch", "inference.yaml", "store.sbatch", "store.yaml"]
    for name in SCRIPTS:
        assert f"at-scale/{name}" in PAGE.read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_shell_scripts_are_sound(name):
    bash = shutil.which("bash") or pytest.skip("there is no bash")
    done = subprocess.run([bash, "-n"], input=SCRIPTS[name], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_an_indexed_job_has_as_many_pods_as_its_world():
    _, job = yaml.safe_load_all((PAGE.parent / "at-scale" / "inference.yaml").read_text())
    spec, script = job["spec"], SCRIPTS["inference.yaml"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(re.search(r"WORLD_SIZE=(\d+)", script)[1])
    assert 'RANK="$JOB_COMPLETION_INDEX"' in script


@pytest.mark.parametrize("name", ["store.yaml", "store.sbatch"])
def test_a_job_for_a_store_has_a_core_for_each_worker(name):
    job = (PAGE.parent / "at-scale" / name).read_text()
    cores = re.search(r'cpus-per-task=(\d+)|cpu: "(\d+)"', job)
    workers = re.search(r"--workers (\S+)", job)[1]
    assert workers in ('"$SLURM_CPUS_PER_TASK"', cores[2])


def test_the_pods_of_inference_find_the_first_one_and_share_a_key_of_hashes():
    service, job = yaml.safe_load_all((PAGE.parent / "at-scale" / "inference.yaml").read_text())
    name, pod = service["metadata"]["name"], job["spec"]["template"]["spec"]
    assert service["spec"]["clusterIP"] == "None"  # the word: a headless service
    assert pod["subdomain"] == name
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert f"MASTER_ADDR={job['metadata']['name']}-0.{name}" in SCRIPTS["inference.yaml"]
    assert pod["containers"][0]["env"][0]["name"] == KEY_VARIABLE


def test_the_options_in_the_jobs_are_ours():
    from typer.testing import CliRunner

    from monai_simclr.cli.app import app

    said = CliRunner().invoke(app, ["store", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).output
    for name in ("store.sbatch", "store.yaml"):
        for option in re.findall(r"--[a-z-]+", SCRIPTS[name].split("monai-simclr store")[1]):
            assert option in said
    config = json.loads((ROOT / "bundles/chest_xray_simclr/configs/inference.json").read_text())
    for name in ("inference.sbatch", "inference.yaml"):
        options = re.findall(r"--([a-z_]+)", SCRIPTS[name].split("monai.bundle run")[1])
        assert set(options) - {"config_file"} <= set(config)


def test_the_table_of_costs_is_what_the_script_makes_of_the_measurements():
    spec = importlib.util.spec_from_file_location("at_scale", ROOT / "benchmarks" / "at_scale.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = module.table(json.loads(module.RESULT.read_text()), price=0.05, cores=100)
    assert "\n".join(lines) in PAGE.read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_pods_of_an_indexed_job_share_the_files_and_the_key(tmp_path):
    bundle = copy_bundle(tmp_path / "bundle", ["Effusion"], size=48, encoder="resnet10", width=0.125)
    store = get_store(write_nih_phantoms(tmp_path / "nih", 60, size=64), tmp_path / "store", recipes.stored_size(48), 0)
    network = FindingClassifier(encoder("resnet10", width=0.125), ["Effusion"]).eval()
    path = save_classifier(bundle / "models" / "model.pt", network)
    write_inference_config(make_inference_config(Run(str(tmp_path), 48, 0, torch.device("cpu")), network, store), path)
    dicom = write_dicom_phantoms(tmp_path / "dicom", n_patients=6, size=64)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = SCRIPTS["inference.yaml"].replace("WORLD_SIZE=64", "WORLD_SIZE=2")
    for before, now in (
        ("inference-0.inference", "127.0.0.1"),
        ("29500", str(port)),
        ("exec python", f"exec {sys.executable} -W ignore"),
        ("/data/dicom", str(dicom)),
        ("/data/predictions", str(tmp_path / "out")),
    ):
        assert before in script
        script = script.replace(before, now)
    environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    pods = [
        subprocess.Popen(
            ["bash", "-c", script],
            cwd=bundle,
            env={**environment, "JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (1, 0)
    ]
    ends = [pod.communicate(timeout=200)[1] for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], ends
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    files = list(dicom.rglob("*.dcm"))
    assert len(rows) == len({row["file_hash"] for row in rows}) == len(files)
    assert len({row["patient_hash"] for row in rows}) == 6
