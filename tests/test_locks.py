"""One process in one folder; the lock ends with its process, however that ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from monai_simclr.locks import lock_folder, unlock_folder


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


def test_a_process_may_go_on_holding_what_it_holds(tmp_path: Path) -> None:
    lock_folder(tmp_path)
    lock_folder(tmp_path / "." / "")
    unlock_folder(tmp_path)
    _kill(_hold_in_a_child(tmp_path))
