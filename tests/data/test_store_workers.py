"""Processes that decode and die, and ranks of a job that wait for the store that rank 0 makes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import cv2
import pytest

from monai_simclr.data import build_store, get_store, open_index, open_store
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.data.store import build
from monai_simclr.runtime import spread
from monai_simclr.runtime.files import file_sha256


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_nih_phantoms(tmp_path_factory.mktemp("ranks") / "nih", n_patients=20, size=64, bad_files=2)


@pytest.fixture(scope="module")
def whole(archive):
    build_store(open_index(archive), archive.parent / "whole", 32, 0, 0.2)
    return _files(archive.parent / "whole")


def _files(folder):
    return {path.name: file_sha256(path) for path in folder.iterdir()}


def _rank(archive, folder, rank):
    arguments = f"{str(archive)!r}, {str(folder)!r}, 32, 0"
    return subprocess.Popen(
        [sys.executable, "-c", f"from monai_simclr.data import get_store; print(get_store({arguments}).images.sum())"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "3"},
    )


def test_every_rank_of_a_job_gets_the_store_that_rank_0_makes(tmp_path):
    archive = write_nih_phantoms(tmp_path / "nih", n_patients=20, size=64)
    before = get_store(archive, tmp_path / "s", 32, 0)
    for path in before.index["image"][:3]:  # so that the store that exists is not the one to wait for
        cv2.imwrite(path, 255 - cv2.imread(path, cv2.IMREAD_UNCHANGED))
    ranks = []
    for rank in (2, 1, 0):
        ranks.append(_rank(archive, tmp_path / "s", rank))
        time.sleep(0.5)
    ends = [(*process.communicate(timeout=60), process.returncode) for process in ranks]
    assert [code for *_, code in ends] == [0, 0, 0], ends
    assert {out for out, *_ in ends} == {f"{open_store(before.folder).images.sum()}\n"} != {f"{before.images.sum()}\n"}


def test_a_silent_rank_0_is_named_and_nothing_hangs(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(build, "_SILENCE", 0.3)
    with pytest.raises(ChildProcessError, match=r"the store .*s is not complete, and rank 0 has written nothing for"):
        build_store(open_index(archive), tmp_path / "s", 32, 0, 0.2)


def _serve(monkeypatch, deed):
    """Let decoding processes do something bad at the image PHANTOM-00000002_000.png."""
    code = f"""
import os, signal, sys
from monai_simclr.data import decoding
from monai_simclr.runtime import spread
real = decoding.decode
def decode(path, *settings):
    if path.endswith('PHANTOM-00000002_000.png'):
        {deed}
    return real(path, *settings)
decoding.decode = decode
spread.serve()
"""
    monkeypatch.setattr(spread, "_SERVE", f"exec({code!r})")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
def test_a_file_that_crashes_the_decoder_is_rejected_and_the_others_are_stored(archive, tmp_path, monkeypatch, name):
    _serve(monkeypatch, f"os.kill(os.getpid(), signal.{name})")
    store = build_store(open_index(archive), tmp_path / "s", 32, 2, 0.2)
    reasons = dict(zip(store.rejected["image"].map(os.path.basename), store.rejected["reason"], strict=True))
    assert reasons["PHANTOM-00000002_000.png"] == f"ended the decoder by {name}"
    assert len(reasons) == 3
    assert len(store.images) == len(open_index(archive)) - 3


def test_a_file_that_takes_too_long_is_rejected(archive, tmp_path, monkeypatch):
    _serve(monkeypatch, "[None for _ in iter(int, 1)]")
    monkeypatch.setattr(build, "TIME_LIMIT", 0.5)
    store = build_store(open_index(archive), tmp_path / "s", 32, 2, 0.2)
    assert "took longer than 0 s" in store.rejected["reason"].tolist()


def test_a_process_that_is_killed_twice_at_one_image_is_a_lack_of_memory_that_names_the_image(
    archive, tmp_path, monkeypatch
):
    _serve(monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(
        ChildProcessError, match=r"ended twice at .*PHANTOM-00000002_000\.png \(SIGKILL\); is there enough mem"
    ):
        build_store(open_index(archive), tmp_path / "s", 32, 2, 0.2)


def test_a_process_that_is_killed_once_costs_nothing(archive, whole, tmp_path, monkeypatch):
    mark = tmp_path / "once"
    _serve(monkeypatch, f"os.path.exists({str(mark)!r}) or (open({str(mark)!r}, 'w'), os.kill(os.getpid(), 9))")
    build_store(open_index(archive), tmp_path / "s", 32, 2, 0.2)
    assert mark.exists()
    assert _files(tmp_path / "s") == whole


def test_what_a_library_prints_does_not_disturb_the_records(archive, whole, tmp_path, monkeypatch):
    _serve(monkeypatch, "os.write(1, b'warning: odd header'); print('odd')")
    build_store(open_index(archive), tmp_path / "s", 32, 2, 0.2)
    assert _files(tmp_path / "s") == whole


def test_an_error_of_ours_in_a_process_comes_with_its_traceback(archive, tmp_path, monkeypatch):
    _serve(monkeypatch, "raise KeyError('a bug')")
    with pytest.raises(RuntimeError, match="KeyError: 'a bug'"):
        build_store(open_index(archive), tmp_path / "s", 32, 2, 0.2)


def test_a_process_that_cannot_begin_says_why(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(spread, "_SERVE", "raise ImportError('no module named x')")
    with pytest.raises(ChildProcessError, match=r"exit status 1: ImportError: no module named x"):
        build_store(open_index(archive), tmp_path / "s", 32, 2, 0.2)


def test_a_script_without_a_main_guard_can_build_with_processes(archive, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "print('imported')\nfrom monai_simclr.data import build_store, open_index\n"
        f"build_store(open_index({str(archive)!r}), {str(tmp_path / 's')!r}, 32, 2, 0.2)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("imported") == 1
    assert len(open_store(tmp_path / "s").rejected) == 2
