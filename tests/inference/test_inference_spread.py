"""Inference by workers: the rows are those of one process, whoever crashes or is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_command import bundle_command
from dask_cluster import SERVE, DaskCluster, await_lines
from small_bundle import SIZE, csv_rows, small_bundle, small_network

from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.data.pseudonyms import KEY_VARIABLE
from monai_simclr.evaluation import Embeddings
from monai_simclr.inference import Journal, OutputOptions, predict
from monai_simclr.runtime import spread
from monai_simclr.runtime.exit_codes import SettingError
from monai_simclr.runtime.signals import Preempted
from monai_simclr.runtime.spread import pack
from monai_simclr.workflows import Run, infer, inference


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("spread"), 60, scale=20)


def _phantoms(folder: Path, count: int, damaged: int) -> list[Path]:
    """Some DICOM files, of which the first `damaged` ones are cut short."""
    drawn = write_dicom_phantoms(folder / "drawn", count // 2 + 3, size=64)
    for number, file in enumerate(sorted(drawn.rglob("*.dcm"))):
        content = file.read_bytes()
        if number < count:
            (folder / f"{number:04}.dcm").write_bytes(content[:-900] if number < damaged else content)
        file.unlink()
    return sorted(folder.glob("*.dcm"))


@pytest.mark.timeout(900)  # processes that import torch, on a busy machine
def test_workers_give_the_rows_of_one_process_and_a_file_that_crashes_them_is_a_row(bundle, tmp_path, monkeypatch):
    files = _phantoms(tmp_path / "in", 40, damaged=4)
    monkeypatch.setenv(KEY_VARIABLE, "one key")
    options = {"outputs": {"embeddings": True}, "inference_batch": 4}
    alone = predict(tmp_path / "in", bundle, tmp_path / "alone", **options)
    (tmp_path / "deeds").mkdir()
    (tmp_path / "deeds" / files[36].name).write_text("os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("DEEDS", str(tmp_path / "deeds"))
    monkeypatch.setattr(spread, "_SERVE", f"exec({SERVE!r})")
    rows = predict(tmp_path / "in", bundle, tmp_path / "out", engine="processes", num_workers=2, **options)
    assert rows["reason"][36] == "ended the decoder by SIGSEGV"
    assert np.isnan(rows["Effusion"][36])
    assert list(rows["file_hash"]) == list(alone["file_hash"])
    others = [number for number in range(40) if number != 36]
    for name in alone:
        one, other = (table[name].iloc[others] for table in (rows, alone))
        if alone[name].dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4, err_msg=name)
        else:
            assert list(one) == list(other), name
    assert len(Embeddings.load(tmp_path / "out" / "embeddings.npz")) == 35
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    again = predict(tmp_path / "in", bundle, tmp_path / "out", **options)
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before, "either engine resumes the other's rows"
    assert list(again["reason"]) == list(rows["reason"])


@pytest.fixture
def threads(monkeypatch):
    """Workers that are threads of this process, which start at once."""
    monkeypatch.setattr(inference, "open_executor", lambda engine, workers: ThreadPoolExecutor(1))
    monkeypatch.setattr(inference, "_TIME_LIMIT", 0.0)  # only the main thread has alarms


def test_a_signal_keeps_what_workers_have_predicted_and_the_same_command_goes_on(
    bundle, tmp_path, threads, monkeypatch
):
    _phantoms(tmp_path / "in", 8, damaged=1)
    written = Journal.append

    def append_and_be_asked(journal, rows):
        written(journal, rows)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Journal, "append", append_and_be_asked)
    with pytest.raises(Preempted, match="every row that was predicted is kept"):
        predict(tmp_path / "in", bundle, tmp_path / "out", engine="processes", inference_batch=4)
    monkeypatch.setattr(Journal, "append", written)
    assert 0 < len(csv_rows(tmp_path / "out")) < 8
    rows = predict(tmp_path / "in", bundle, tmp_path / "out", engine="processes", inference_batch=4)
    assert len(rows) == 8
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 9


def test_a_classifier_that_is_replaced_meanwhile_is_not_used(bundle, tmp_path, threads, monkeypatch):
    _phantoms(tmp_path / "in", 2, damaged=0)
    whole = inference._PredictFiles.__call__

    def of_another_model(work, files):
        return whole(replace(work, model_sha256="0" * 64), files)

    monkeypatch.setattr(inference._PredictFiles, "__call__", of_another_model)
    with pytest.raises(OSError, match=r"model\.pt was replaced since the run began; stop whoever writes it"):
        predict(tmp_path / "in", bundle, tmp_path / "out", engine="processes")


def test_workers_of_other_versions_are_refused(bundle, tmp_path):
    work = inference._PredictFiles(
        pack((None, {})), "", str(tmp_path), "", "torch", "", OutputOptions(), False, "", (("torch", "1"),)
    )
    with pytest.raises(OSError, match=r"torch is .* on .*, and 1 where the command runs"):
        work([])


def test_an_engine_needs_the_config_that_workers_predict_by(bundle, tmp_path):
    from monai.engines import SupervisedEvaluator
    from torch.utils.data import DataLoader

    from monai_simclr import recipes
    from monai_simclr.inference import InferenceDataset

    loader = DataLoader(InferenceDataset([], recipes.preprocessing(SIZE), SIZE))
    evaluator = SupervisedEvaluator(device=torch.device("cpu"), val_data_loader=loader, network=small_network())
    run = Run(str(tmp_path / "out"), SIZE, 0, torch.device("cpu"))
    with pytest.raises(SettingError, match=r"evaluator of a bundle's config; run its inference\.json"):
        infer(run, bundle / "models" / "model.pt", evaluator, tmp_path, OutputOptions(), engine="processes")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_files_with_fifty_damaged_on_a_cluster_whose_worker_is_killed(bundle, tmp_path):
    _phantoms(tmp_path / "in", 1000, damaged=50)
    cluster, out = DaskCluster(tmp_path / "dask", workers=3, COMM__TIMEOUTS__CONNECT="60s"), tmp_path / "out"
    options = ["--dataset_dir", str(tmp_path / "in"), "--output_dir", str(out), "--engine", cluster.engine]

    environment = {**os.environ, **cluster.environment, "OMP_NUM_THREADS": "1"}
    command, pipe = bundle_command("configs/inference.json", *options), subprocess.PIPE
    try:
        process = subprocess.Popen(command, cwd=bundle, env=environment, stdout=pipe, stderr=pipe, text=True)
        await_lines(out / "predictions.jsonl", 500, process)
        cluster.processes[1].kill()
        said = process.communicate(timeout=1200)
        assert process.returncode == 0, (said, cluster.log())
    finally:
        cluster.close()
    rows = csv_rows(out)
    assert len(rows) == len({row["file_hash"] for row in rows}) == 1000
    assert sum(bool(row["Effusion"]) for row in rows) == 950
    assert sum(bool(row["reason"]) for row in rows) == 50
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 1001, "no file was predicted twice"
    assert "0999.dcm" not in cluster.log(), "names of files are not for the logs of a cluster"
