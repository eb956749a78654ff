"""Signals end a command at once, with its exit code and one line, whatever code is running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monai_simclr.runtime.signals import STOP_SIGNALS, Stopped, stoppable


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_ends_any_command_with_its_code_and_one_line(tmp_path: Path, number: int, code: int) -> None:
    command = [sys.executable, "-m", "monai_simclr", "phantoms", str(tmp_path / "phantoms"), "--patients", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "phantoms").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    assert process.returncode == code
    assert errors.splitlines()[-1] == f"stopped by {name}; run the same command again"
    assert "Error" not in errors
    assert number != signal.SIGINT or len(errors.splitlines()) == 1


def test_a_stop_passes_code_that_catches_errors_and_the_handlers_are_restored():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]

    def ask_while_errors_are_caught() -> None:
        with stoppable("rows are kept"), contextlib.suppress(Exception):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(1)

    with pytest.raises(Stopped, match="stopped by SIGUSR1; rows are kept, run the same command again"):
        ask_while_errors_are_caught()
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_forked_child_leaves_the_signals_to_its_parent():
    with stoppable():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_stop_that_c_code_swallows_is_asked_for_again():
    def swallowed() -> None:
        with stoppable():
            with contextlib.suppress(BaseException):  # as a C extension clears what is raised while it imports
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)

    started = time.monotonic()
    with pytest.raises(Stopped, match="stopped by SIGTERM; run the same command again"):
        swallowed()
    assert time.monotonic() - started < 15
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
