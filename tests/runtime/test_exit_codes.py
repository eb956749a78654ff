"""An exit code for each kind of error, and one sentence that stands last."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from monai.bundle import ConfigParser
from torch.utils.data import DataLoader, Dataset

from monai_simclr.runtime.exit_codes import exit_code, format_error
from monai_simclr.runtime.signals import STOP_SIGNALS, Preempted, Stopped, stoppable


class _Dies(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return row


class _Refuses(_Dies):
    def __getitem__(self, row: int) -> int:
        raise ValueError("row 2: no pixels; decode it again")


def _error_of(dataset: Dataset) -> BaseException:
    try:
        list(DataLoader(dataset, num_workers=1))
    except Exception as error:
        return error
    raise AssertionError("no error came")


def test_a_killed_worker_is_a_lack_of_something_and_says_what_to_lower():
    error = _error_of(_Dies())
    assert exit_code(error) == 6
    assert format_error(error).startswith("RuntimeError: DataLoader worker (pid")
    assert format_error(error).endswith("killed, most often for lack of memory; lower num_workers or batch_size")
    assert "\n" not in format_error(error)


def test_what_a_worker_raises_is_its_own_sentence_without_its_traceback():
    error = _error_of(_Refuses())
    assert exit_code(error) == 3
    assert format_error(error) == "ValueError: row 2: no pixels; decode it again"


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ({"_target_": "monai_simclr.workflows.gone_since"}, "Cannot locate class or function path: 'monai_simclr.wo"),
        ({"_target_": "monai_simclr.losses.NTXentLoss", "beta": 1, "tau": 1}, "unexpected keyword argument 'beta'"),
    ],
)
def test_a_bundle_of_another_version_is_no_bug_and_says_how_to_get_a_new_one(part, word):
    with pytest.raises((ModuleNotFoundError, RuntimeError)) as caught:
        ConfigParser({"loss": part, "trainer": {"_target_": "builtins.dict", "loss": "@loss"}}).get_parsed_content(
            "trainer"
        )
    assert exit_code(caught.value) == 3
    assert word in format_error(caught.value)
    assert "make a new one with monai-simclr bundle, and move the old one's models there" in format_error(caught.value)


def test_a_wrong_keyword_inside_our_code_stays_a_bug_of_ours():
    def build(loss: int) -> object:
        return dict.fromkeys([loss], nothing=1)  # type: ignore[call-arg]

    with pytest.raises(RuntimeError, match="Failed to instantiate") as caught:
        ConfigParser({"a": {"_target_": build, "loss": 3}}).get_parsed_content("a")
    assert exit_code(caught.value) == 1
    assert format_error(caught.value).endswith("please report it with the traceback")


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 6, "lower batch_size"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]"), 6, "another rank ended"),
        (OSError(28, "No space left on device"), 6, "No space left"),
        (FileExistsError("output is taken"), 4, "output is taken"),
        (FloatingPointError("the loss is nan"), 5, "the loss is nan"),
        (Preempted("stopped by SIGTERM, saved in output"), 75, "stopped by SIGTERM, saved in output"),
        (KeyboardInterrupt("stopped by Ctrl-C, saved in output"), 130, "stopped by Ctrl-C, saved in output"),
        (RuntimeError("shapes cannot be multiplied"), 1, "this is a bug of ours, please report it"),
    ],
)
def test_every_kind_of_error_has_its_code(error: BaseException, code: int, sentence: str):
    assert exit_code(error) == code
    assert sentence in format_error(error)
    wrapped = RuntimeError("Failed to evaluate ConfigExpression")
    wrapped.__cause__ = error
    assert exit_code(wrapped) == code


def test_ctrl_c_ends_a_command_with_130_and_a_sentence(tmp_path):
    command = [sys.executable, "-m", "monai_simclr", "phantoms", str(tmp_path / "phantoms"), "--patients", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "phantoms").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, last = process.communicate(timeout=60)
    assert process.returncode == 130
    assert last == "stopped by Ctrl-C; run the same command again\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_a_cluster_sends_ends_any_command_with_75_and_a_sentence(tmp_path, number):
    command = [sys.executable, "-m", "monai_simclr", "phantoms", str(tmp_path / "phantoms"), "--patients", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "phantoms").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, last = process.communicate(timeout=60)
    assert process.returncode == 75
    assert last.splitlines()[-1] == f"stopped by {signal.Signals(number).name}; run the same command again"
    assert "Error" not in last


def test_a_stop_passes_what_makes_a_reason_of_one_files_error_and_the_handlers_are_put_back():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]

    def ask_while_errors_are_caught() -> None:
        with stoppable("rows are kept"), contextlib.suppress(Exception):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(1)

    with pytest.raises(Stopped, match="stopped by SIGUSR1; rows are kept, run the same command again"):
        ask_while_errors_are_caught()
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    assert exit_code(Stopped("stopped")) == 75


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
