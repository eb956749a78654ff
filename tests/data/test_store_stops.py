"""Stops of every kind: kills at random moments and inside the last step, a full disk, signals, a second process."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from bundle_command import STORE, Forked

from monai_simclr.data import StoreOptions, build_store, decoding, open_index, open_store, write_index
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.data.store.unfinished import Journal
from monai_simclr.runtime.files import file_sha256

COMMAND = [sys.executable, "-m", "monai_simclr", "store"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = write_nih_phantoms(tmp_path_factory.mktemp("stops") / "nih", n_patients=60, size=64, bad_files=2)
    write_index(open_index(folder), folder.parent / "index.csv")
    return folder


@pytest.fixture(scope="module")
def whole(archive):
    build_store(open_index(archive), archive.parent / "whole", 32, 0)
    return _files(archive.parent / "whole")


def _files(folder):
    return {path.name: file_sha256(path) for path in folder.iterdir()}


def _command(archive, folder, workers=2):
    return [*COMMAND, str(archive), "-o", str(folder), "--size", "32", "--workers", str(workers)]


def _start(archive, folder, workers=2):
    printed = folder.with_name(f"printed {len(list(folder.parent.glob('printed *')))}")
    return Forked(folder.parent, printed, _command(archive, folder, workers), imports=STORE)


def _journal(folder):
    return folder / "building" / "journal"


def _await_lines(folder, lines, process):
    """Wait until the journal has so many lines, and leave the process stopped.

    It runs in steps of 5 ms and is looked at while it is stopped, so that it is never done before a busy machine looks.
    """
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        process.send_signal(signal.SIGCONT)
        time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        if _journal(folder).is_file() and _journal(folder).read_bytes().count(b"\n") >= lines:
            return


@pytest.mark.parametrize("workers", [0, 2])
def test_a_build_that_is_killed_three_times_ends_with_the_bytes_of_an_uninterrupted_one(
    archive, whole, tmp_path, workers
):
    draw = random.Random(workers)
    for kill in range(3):
        process = _start(archive, tmp_path / "s", workers)
        _await_lines(tmp_path / "s", (kill + 1) * 30 + draw.randrange(15), process)
        process.send_signal(signal.SIGKILL)  # which leaves its decoding processes to themselves
        process.communicate()
        assert not (tmp_path / "s" / "provenance.json").exists()
    process = _start(archive, tmp_path / "s", workers)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert "images are decoded already" in said
    assert _files(tmp_path / "s") == whole


def test_a_kill_loses_no_record_that_was_written(archive, tmp_path):
    process = _start(archive, tmp_path / "s")
    _await_lines(tmp_path / "s", 40, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = sum(not record.reason for record in Journal.read(_journal(tmp_path / "s")))
    assert kept >= 38
    _, said = (process := _start(archive, tmp_path / "s")).communicate()
    assert f"{kept:,} of {len(open_index(archive))} images are decoded already" in said, said


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage"])
def test_a_record_that_is_not_whole_does_not_count(archive, whole, tmp_path, monkeypatch, damage):
    _interrupt(archive, tmp_path / "s", monkeypatch, after=50)
    text = _journal(tmp_path / "s").read_bytes()
    at = text.index(b"\n", len(text) // 2) + 20
    damaged = {
        "cut": text[:at],
        "flipped": text[:at] + bytes([text[at] ^ 4]) + text[at + 1 :],
        "garbage": text + b'deadbeef [1, 2, 3, "',
    }[damage]
    _journal(tmp_path / "s").write_bytes(damaged)
    counted = len(list(Journal.read(_journal(tmp_path / "s"))))
    assert counted == (50 if damage == "garbage" else damaged[:at].count(b"\n"))
    build_store(open_index(archive), tmp_path / "s", 32, 0)
    assert _files(tmp_path / "s") == whole


def test_pixels_that_did_not_reach_the_disk_are_decoded_again(archive, whole, tmp_path, monkeypatch):
    _interrupt(archive, tmp_path / "s", monkeypatch, after=50)
    path = tmp_path / "s" / "building" / "pixels.npy"
    with open(path, "r+b") as file:
        file.seek(128 + 10 * 1024)
        file.write(bytes(5 * 1024))
    build_store(open_index(archive), tmp_path / "s", 32, 0)
    assert _files(tmp_path / "s") == whole


def test_a_source_that_changes_between_two_runs_is_named_and_read_again(tmp_path, monkeypatch, caplog):
    archive = write_nih_phantoms(tmp_path / "nih", n_patients=8, size=64)
    _interrupt(archive, tmp_path / "s", monkeypatch, after=5)
    first, other = open_index(archive)["image"][[0, 9]]
    with open(other, "rb") as source, open(first, "wb") as target:
        target.write(source.read())
    store = build_store(open_index(archive), tmp_path / "s", 32, 0)
    assert "1 files have changed since they were decoded, the first is PHANTOM-00000001_000.png" in caplog.text
    np.testing.assert_array_equal(store.images[0], store.images[9])


class _Stop(BaseException):
    pass


def _interrupt(archive, folder, monkeypatch, after):
    """Stop a build in this process when so many images are decoded."""

    def stop(done, total, rejected):
        if done >= after:
            raise _Stop

    with pytest.raises(_Stop):
        build_store(open_index(archive), folder, 32, 0, 0.05, StoreOptions(progress=stop))


@pytest.mark.parametrize("name", ["replace", "unlink", "fsync"])
def test_a_kill_at_any_step_of_the_end_leaves_a_store_that_the_same_call_finishes(
    archive, whole, tmp_path, monkeypatch, name
):
    index, step = open_index(archive), 0
    while True:
        folder, calls = tmp_path / f"{step}", iter(range(1000))
        with monkeypatch.context() as patch:
            real = getattr(os, name)

            def failing(*arguments, real=real, calls=calls, step=step, **keywords):
                if next(calls) == step:
                    raise _Stop
                return real(*arguments, **keywords)

            patch.setattr(os, name, failing)
            try:
                build_store(index, folder, 32, 0)
                stopped = False
            except _Stop:
                stopped = True
        if stopped and (folder / "provenance.json").exists():
            open_store(folder, verify=True)
        build_store(index, folder, 32, 0)
        assert _files(folder) == whole, f"stopped at call {step} of os.{name}"
        if not stopped:
            assert step > 2
            return
        step += 1


def test_the_old_store_serves_until_the_new_one_is_whole(archive, tmp_path, monkeypatch):
    build_store(open_index(archive), tmp_path / "s", 16, 0)

    def stop(done, total, rejected):
        raise _Stop

    with pytest.raises(_Stop):
        build_store(open_index(archive), tmp_path / "s", 32, 0, 0.05, StoreOptions(rebuild=True, progress=stop))
    assert open_store(tmp_path / "s", verify=True).images.shape[1] == 16


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "stopped by Ctrl-C; what is decoded is kept"),
        (signal.SIGTERM, 75, "stopped by SIGTERM; what is decoded is kept"),
        (signal.SIGUSR1, 75, "stopped by SIGUSR1; what is decoded is kept"),
    ],
)
def test_a_signal_ends_with_a_sentence_its_code_and_no_process_left(archive, whole, tmp_path, number, code, said):
    process = _start(archive, tmp_path / "s")
    _await_lines(tmp_path / "s", 20, process)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    started = time.monotonic()
    _, text = process.communicate()
    assert time.monotonic() - started < 5
    assert process.returncode == code, text
    assert said in text.strip().splitlines()[-1]
    assert "run the same command again" in text.strip().splitlines()[-1]
    assert "Traceback" not in text
    build_store(open_index(archive), tmp_path / "s", 32, 0)
    assert _files(tmp_path / "s") == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_ends_with_code_6_and_the_build_goes_on_when_there_is_room(archive, whole, tmp_path, workers):
    command = _command(archive, tmp_path / "s", workers)
    limit = (60 * 1024,) * 2
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    assert done.returncode == 6, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "no room for the store" in last
    assert "make room: what is decoded is kept, run the same command again" in last
    build_store(open_index(archive), tmp_path / "s", 32, 0)
    assert _files(tmp_path / "s") == whole


def test_a_disk_that_is_too_small_is_found_before_anything_is_decoded(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match=r"need 1\d\d,\d\d\d bytes, 1,000 bytes are free"):
        build_store(open_index(archive), tmp_path / "s", 32, 0)


def test_room_that_ends_while_pixels_are_written_is_said(archive, whole, tmp_path, monkeypatch):
    calls = iter(range(10_000))
    real = decoding.write_at

    def write(file, start, pixels):
        if next(calls) == 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, start, pixels)

    monkeypatch.setattr(decoding, "write_at", write)
    with pytest.raises(OSError, match=r"no room for the store .*No space left on device.*make room") as error:
        build_store(open_index(archive), tmp_path / "s", 32, 0)
    assert error.value.errno == errno.ENOSPC
    build_store(open_index(archive), tmp_path / "s", 32, 0)
    assert _files(tmp_path / "s") == whole


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_a_permission_error(archive, tmp_path, monkeypatch, number):
    def refuse(self, *arguments, **keywords):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(PermissionError, match=r"the store .* cannot be written"):
        build_store(open_index(archive), tmp_path / "s", 32, 0)


def test_a_second_process_is_refused_at_once_and_the_first_is_unharmed(archive, whole, tmp_path):
    first = _start(archive, tmp_path / "s", 0)
    _await_lines(tmp_path / "s", 3, first)
    started = time.monotonic()
    second = _start(archive, tmp_path / "s", 0)
    _, said = second.communicate()
    assert second.returncode == 4, said
    assert time.monotonic() - started < 20
    assert f"process {first.pid} on " in said.strip().splitlines()[-1]
    assert "is at work on" in said
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert first.returncode == 0
    assert _files(tmp_path / "s") == whole


def test_the_command_says_what_it_made(archive, tmp_path):
    done = subprocess.run(_command(archive, tmp_path / "s", 0), capture_output=True, text=True)
    text = done.stdout
    assert done.returncode == 0, done.stderr
    total = len(open_index(archive)) - 2
    assert f"made {tmp_path / 's'}: {total} images of 32 x 32 pixels" in text
    assert f"2 rejected (see {tmp_path / 's' / 'rejected.csv'})" in text
    assert json.loads((tmp_path / "s" / "provenance.json").read_text())["images"] == total


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_thousand_phantoms_killed_three_times_are_the_bytes_of_an_uninterrupted_build(phantoms, tmp_path):
    (process := _start(phantoms / "index.csv", tmp_path / "straight")).communicate()
    assert process.returncode == 0
    draw = random.Random(20)
    for kill in range(3):
        process = _start(phantoms / "index.csv", tmp_path / "s")
        _await_lines(tmp_path / "s", kill * 6000 + draw.randrange(1, 6000), process)
        process.send_signal(signal.SIGKILL)  # which leaves its decoding processes to themselves
        process.communicate()
        assert not (tmp_path / "s" / "provenance.json").exists()
    (process := _start(phantoms / "index.csv", tmp_path / "s")).communicate()
    assert process.returncode == 0
    assert _files(tmp_path / "s") == _files(tmp_path / "straight")
    assert len(open_store(tmp_path / "s", verify=True).images) == 20_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_pixels_of_the_archive(phantoms, tmp_path):
    peaks = {}
    for name in ("few", "index"):
        code = _MEASURE.format(index=str(phantoms / f"{name}.csv"), folder=str(tmp_path / name))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks[name] = [int(kilobytes) / 1024 for kilobytes in done.stdout.split()]
    print(f"MiB of the main process and of the largest decoding one, at 2,000 and 20,000 images: {peaks}")
    (few, few_worker), (many, many_worker) = peaks["few"], peaks["index"]
    assert many - few < 60, "1.2 GB more pixels, and the tables of 18,000 rows more"
    assert many_worker - few_worker < 20


_MEASURE = """
from pathlib import Path
from monai_simclr.data import StoreOptions, build_store, read_index

def peak(process):
    lines = Path(f"/proc/{{process}}/status").read_text().splitlines()
    return max((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), default=0)

workers = {{}}
def look(done, total, rejected):
    if done % 500 == 0 or done == total - 20:
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                workers[child] = peak(child)

build_store(read_index({index!r}), {folder!r}, 256, 2, options=StoreOptions(progress=look))
print(peak("self"), max(workers.values()))
"""
