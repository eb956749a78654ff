"""Jobs for clusters and the table of costs: what they say is sound, and what the package knows."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from small_bundle import small_bundle

from monai_simclr.data import open_store
from monai_simclr.data.phantoms import write_dicom_phantoms, write_nih_phantoms
from monai_simclr.data.pseudonyms import KEY_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "at-scale.md"
SBATCH = PAGE.parent / "at-scale" / "cluster.sbatch"
OBJECTS = list(yaml.safe_load_all((PAGE.parent / "at-scale" / "cluster.yaml").read_text()))


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture
def certificates(tmp_path):
    """The page's lines, run once: a folder with tls.sh and its two files."""
    pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    script = re.search(r"```bash\n(\[ -f key.pem.*?)```", PAGE.read_text(), re.DOTALL)[1]
    (tmp_path / "tls.sh").write_text(script)
    done = subprocess.run(["bash", "-euc", "source tls.sh"], cwd=tmp_path, capture_output=True, text=True)
    if "openssl: command not found" in done.stderr:
        pytest.skip("there is no openssl to make certificates with")
    assert done.returncode == 0, done.stderr
    return tmp_path


@contextmanager
def _group(command: list[str], **settings) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with all that it started."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, start_new_session=True, stdout=pipe, stderr=pipe, text=True, **settings)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it has ended, and all that it started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(folder: Path, **more: str) -> dict[str, str]:
    """Of the commands of a job, with our Python, and srun that does its command here."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, does in (("srun", ""), ("dask", f"{sys.executable} -m dask"), ("python", sys.executable)):
        (bin_folder / name).write_text(f'#!/bin/bash\nexec {does} "$@"\n')
        (bin_folder / name).chmod(0o755)
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def test_the_job_of_slurm_does_a_command_by_the_workers_of_its_machines(certificates):
    folder = certificates
    write_nih_phantoms(folder / "nih", n_patients=20, size=64)
    script = SBATCH.read_text()
    for before, now in (("$(hostname)", "127.0.0.1"), ("8786", _free_port())):
        assert before in script
        script = script.replace(before, now)
    environment = _environment(folder, SLURM_CPUS_PER_TASK="1")
    command = ["python", "-m", "monai_simclr", "store", "nih", "--output", "store", "--size", "32"]
    with _group(["bash", "-c", script, "cluster.sbatch", *command], cwd=folder, env=environment) as job:
        assert job.wait(timeout=100) == 0, job.communicate()
        said = os.read(job.stderr.fileno(), 10**5).decode()
    assert "Dask workers of" in said
    assert len(open_store(folder / "store").images) > 20


def test_the_objects_of_kubernetes_name_each_other():
    names = {(one["kind"], one["metadata"]["name"]) for one in OBJECTS}
    for one in OBJECTS:
        pod = one["spec"]["template"]["spec"] if "template" in one.get("spec", {}) else None
        for container in pod["containers"] if pod else []:
            assert ("ConfigMap", container["envFrom"][0]["configMapRef"]["name"]) in names
            assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
            for host in re.findall(r"tls://([\w-]+):8786", str(container)):
                assert ("Service", host) in names
    (service,) = (one["spec"] for one in OBJECTS if one["kind"] == "Service")
    assert service["selector"] in [one["spec"]["template"]["metadata"]["labels"] for one in OBJECTS[2:4]]
    exported = set(re.findall(r"DASK_DISTRIBUTED__\w+", PAGE.read_text()))
    assert {name for name in OBJECTS[0]["data"] if "CERT" not in name and "KEY" not in name} <= exported


def test_the_options_in_the_job_are_ours():
    config = json.loads((ROOT / "bundles/chest_xray_simclr/configs/inference.json").read_text())
    options = {
        text.split("=")[0].lstrip("-") for text in OBJECTS[4]["spec"]["template"]["spec"]["containers"][0]["args"]
    }
    assert options == {"bundle_root", "dataset_dir", "output_dir", "engine"}
    assert options <= set(config)


def test_the_table_of_costs_is_what_the_script_makes_of_the_measurements():
    spec = importlib.util.spec_from_file_location("at_scale", ROOT / "benchmarks" / "at_scale.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = module.table(json.loads(module.RESULT.read_text()), price=0.05, cores=100)
    assert "\n".join(lines) in PAGE.read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_of_the_kubernetes_objects_predict(certificates):
    folder, port = certificates, _free_port()
    bundle = small_bundle(folder, 60)
    dicom = write_dicom_phantoms(folder / "dicom", n_patients=6, size=64)
    commands = []
    for one in OBJECTS[2:]:
        (container,) = one["spec"]["template"]["spec"]["containers"]
        words = [*container["command"], *container.get("args", [])]
        for before, now in (
            ("dask-scheduler", "127.0.0.1"),
            ("8786", port),
            ("/data/bundle", str(bundle)),
            ("/data/dicom", str(dicom)),
            ("/data/predictions", str(folder / "out")),
        ):
            words = [word.replace(before, now) for word in words]
        commands.append(words)
    tls = {name: value.replace("/tls", str(folder)) for name, value in OBJECTS[0]["data"].items()}
    environment = _environment(folder, **tls)
    environment.pop(KEY_VARIABLE, None)
    scheduler, worker, job = ({"command": words, "env": environment, "cwd": folder} for words in commands)
    with _group(**scheduler), _group(**worker), _group(**worker), _group(**job) as command:
        said = command.communicate(timeout=500)
        assert command.returncode == 0, said
    rows = list(csv.DictReader((folder / "out" / "predictions.csv").read_text().splitlines()))
    assert len(rows) == len({row["file_hash"] for row in rows}) == len(list(dicom.rglob("*.dcm")))
    assert len({row["patient_hash"] for row in rows}) == 6
