"""An exit code for each kind of error, and one last line."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from monai.bundle import ConfigParser
from torch.utils.data import DataLoader, Dataset

from monai_simclr.runtime.exit_codes import exit_code, format_error
from monai_simclr.runtime.signals import Preempted, Stopped


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


def test_a_killed_worker_is_a_lack_of_resources_with_a_remedy():
    error = _error_of(_Dies())
    assert exit_code(error) == 6
    assert format_error(error).startswith("RuntimeError: DataLoader worker (pid")
    assert format_error(error).endswith("killed, most often for lack of memory; lower num_workers or batch_size")
    assert "\n" not in format_error(error)


def test_an_error_of_a_worker_is_reported_without_its_traceback():
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
def test_a_bundle_of_another_version_is_not_a_bug_and_has_a_remedy(part, word):
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
    ("error", "code", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 6, "lower batch_size"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]"), 6, "another rank ended"),
        (OSError(28, "No space left on device"), 6, "No space left"),
        (FileExistsError("output is taken"), 4, "output is taken"),
        (FloatingPointError("the loss is nan"), 5, "the loss is nan"),
        (Preempted("stopped by SIGTERM, saved in output"), 75, "stopped by SIGTERM, saved in output"),
        (Stopped("stopped by SIGUSR1; rows are kept"), 75, "stopped by SIGUSR1; rows are kept"),
        (KeyboardInterrupt("stopped by Ctrl-C, saved in output"), 130, "stopped by Ctrl-C, saved in output"),
        (RuntimeError("shapes cannot be multiplied"), 1, "this is a bug of ours, please report it"),
    ],
)
def test_every_kind_of_error_has_its_code(error: BaseException, code: int, message: str):
    assert exit_code(error) == code
    assert message in format_error(error)
    wrapped = RuntimeError("Failed to evaluate ConfigExpression")
    wrapped.__cause__ = error
    assert exit_code(wrapped) == code
