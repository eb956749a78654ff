"""One process in one folder; the lock ends with its process, however that ends."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import threading
from pathlib import Path

import pytest

import monai_simclr
from monai_simclr.runtime.locks import lock_folder, locked, try_lock, unlock_folder


def _hold_in_a_child(folder: Path) -> int:
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        lock_folder(folder)
        os.write(done, b"x")
        signal.pause()
    os.read(ready, 1)
    return child


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    child = _hold_in_a_child(tmp_path)
    with pytest.raises(FileExistsError, match=rf"process {child} on .* is working in .*; wait until it has ended"):
        lock_folder(tmp_path)
    _kill(child)


def test_a_killed_process_leaves_no_stale_lock(tmp_path: Path) -> None:
    _kill(_hold_in_a_child(tmp_path))
    lock_folder(tmp_path)
    unlock_folder(tmp_path)


def test_a_process_may_wait_until_the_other_one_has_ended(tmp_path: Path) -> None:
    child = _hold_in_a_child(tmp_path)
    threading.Timer(0.3, _kill, (child,)).start()
    lock_folder(tmp_path, wait=-1)
    unlock_folder(tmp_path)


def test_a_process_may_go_on_holding_what_it_holds(tmp_path: Path) -> None:
    lock_folder(tmp_path)
    lock_folder(tmp_path / "." / "")
    unlock_folder(tmp_path)
    _kill(_hold_in_a_child(tmp_path))


def test_a_lock_on_a_file_is_refused_by_name_and_free_when_the_block_ends(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock", "the store"),
        pytest.raises(
            FileExistsError,
            match=rf"^process {os.getpid()} on .* is at work on the store; wait for it, or stop it and run this again$",
        ),
        locked(tmp_path / "lock", "the store"),
    ):
        pass
    with locked(tmp_path / "lock", "the store"):
        pass


def test_a_lock_whose_file_its_owner_removed_is_not_mistaken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, "it"):
        path.unlink()  # as the store does when it is whole
        with locked(path, "it"), pytest.raises(FileExistsError), locked(path, "it"):
            pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_warning_and_nothing_is_locked(tmp_path, caplog, monkeypatch, number) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "lock", "it"), locked(tmp_path / "lock", "it"):
        assert f"this file system has no locks ({os.strerror(number)})" in caplog.text
    lock_folder(tmp_path)
    unlock_folder(tmp_path)
    with open(tmp_path / "file", "w") as file:
        assert try_lock(file.fileno())


def test_one_module_knows_locks() -> None:
    package = Path(monai_simclr.__file__).parent
    naming = [path.name for path in package.rglob("*.py") if re.search(r"\bimport (fcntl|FileLock)", path.read_text())]
    assert naming == ["locks.py"]
