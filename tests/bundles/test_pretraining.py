"""Pretraining by MONAI's own command: stopped, gone on with, by two ranks under torchrun, refused where it must be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_command import Forked, bundle_command
from monai.bundle import ConfigWorkflow

from monai_simclr.data.phantoms import FINDINGS, write_nih_phantoms
from monai_simclr.networks import load_encoder
from monai_simclr.workflows.bundle import copy_bundle

RANKS = "['configs/pretrain.json','configs/multi_gpu_train.json']"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretraining")
    write_nih_phantoms(folder / "phantoms", n_patients=32, size=96)
    return copy_bundle(folder / "bundle", FINDINGS, size=56, width=0.25)


def _command(bundle: Path, output: str, *more: str, config: str = "configs/pretrain.json", **how: Any) -> list[str]:
    settings = {"dataset_dir": str(bundle.parent / "phantoms"), "num_workers": "0", "batch_size": "16"}
    settings |= {"output_dir": output, "logging_file": "configs/logging.conf", "precision": "float32"}
    pairs = [part for name, value in settings.items() for part in (f"--{name}", value)]
    return bundle_command(config, *pairs, *more, **how)


def _run(bundle: Path, output: str, *more: str, **how: Any) -> subprocess.CompletedProcess[str]:
    command = _command(bundle, output, *more, **how)
    return subprocess.run(command, cwd=bundle, capture_output=True, text=True, env=ENVIRONMENT, timeout=200)


def _weights(bundle: Path, output: str) -> dict[str, torch.Tensor]:
    newest = max((bundle / output / "checkpoints").glob("*.pt"))
    return torch.load(newest, weights_only=True)["objects"]["network"]


def _await_checkpoint(bundle: Path, output: str, running: subprocess.Popen[str] | Forked) -> None:
    limit = time.monotonic() + 120
    while not list((bundle / output).glob("checkpoints/*.pt")):
        assert time.monotonic() < limit, "no checkpoint within two minutes"
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.05)


@contextmanager
def _running(bundle: Path, output: str, *more: str, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """A run that has saved its first checkpoint; ended at the end, whatever happens."""
    pipe = subprocess.PIPE
    command = _command(bundle, output, *more, **how)
    running = subprocess.Popen(
        command, cwd=bundle, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT, start_new_session=True
    )
    try:
        _await_checkpoint(bundle, output, running)
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)


@pytest.mark.parametrize(("number", "code", "how"), [(signal.SIGTERM, 75, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")])
def test_a_signal_ends_a_run_with_its_code_after_saving(
    bundle: Path, tmp_path: Path, number: int, code: int, how: str
) -> None:
    output = f"output/{how}"
    running = Forked(bundle, tmp_path, _command(bundle, output, "--max_epochs", "500", "--num_workers", "2"))
    try:
        _await_checkpoint(bundle, output, running)
        started = time.monotonic()
        os.killpg(running.pid, number)  # as a terminal and a cluster do: the loader's processes get it too
        _, errors = running.communicate()
    finally:
        running.kill()
    assert time.monotonic() - started < 20
    assert running.returncode == code
    assert errors.splitlines()[-1].startswith(f"stopped by {how}, saved in {output}/checkpoints at iteration ")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_second_run_in_the_folder_is_refused_and_changes_nothing(bundle: Path) -> None:
    with _running(bundle, "output/taken", "--max_epochs", "500") as running:
        second = _run(bundle, "output/taken", "--max_epochs", "500")
        assert second.returncode == 4
        assert second.stderr.splitlines()[-1].startswith(f"FileExistsError: process {running.pid} on ")
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=30)
    other = _run(bundle, "output/taken", "--max_epochs", "2")
    assert other.returncode == 4
    assert "holds another run: max_epochs was 500, is 2; use the old values" in other.stderr.splitlines()[-1]
    assert json.loads((bundle / "output/taken/config.json").read_text())["max_epochs"] == 500


@pytest.mark.timeout(400)
def test_two_ranks_under_torchrun_leave_an_encoder(bundle: Path, tmp_path: Path) -> None:
    """By torch's launcher, which forks the ranks; the slow tests below run torchrun's command."""
    how = {"config": RANKS, "ranks": 2, "launcher": "forked_ranks"}
    running = Forked(bundle, tmp_path, _command(bundle, "output/ranks", "--max_epochs", "2", **how))
    said, errors = running.communicate()
    assert running.returncode == 0, said + errors
    assert said.count("pretraining: epoch 2/2") == 1, "both ranks speak"
    assert "batch statistics are those of each rank" in said
    assert load_encoder(bundle / "models" / "encoder.safetensors").training is False
    assert not any(name.startswith("module.") for name in _weights(bundle, "output/ranks"))


def _losses(bundle: Path, output: str) -> list[float]:
    return [record["loss"] for record in json.loads((bundle / output / "history.json").read_text())]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_of_two_ranks_resumes_without_torchrun_and_a_run_of_one_under_it(bundle: Path) -> None:
    """The losses are equal where no statistics are of a rank's batch, as by default on CPUs.

    By small steps of SGD: they follow the gradient's scale, as AdamW's do not, and do not magnify rounding. At usual
    rates 1e-7 more in the weights alone is 1e-2 in the loss after four steps of SGD, 2e-4 after ten of AdamW.
    """
    some = ["--max_epochs", "6", "--norm", "group", "--checkpoint_minutes", "0"]
    some += ["--optimizer_name", "sgd", "--learning_rate", "0.00001"]
    ranks = {"config": RANKS, "ranks": 2}
    assert _run(bundle, "output/whole", *some).returncode == 0
    for output, before, after in (("output/fewer", ranks, {}), ("output/more", {}, ranks)):
        with _running(bundle, output, *some, **before) as running:
            running.send_signal(signal.SIGTERM)
            _, errors = running.communicate(timeout=100)
        stops = [line for line in errors.splitlines() if "stopped by SIGTERM, saved in " in line]
        assert sorted(line.partition("stopped")[0] for line in stops) == (["rank 0: ", "rank 1: "] if before else [""])
        assert all(line.endswith("; run the same command to resume") for line in stops)
        done = _run(bundle, output, *some, **after)
        assert done.returncode == 0, done.stdout + done.stderr
        counts = (1, 2) if after else (2, 1)
        assert "nothing is left to train" not in done.stdout
        assert f"; on {counts[1]} instead of {counts[0]} ranks, so no longer bit for bit" in done.stdout
        assert _losses(bundle, output) == pytest.approx(_losses(bundle, "output/whole"), abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_ranks_that_have_finished_report_it(bundle: Path) -> None:
    for _ in range(2):
        done = _run(bundle, "output/finished", "--max_epochs", "1", config=RANKS, ranks=2)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "finished, all 1 epochs are done and nothing is left to train" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_views_on_the_device_and_clipping_are_settings(bundle: Path) -> None:
    done = _run(bundle, "output/device", "--max_epochs", "2", "--views_on", "device", "--max_grad_norm", "1.0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pretraining: epoch 2/2" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_one_ranks_failure_is_named_by_torchruns_summary(bundle: Path) -> None:
    done = _run(bundle, "output/uneven", "--max_epochs", "1", "--batch_size", "15", config=RANKS, ranks=2)
    assert done.returncode == 1
    assert "Root Cause (first observed failure)" in done.stderr
    assert done.stderr.count("ValueError: batch_size is 15 over all ranks, which 2 ranks cannot share evenly") >= 2


def test_monai_finds_every_property(bundle: Path) -> None:
    workflow = ConfigWorkflow(
        str(bundle / "configs/pretrain.json"),
        workflow_type="train",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(bundle.parent / "phantoms"),
        num_workers=0,
        batch_size=16,
        output_dir=str(bundle / "checked"),
    )
    workflow.initialize()
    assert workflow.check_properties() == []
