"""The door to a PACS, end to end against a real Orthanc: every study once, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pydicom
import pytest
from inference.orthanc import Orthanc, free_port, write_radiographs
from inference.small_bundle import csv_rows, small_bundle

from monai_simclr.inference.dicomweb import Worklist, store_results
from monai_simclr.runtime.exit_codes import SettingError, root_cause
from monai_simclr.runtime.signals import Preempted
from monai_simclr.workflows.bundle import run_bundle

pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed: pip install 'monai-simclr[pacs]'")
pytest.importorskip("pynetdicom", reason="pynetdicom is not installed: pip install 'monai-simclr[pacs]'")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle"), patients=60)


def damage(paths: list[Path]) -> None:
    """Take the end of the pixels away; the header stays, so that a PACS stores and sends the instance."""
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 4 // 2 * 2]
        dataset.save_as(path)


def send(port: int, paths: list[Path]) -> None:
    """Store instances by C-STORE."""
    from pynetdicom import AE

    entity = AE("SENDER")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.1.1")
    association = entity.associate("127.0.0.1", port)
    assert [association.send_c_store(pydicom.dcmread(path)).Status for path in paths] == [0] * len(paths)
    association.release()


def stored(server: Orthanc, modality: str) -> list[Path]:
    folder = server.folder.parent / f"read back {modality}"
    return Worklist(server.web, folder, modalities=(modality,)).fetch()[0]


def test_a_worklist_is_predicted_and_the_results_are_read_back_from_the_service(bundle, tmp_path):
    pytest.importorskip("highdicom")
    files = write_radiographs(tmp_path / "phantoms", patients=3)
    damage(files[:1])
    server = Orthanc(tmp_path / "server")
    try:
        assert list(store_results(server.web, files)) == files
        settings = {"output_dir": str(tmp_path / "out"), "num_workers": 0, "dataset_dir": server.web}
        for _ in range(2):  # the second run has nothing to do
            run_bundle(bundle, "inference", **settings, **{"outputs#dicom": True, "outputs#stow": True})
            rows = csv_rows(tmp_path / "out")
            assert len(rows) == len({row["sop_instance_hash"] for row in rows}) == len(files)
            assert sum(bool(row["reason"]) for row in rows) == 1
            reports = [pydicom.dcmread(path) for path in stored(server, "SR")]
            assert len(reports) == len(files) - 1
        written = {pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "out" / "dicom").glob("*.dcm")}
        assert {report.SOPInstanceUID for report in reports} <= written
        sources = {pydicom.dcmread(path).StudyInstanceUID for path in files[1:]}
        assert {report.StudyInstanceUID for report in reports} == sources
    finally:
        server.stop()


def test_a_stop_while_a_worklist_is_fetched_does_not_wait_for_the_rest(bundle, tmp_path, monkeypatch):
    went_on = []

    def fetch(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        went_on.append(time.sleep(1))

    monkeypatch.setattr(Worklist, "fetch", fetch)
    settings = {"dataset_dir": "dicomweb+http://127.0.0.1:9/dicom-web", "output_dir": str(tmp_path), "num_workers": 0}
    with pytest.raises((Preempted, RuntimeError)) as caught:
        run_bundle(bundle, "inference", **settings)
    assert isinstance(root_cause(caught.value), Preempted)
    assert not went_on


def test_results_without_a_service_are_refused_before_any_work(bundle, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        run_bundle(bundle, "inference", dataset_dir=str(bundle), output_dir=str(tmp_path), **{"outputs#stow": True})
    errors, error = [], caught.value
    while error is not None:
        errors.append(error)
        error = error.__cause__ or error.__context__
    assert any(isinstance(error, SettingError) and "outputs#dicom True" in str(error) for error in errors)


def listen(bundle: Path, output: Path, port: int) -> subprocess.Popen:
    words = ["listen", "-b", bundle, "-o", output, "--port", port, "--quiet", 1, "--min-free", 0, "--dicom"]
    with (output.parent / "listen.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "monai_simclr", *map(str, words)], stdout=log, stderr=log, start_new_session=True
        )
    end = time.monotonic() + 120
    while "receives on" not in (output.parent / "listen.log").read_text().rpartition("started")[2]:
        assert process.poll() is None, (output.parent / "listen.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.1)
    return process


def journal_rows(output: Path) -> list[dict]:
    path = output / "predictions.jsonl"
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    return [json.loads(line) for line in lines]


def send_until_stored(server: Orthanc, instance: str) -> None:
    """Let Orthanc send an instance to us, again and again, as a PACS does."""
    while True:
        try:
            server.post("/modalities/simclr/store", instance.encode())
            return
        except urllib.error.HTTPError:
            time.sleep(0.2)


def check_reports(folder: Path, n_reports: int) -> None:
    assert len(list(folder.glob("*.sr.dcm"))) == n_reports
    for path in sorted(folder.glob("*.dcm"))[:10] if shutil.which("dciodvfy") else []:
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
        assert not [line for line in done.stderr.splitlines() if line.startswith("Error")], done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_hundred_studies_survive_kills_of_both_sides(bundle, tmp_path):
    files = write_radiographs(tmp_path / "phantoms", patients=100)
    while len({pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID for path in files}) > 200:
        files.pop().unlink()
    assert len(files) >= 200
    damage(files[::20][:10])
    port, output = free_port(), tmp_path / "out"
    server = Orthanc(tmp_path / "server", peers={"simclr": ["SIMCLR", "127.0.0.1", port]})
    half = len(files) // 2
    assert list(store_results(server.web, files[:half])) == files[:half]  # by STOW-RS
    send(server.dicom, files[half:])  # by C-STORE
    process = listen(bundle, output, port)
    try:
        instances = list(server.get("/instances"))
        assert len(instances) == len(files)
        for number, instance in enumerate(instances):
            if number == len(instances) // 3:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                process = listen(bundle, output, port)
            if number == len(instances) // 2:
                server.stop()
                server.start()
            send_until_stored(server, instance)
        end = time.monotonic() + 900
        while len(journal_rows(output)) < len(files) and time.monotonic() < end:
            assert process.poll() is None, (tmp_path / "listen.log").read_text()[-3000:]
            time.sleep(1)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=60) == 75, (tmp_path / "listen.log").read_text()[-3000:]
    finally:
        server.stop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    rows = csv_rows(output)
    assert len(rows) == len({row["sop_instance_hash"] for row in rows}) == len(files)
    assert sum(bool(row["reason"]) for row in rows) == 10
    check_reports(output / "dicom", len(files) - 10)
