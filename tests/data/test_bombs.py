"""Small files that promise gigabytes: no entry point of the package spends more than two seconds or a GiB on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS, MIB = 2.0, 1024


def test_bombs_cost_every_entry_point_less_than_two_seconds_and_a_gigabyte(tmp_path):
    command = [sys.executable, "-W", "ignore", str(HERE / "bombs.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    costs = json.loads(done.stdout)
    assert len(costs) == 10
    for bomb, calls in costs.items():
        assert len(calls) == 6
        for call, took in calls.items():
            assert took["seconds"] < SECONDS, f"{bomb} by {call}: {took}"
            assert took["mib"] < MIB, f"{bomb} by {call}: {took}"
    reasons = {bomb: calls["store"]["outcome"] for bomb, calls in costs.items()}
    assert all(reason.startswith("refused: bomb.dcm: ") for reason in reasons.values()), reasons
    assert "inflates to more than" in reasons["private_value"]
    assert "inflates to more than" in reasons["pixels"]
    assert "claims 943718400 bytes" in reasons["description"]
    assert "takes more than 50000 reads" in reasons["many_items"]
    assert "over 16 deep" in reasons["deep_known_sequences"]
