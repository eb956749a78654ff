"""How a bundle command ends on several ranks, whose hook for errors torch wraps in its own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from monai_simclr.runtime.signals import STOP_SIGNALS, Preempted
from monai_simclr.workflows import run


def test_a_ranks_last_line_reaches_stderr_before_the_process_ends(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ended: list[object] = []
    monkeypatch.setattr(sys, "excepthook", run._exit_with_message)
    monkeypatch.setattr(run, "world_size", lambda: 2)
    monkeypatch.setattr(run, "rank", lambda: 1)
    monkeypatch.setattr(run, "record_failure", lambda error: ended.append(signal.getsignal(signal.SIGTERM)))
    monkeypatch.setattr(os, "_exit", lambda code: ended.append((code, capfd.readouterr().err)) or sys.exit(code))
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGINT)}
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'ranks'}", rank=0, world_size=1)
    try:
        with pytest.raises(SystemExit):
            sys.excepthook(Preempted, Preempted("stopped by SIGTERM, saved"), None)
    finally:
        dist.destroy_process_group()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended == [signal.SIG_IGN, (75, "rank 1: stopped by SIGTERM, saved\n")]
