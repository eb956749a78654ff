"""Checkpoint files: a kill, a full disk or a flipped bit never takes the last good one."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest

from monai_simclr.runtime.checkpoints import newest_checkpoint, save_checkpoint

KILLS = 200


def _content(number: int) -> bytes:
    return random.Random(number).randbytes(300_000)


def _save_for_ever(folder: Path, first: int) -> None:
    number = first
    while True:
        save_checkpoint(folder, number, _content(number), n_saved=2)
        number += 1


def _kill_and_look(folder: Path) -> None:
    save_checkpoint(folder, 0, _content(0), n_saved=2)
    last, inside = 0, 0
    for number in range(KILLS):
        child = os.fork()
        if child == 0:
            _save_for_ever(folder, last + 1)
        time.sleep(random.Random(number).uniform(0.001, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = newest_checkpoint(folder)
        assert found is not None
        iteration = int(found[0].name[:10])
        assert found[1] == _content(iteration)
        assert iteration >= last, "an older checkpoint came back"
        inside += bool(list(folder.glob(".*.part")))
        last = iteration
    assert last > 10, "nothing was saved between the kills"
    assert inside > 10, "no kill hit a save"


def test_two_hundred_kills_inside_a_save_lose_nothing(tmp_path: Path) -> None:
    """In a process without torch, which forks in a millisecond."""
    process = multiprocessing.get_context("spawn").Process(target=_kill_and_look, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0, "its traceback is on stderr"


def test_leftovers_of_kills_are_removed_by_the_next_save(tmp_path: Path) -> None:
    (tmp_path / ".0000000001-aaaaaaaaaaaaaaaa.pt.x1.part").write_bytes(b"half")
    save_checkpoint(tmp_path, 1, b"whole")
    assert [path.name[:10] for path in tmp_path.iterdir()] == ["0000000001"]


def test_the_newest_checkpoints_are_kept_and_older_ones_deleted(tmp_path: Path) -> None:
    for number in (5, 10, 15, 20):
        save_checkpoint(tmp_path, number, _content(number), n_saved=3)
    assert sorted(int(path.name[:10]) for path in tmp_path.iterdir()) == [10, 15, 20]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    save_checkpoint(tmp_path, 1, _content(1))
    path = save_checkpoint(tmp_path, 2, _content(2))
    bytes_ = bytearray(path.read_bytes())
    bytes_[1000] ^= 1
    path.write_bytes({"truncated": _content(2)[:-1], "flipped": bytes(bytes_), "emptied": b""}[damage])
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[1] == _content(1)
    assert f"{path} is truncated or was altered" in caplog.text


def test_when_no_checkpoint_is_whole_the_run_does_not_silently_start_again(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, b"one").write_bytes(b"two")
    with pytest.raises(ValueError, match=f"none of the 1 checkpoints in {tmp_path} is whole; restore one"):
        newest_checkpoint(tmp_path)


def test_an_empty_or_missing_folder_is_a_new_run(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.pt").write_bytes(b"mine")
    for number in range(4):
        save_checkpoint(tmp_path, number, b"x", n_saved=2)
    assert (tmp_path / "notes.pt").read_bytes() == b"mine"


def test_a_full_disk_is_reported_and_the_last_checkpoint_kept(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, b"good")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"no space for a checkpoint in .*: 0\.3 MB are needed") as refusal:
            save_checkpoint(tmp_path, 2, _content(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"the last good checkpoint is {path.name}; make room and run the same command again" in str(refusal.value)
    assert refusal.value.errno == errno.EFBIG
    assert [found.name for found in tmp_path.iterdir()] == [path.name], "half a file stayed"
    assert newest_checkpoint(tmp_path) == (path, b"good")


def test_one_checkpoint_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n_saved must be at least 2, got 1"):
        save_checkpoint(tmp_path, 1, b"", n_saved=1)
