"""The benchmark for GPUs, whole, in its smallest form on the CPU; and that a part which hangs or dies ends alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from monai_simclr.networks import encoder_header, load_encoder

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = """
import os, pathlib, signal, sys, time, gpu

assert gpu.boxed(lambda: time.sleep(60) or True, 0.2) == "cut"
assert gpu.boxed(os.abort, 30) == gpu.boxed(lambda: 1 / 0, 30) == "failed"
assert gpu.boxed(lambda: True, 30) == "done"

out, pretrain = pathlib.Path(sys.argv[1]), gpu.pretrain
stop = gpu.At(gpu.Events.ITERATION_COMPLETED(once=4), lambda _: os.kill(os.getpid(), signal.SIGTERM))
gpu.pretrain = lambda *given: pretrain(*given[:-1], [*given[-1], stop] if given[2] == out else given[-1])
assert gpu.main(out, None, ["pretraining"], minutes=30, tiny=True) == 1
assert list((out / "checkpoints").iterdir()) and not (out / "encoder.safetensors").exists()

gpu.pretrain = pretrain
sys.exit(gpu.main(out, None, list(gpu.PARTS), minutes=30, tiny=True))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_gpu_benchmark_runs_whole_on_a_cpu(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run the same command to resume" in done.stderr
    rows = {}
    for part in ("views", "clahe", "nt_xent", "training", "checks", "pretraining"):
        result = json.loads((tmp_path / f"gpu_{part}.json").read_text())
        assert result["whole"]
        rows |= {(part, row["what"]): row for row in result["results"]}
    peers = [what for what, row in rows.items() if "left out" in row and "not installed" not in row["left out"]]
    assert peers == [("checks", "float16")]
    for what, row in rows.items():
        if what[0] == "checks" and "at most" in row:  # the others are speeds
            assert row["measured"] <= row["at most"], what
    assert rows["views", "views of the device against OpenCV's"]["measured"] < 0.1
    load_encoder(tmp_path / "encoder.safetensors")
    assert json.loads(encoder_header(tmp_path / "encoder.safetensors")["patients_seen"])
