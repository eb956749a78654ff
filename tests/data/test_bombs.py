"""Small files that promise gigabytes: no entry point of the package spends more than two seconds or a GiB on them."""

from __future__ import annotations

import json
from pathlib import Path

from forked_script import run_forked

HERE = Path(__file__).resolve().parent
SECONDS, MIB = 2.0, 1024


def test_bombs_cost_every_entry_point_less_than_two_seconds_and_a_gigabyte(tmp_path):
    done = run_forked(HERE / "bombs.py", tmp_path, str(tmp_path))
    assert done.returncode == 0, done.stderr
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
