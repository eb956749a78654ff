"""Ranks of one job: each builds its share, rank 0 joins them, nobody waits for ever; and processes that die."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from monai_simclr.data import StoreOptions, build_store, open_index, open_store
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.data.store import pool
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


def _rank(archive, folder, rank, world, *more):
    command = [sys.executable, "-m", "monai_simclr", "store", str(archive), "-o", str(folder), "--size", "32"]
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world)}
    return subprocess.Popen(
        [*command, "--workers", "1", "--max-rejected", "0.2", *more],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ends(*processes):
    said = [process.communicate(timeout=60) for process in processes]
    return [(process.returncode, out, err) for process, (out, err) in zip(processes, said, strict=True)]


def test_the_ranks_of_a_job_make_the_bytes_that_one_process_makes(archive, whole, tmp_path):
    ends = _ends(*(_rank(archive, tmp_path / "s", rank, 3) for rank in (2, 0, 1)))
    assert [code for code, _, _ in ends] == [0, 0, 0], ends
    assert _files(tmp_path / "s") == whole
    assert "made " in ends[1][1]
    assert "rank 2 has decoded its share of " in ends[0][1]


def test_ranks_may_come_one_after_the_other_when_rank_0_comes_last(archive, whole, tmp_path):
    for rank in (1, 0):
        assert _ends(_rank(archive, tmp_path / "s", rank, 2))[0][0] == 0
    assert _files(tmp_path / "s") == whole


def test_a_missing_rank_is_named_and_nothing_hangs(archive, whole, tmp_path):
    started = time.monotonic()
    [(code, _, said)] = _ends(_rank(archive, tmp_path / "s", 0, 2, "--patience", "1"))
    assert code == 6
    assert time.monotonic() - started < 20
    last = said.strip().splitlines()[-1]
    assert "shard 1 of 2 is missing: rank 1 of WORLD_SIZE=2 has written nothing in" in last
    assert "run the same command again with all ranks, what is decoded is kept" in last
    assert not (tmp_path / "s" / "provenance.json").exists()
    ends = _ends(*(_rank(archive, tmp_path / "s", rank, 2) for rank in (0, 1)))
    assert [code for code, _, _ in ends] == [0, 0]
    assert "images are decoded already" in ends[0][2]
    assert _files(tmp_path / "s") == whole


def test_python_callers_on_every_rank_get_the_store(archive, whole, tmp_path):
    code = (
        "from monai_simclr.data import store_of; "
        f"print(len(store_of({str(archive)!r}, {str(tmp_path / 's')!r}, 32, 0).images))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]
    ends = _ends(*processes)
    assert ends[0][:2] == ends[1][:2], ends


def test_another_number_of_ranks_is_refused_by_name_until_a_rebuild(archive, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ChildProcessError, match=r"rank 0 of WORLD_SIZE=2 has written nothing for 0 s"):
        build_store(open_index(archive), tmp_path / "s", 32, 0, 0.2, StoreOptions(patience=0.1))
    monkeypatch.undo()
    with pytest.raises(FileExistsError, match=r"was begun by 2 processes \(WORLD_SIZE\), not by 1; give anoth"):
        build_store(open_index(archive), tmp_path / "s", 32, 0, 0.2)
    build_store(open_index(archive), tmp_path / "s", 32, 0, 0.2, StoreOptions(rebuild=True))
    assert _files(tmp_path / "s") == whole


def test_more_ranks_than_images_are_refused(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1000")
    with pytest.raises(ValueError, match="images are fewer than the 1000 ranks"):
        build_store(open_index(archive), tmp_path / "s", 32, 0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_torchrun_builds_a_store(archive, whole, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "monai_simclr", "store"]
    done = subprocess.run(
        [*command, str(archive), "-o", str(tmp_path / "s"), "--size", "32", "--max-rejected", "0.2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert _files(tmp_path / "s") == whole


def _serve(monkeypatch, deed):
    """Let decoding processes do something bad at the image 00000002_000.png."""
    code = f"""
import os, signal, sys
from monai_simclr.data import decoding
real = decoding.decode
def decode(path, **settings):
    if path.endswith('00000002_000.png'):
        {deed}
    return real(path, **settings)
decoding.decode = decode
decoding.serve()
"""
    monkeypatch.setattr(pool, "_SERVE", f"exec({code!r})")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
def test_a_file_that_crashes_the_decoder_is_rejected_and_the_others_are_stored(archive, tmp_path, monkeypatch, name):
    _serve(monkeypatch, f"os.kill(os.getpid(), signal.{name})")
    store = build_store(open_index(archive), tmp_path / "s", 32, 2, 0.2)
    reasons = dict(zip(store.rejected["image"].map(os.path.basename), store.rejected["reason"], strict=True))
    assert reasons["00000002_000.png"] == f"ended the decoder by {name}"
    assert len(reasons) == 3
    assert len(store.images) == len(open_index(archive)) - 3


def test_a_file_that_takes_too_long_is_rejected(archive, tmp_path, monkeypatch):
    _serve(monkeypatch, "[None for _ in iter(int, 1)]")
    monkeypatch.setattr(pool, "TIME_LIMIT", 0.5)
    store = build_store(open_index(archive), tmp_path / "s", 32, 2, 0.2)
    assert "took longer than 0 s" in store.rejected["reason"].tolist()


def test_a_process_that_is_killed_twice_at_one_image_is_a_lack_of_memory_that_names_the_image(
    archive, tmp_path, monkeypatch
):
    _serve(monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ChildProcessError, match=r"ended twice at .*00000002_000\.png \(SIGKILL\); is there enough mem"):
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
    monkeypatch.setattr(pool, "_SERVE", "raise ImportError('no module named x')")
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
