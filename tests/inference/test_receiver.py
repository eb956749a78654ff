"""Receiving by C-STORE: what a sender was told to be stored is there, whole, whatever happens afterwards."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from inference.orthanc import write_radiographs

from monai_simclr.inference.receiver import Receiver

pynetdicom = pytest.importorskip("pynetdicom", reason="pynetdicom is not installed: pip install 'monai-simclr[pacs]'")
VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_radiographs(tmp_path_factory.mktemp("dicom") / "phantoms", patients=4)


@pytest.fixture
def receiver(tmp_path: Path):
    with Receiver(tmp_path / "out", port=0, quiet_seconds=0.5, min_free_bytes=0) as running:
        yield running


def connect(port: int, called: str = "SIMCLR", calling: str = "SENDER"):
    entity = pynetdicom.AE(calling)
    entity.add_requested_context(VERIFICATION)
    for syntax in pydicom.uid.AllTransferSyntaxes[:4]:
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.1.1", syntax)
    return entity.associate("127.0.0.1", port, ae_title=called)


def send(port: int, paths: list[Path]) -> list[int]:
    association = connect(port)
    codes = [association.send_c_store(pydicom.dcmread(path)).get("Status", -1) for path in paths]
    association.release()
    return codes


def wait_for(what, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} s")


def uids(paths) -> list[str]:
    return sorted(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in paths)


def test_a_study_arrives_whole_when_it_has_been_quiet(receiver, radiographs):
    association = connect(receiver.port)
    assert association.acceptor.maximum_length == 1 << 17
    assert association.send_c_echo().Status == 0
    association.release()
    receiver.quiet_seconds = 600
    assert send(receiver.port, radiographs) == [0] * len(radiographs)
    assert not list(receiver.incoming.iterdir())
    receiver.quiet_seconds = 0.1
    wait_for(lambda: len(list(receiver.incoming.glob("*/*.dcm"))) == len(radiographs))
    assert uids(receiver.incoming.glob("*/*.dcm")) == uids(radiographs)
    for path in receiver.incoming.glob("*/*.dcm"):
        received = pydicom.dcmread(path)
        assert (path.parent.name, path.stem) == (received.StudyInstanceUID, received.SOPInstanceUID)
    sent = {pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path).PixelData for path in radiographs}
    assert all(pydicom.dcmread(path).PixelData == sent[path.stem] for path in receiver.incoming.glob("*/*.dcm"))
    wait_for(lambda: [path.name for path in receiver.receiving.iterdir()] == ["lock"])


def test_an_instance_that_comes_again_replaces_the_first(receiver, radiographs):
    for _ in range(2):
        assert send(receiver.port, radiographs[:1]) == [0]
        wait_for(lambda: len(list(receiver.incoming.glob("*/*.dcm"))) == 1)


def test_only_the_called_title_and_the_allowed_ones_get_an_association(tmp_path, radiographs):
    with Receiver(tmp_path / "out", port=0, allowed=["SENDER"]) as receiver:
        assert connect(receiver.port).is_established
        assert connect(receiver.port, calling="STRANGER").is_rejected
        assert connect(receiver.port, called="OTHER").is_rejected


def test_more_senders_than_allowed_are_rejected(tmp_path):
    with Receiver(tmp_path / "out", port=0, max_associations=1) as receiver:
        first = connect(receiver.port)
        assert first.is_established
        assert connect(receiver.port).is_rejected
        first.release()
        wait_for(lambda: connect(receiver.port).is_established)


def test_a_full_disk_is_told_to_the_sender_and_nothing_is_lost(receiver, radiographs, caplog):
    receiver.min_free_bytes = 1 << 62
    with caplog.at_level(logging.ERROR, "monai_simclr"):
        assert send(receiver.port, radiographs[:2]) == [0xA700, 0xA700]
    assert "told to wait" in caplog.text
    assert not list(receiver.receiving.rglob("*.dcm"))
    receiver.min_free_bytes = 0
    assert send(receiver.port, radiographs[:2]) == [0, 0]


def test_a_disk_that_fills_while_writing_leaves_no_part(receiver, radiographs, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert send(receiver.port, radiographs[:1]) == [0xA700]
    monkeypatch.undo()
    assert not list(receiver.receiving.rglob("*.part"))
    assert not list(receiver.receiving.rglob("*.dcm"))


def test_names_are_flushed_to_the_disk_before_the_sender_is_told(receiver, radiographs, monkeypatch):
    flushed = []

    def sync(folder):
        flushed.append((folder.name, sorted(path.name for path in folder.glob("*.dcm"))))

    monkeypatch.setattr("monai_simclr.inference.receiver.sync", sync)
    assert send(receiver.port, radiographs[:1]) == [0]
    header = pydicom.dcmread(radiographs[0], stop_before_pixels=True)
    assert flushed == [("receiving", []), (header.StudyInstanceUID, [f"{header.SOPInstanceUID}.dcm"])]


def test_uids_that_could_leave_the_folder_are_refused(receiver, radiographs):
    evil = pydicom.dcmread(radiographs[0])
    association = connect(receiver.port)
    with pydicom.config.disable_value_validation():
        evil.StudyInstanceUID = "../../../etc"
        assert association.send_c_store(evil).Status == 0xC000
        del evil.StudyInstanceUID
        assert association.send_c_store(evil).Status == 0xC000
    association.release()
    assert [path.name for path in receiver.receiving.iterdir()] == ["lock"]


def test_an_instance_that_is_too_long_ends_the_association(tmp_path, radiographs, caplog):
    with Receiver(tmp_path / "out", port=0, max_bytes=1000, min_free_bytes=0) as receiver:
        association = connect(receiver.port)
        with caplog.at_level(logging.WARNING, "monai_simclr"):
            association.send_c_store(pydicom.dcmread(radiographs[0]))
        wait_for(lambda: not association.is_established)
        assert "association aborted" in caplog.text
        assert not list(receiver.receiving.rglob("*.dcm"))


def test_two_receivers_cannot_share_a_folder(receiver):
    with pytest.raises(FileExistsError, match=str(os.getpid())):
        Receiver(receiver.receiving.parent, port=0).start()


def test_a_port_that_is_taken_is_an_error_with_the_port_and_the_folder_stays_free(receiver, tmp_path):
    for _ in range(2):
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{receiver.port} .*choose another --port"):
            Receiver(tmp_path / "other", port=receiver.port).start()


def test_a_title_is_checked(tmp_path):
    with pytest.raises(ValueError, match="1 to 16 ASCII characters, got 'A title that is too long'"):
        Receiver(tmp_path, ae_title="A title that is too long")


def _serve(folder: Path, quiet: float, port: Any) -> None:
    with Receiver(folder, port=0, quiet_seconds=quiet, min_free_bytes=0) as receiver:
        port.send(receiver.port)
        time.sleep(600)


def serve(folder: Path, quiet: float) -> tuple[multiprocessing.process.BaseProcess, int]:
    context = multiprocessing.get_context("fork")
    port, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(folder, quiet, theirs), daemon=True)
    process.start()
    assert port.poll(60)
    return process, port.recv()


def test_what_was_acknowledged_survives_a_kill(tmp_path, radiographs):
    process, port = serve(tmp_path, quiet=600)
    acknowledged = [path for path, code in zip(radiographs[:5], send(port, radiographs[:5]), strict=True) if code == 0]
    assert len(acknowledged) == 5
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    process, port = serve(tmp_path, quiet=0.5)
    try:
        assert send(port, radiographs[5:]) == [0] * len(radiographs[5:])
        wait_for(lambda: len(list((tmp_path / "incoming").glob("*/*.dcm"))) == len(radiographs))
        assert uids((tmp_path / "incoming").glob("*/*.dcm")) == uids(radiographs)
    finally:
        process.kill()
        process.join()
