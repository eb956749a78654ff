"""Time and memory of NT-Xent, forward and backward: ours, lightly's, plain cross-entropy, and MONAI's.

Run: python benchmarks/nt_xent.py [RESULT.json]        (two to three minutes; makes .venv-bench the first time)

Times are of one thread, medians of interleaved rounds in one process, each timed pass after one untimed. Memory is the
highest resident memory above what there was before, each in a process of its own. The last part times ours on one
thread and on two.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from peers import peer, run_beside_peers

if __name__ == "__main__":
    run_beside_peers("lightly")

import torch
from monai.losses import ContrastiveLoss
from record import RESULTS, peak_megabytes, save
from torch import Tensor
from torch.nn import functional

from monai_simclr.losses import nt_xent

WIDTH, TEMPERATURE = 128, 0.1
# What the issue asks for: (images, whom, how many times slower or larger than ours it must be at least).
TARGETS = {
    "time": [(256, "plain", 1.0), (256, "of_monai", 400.0), (1024, "of_lightly", 2.8), (4096, "of_lightly", 5.0)],
    "memory": [(4096, "of_lightly", 20.0), (8192, "of_lightly", 50.0)],
}


def plain(z: Tensor) -> Tensor:
    """The usual six lines: normalize, multiply, hide the diagonal, cross-entropy."""
    z = functional.normalize(z, dim=1)
    diagonal = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / TEMPERATURE).masked_fill(diagonal, float("-inf"))
    return functional.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z) // 2))


def ours(z: Tensor) -> Tensor:
    """Ours, every image of another patient."""
    return nt_xent(z, torch.arange(len(z) // 2, device=z.device).repeat(2), TEMPERATURE)


def ours_same_patient(z: Tensor) -> Tensor:
    """Ours, two images a patient, so that pairs are left out."""
    return nt_xent(z, (torch.arange(len(z) // 2) // 2).repeat(2), TEMPERATURE)


def of_lightly(z: Tensor) -> Tensor:
    """lightly's, on one process."""
    half = len(z) // 2
    return peer("lightly.loss").NTXentLoss(temperature=TEMPERATURE)(z[:half], z[half:])


def of_monai(z: Tensor) -> Tensor:
    """MONAI's: a (2N, 2N, D) tensor of cosines."""
    half = len(z) // 2
    return ContrastiveLoss(temperature=TEMPERATURE)(z[:half], z[half:])


Loss = Callable[[Tensor], Tensor]
LOSSES: dict[str, Loss] = {f.__name__: f for f in (ours, ours_same_patient, plain, of_lightly, of_monai)}


def projections(images: int) -> Tensor:
    """The same random numbers for everybody."""
    return torch.randn(2 * images, WIDTH, generator=torch.Generator().manual_seed(0)).requires_grad_()


def milliseconds(loss: Loss, images: int, clock: Callable[[], float] = time.process_time) -> tuple[float, float]:
    """Time of one forward and backward pass, and the value."""
    z = projections(images)
    start = clock()
    value = loss(z)
    value.backward()
    return 1000 * (clock() - start), value.item()


def compare(images: int, names: list[str], rounds: int) -> dict:
    """Medians over interleaved rounds, in each one pass to warm up and one timed, and ratios to ours."""
    times: dict[str, list[float]] = {name: [] for name in names}
    values = {}
    for _ in range(rounds):
        for name in names:
            milliseconds(LOSSES[name], images)  # the one before has left the caches full of its own
            spent, values[name] = milliseconds(LOSSES[name], images)
            times[name].append(spent)
    median = {name: statistics.median(spent) for name, spent in times.items()}
    ratio = {name: spent / median["ours"] for name, spent in median.items()}
    best = {name: min(spent) for name, spent in times.items()}
    return {
        "images": images,
        "rounds": rounds,
        "cpu_ms_median": median,
        "cpu_ms_best": best,
        "times_ours": ratio,
        "value": values,
    }


def measure_memory(name: str, images: int) -> None:
    """Print the peak memory and the time of one pass, in a process that does nothing else."""
    torch.set_num_threads(1)
    milliseconds(LOSSES[name], 16)  # so that libraries have loaded what they load once
    z = projections(images)
    start = time.process_time()
    peak = peak_megabytes(lambda: LOSSES[name](z).backward())
    print(json.dumps({"megabytes": peak, "cpu_ms": 1000 * (time.process_time() - start)}))


def memory(images: int, names: list[str]) -> dict:
    """Peak memory of each, and ratios to ours."""
    found = {}
    for name in names:
        command = [sys.executable, "-W", "ignore", __file__, "--memory", name, str(images)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    ratio = {name: entry["megabytes"] / found["ours"]["megabytes"] for name, entry in found.items()}
    return {"images": images, "one_pass": found, "times_ours": ratio}


def threads(images: int, rounds: int) -> dict:
    """Wall time of ours on one and two threads, in turn."""
    times: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds + 1):
        for count, spent in times.items():
            torch.set_num_threads(count)
            milliseconds(ours, 64)  # so that the threads are there
            wall, _ = milliseconds(ours, images, time.perf_counter)
            if number:
                spent.append(wall)
    torch.set_num_threads(1)
    return {"images": images, "wall_ms_median": {str(count): statistics.median(t) for count, t in times.items()}}


def verdicts(times: list[dict], memories: list[dict]) -> list[dict]:
    """The targets of the issue beside what was measured."""
    found = []
    for kind, entries in (("time", times), ("memory", memories)):
        for images, name, wanted in TARGETS[kind]:
            ratio = next(e["times_ours"][name] for e in entries if e["images"] == images and name in e["times_ours"])
            found.append({"what": kind, "images": images, "peer": name, "at_least": wanted, "measured": ratio})
    return found


def main(path: Path) -> None:
    """Compare, print, and store with what it ran on."""
    torch.set_num_threads(1)
    four = ["ours", "ours_same_patient", "plain", "of_lightly"]
    times = [compare(256, four, 41), compare(256, ["ours", "of_monai"], 3), compare(1024, four, 15)]
    times.append(compare(4096, four, 3))
    memories = [memory(images, ["ours", "plain", "of_lightly"]) for images in (1024, 4096, 8192)]
    found = verdicts(times, memories)
    for entry in [*times, *memories]:
        for name, ratio in entry["times_ours"].items():
            spent = entry.get("cpu_ms_median", {}).get(name) or entry["one_pass"][name]["megabytes"]
            print(
                f"N={entry['images']:5d}  {name:18s} {spent:9.2f} {'ms' if 'rounds' in entry else 'MB'} {ratio:9.2f} x"
            )
    for entry in found:
        ok = "reached" if entry["measured"] >= entry["at_least"] else "MISSED"
        print(f"{ok}: {entry}")
    save(
        path,
        ("torch", "monai", "lightly"),
        settings={"width": WIDTH, "temperature": TEMPERATURE, "dtype": "float32", "threads": 1},
        time=times,
        memory=memories,
        threads=[threads(256, 41), threads(1024, 15), threads(4096, 5)],
        targets=found,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        measure_memory(sys.argv[2], int(sys.argv[3]))
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "nt_xent.json")
