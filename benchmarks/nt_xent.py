"""Time of NT-Xent, forward and backward, on one thread: ours, plain cross-entropy over the whole matrix, and MONAI's.

Run: python benchmarks/nt_xent.py [RESULT.json]
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import monai
import torch
from monai.losses import ContrastiveLoss
from torch import Tensor
from torch.nn import functional

from monai_simclr.files import write_atomically
from monai_simclr.losses import nt_xent

WIDTH, TEMPERATURE = 128, 0.1


def plain(z: Tensor) -> Tensor:
    """The usual six lines: normalize, multiply, hide the diagonal, cross-entropy."""
    z = functional.normalize(z, dim=1)
    logits = (z @ z.T / TEMPERATURE).masked_fill(torch.eye(len(z), dtype=torch.bool), float("-inf"))
    return functional.cross_entropy(logits, torch.arange(len(z)).roll(len(z) // 2))


def ours(z: Tensor) -> Tensor:
    """Ours, every image of another patient."""
    return nt_xent(z, torch.arange(len(z) // 2).repeat(2), TEMPERATURE)


def ours_same_patient(z: Tensor) -> Tensor:
    """Ours, two images a patient, so that pairs are left out."""
    return nt_xent(z, (torch.arange(len(z) // 2) // 2).repeat(2), TEMPERATURE)


def of_monai(z: Tensor) -> Tensor:
    """MONAI's: a (2N, 2N, D) tensor of cosines."""
    half = len(z) // 2
    return ContrastiveLoss(temperature=TEMPERATURE)(z[:half], z[half:])


def milliseconds(loss: Callable[[Tensor], Tensor], images: int) -> tuple[float, float]:
    """CPU time of one forward and backward pass, and the value."""
    z = torch.randn(2 * images, WIDTH, generator=torch.Generator().manual_seed(0), requires_grad=True)
    start = time.process_time()
    value = loss(z)
    value.backward()
    return 1000 * (time.process_time() - start), value.item()


def compare(images: int, losses: list[Callable[[Tensor], Tensor]], rounds: int) -> dict:
    """Medians over interleaved rounds after one to warm up, and ratios to ours."""
    times: dict[str, list[float]] = {loss.__name__: [] for loss in losses}
    values = {}
    for number in range(rounds + 1):
        for loss in losses:
            spent, values[loss.__name__] = milliseconds(loss, images)
            if number:
                times[loss.__name__].append(spent)
    median = {name: statistics.median(spent) for name, spent in times.items()}
    ratio = {name: spent / median["ours"] for name, spent in median.items()}
    return {"images": images, "rounds": rounds, "cpu_ms_median": median, "times_ours": ratio, "value": values}


def main(path: Path) -> None:
    """Compare, print, and store with what it ran on."""
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    result = {
        "commit": commit,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__},
        "hardware": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "settings": {"width": WIDTH, "temperature": TEMPERATURE, "dtype": "float32"},
        "results": [
            compare(256, [ours, plain, ours_same_patient], rounds=41),
            compare(1024, [ours, plain, ours_same_patient], rounds=15),
            compare(256, [ours, of_monai], rounds=3),
        ],
    }
    for entry in result["results"]:
        for name, spent in entry["cpu_ms_median"].items():
            print(f"N={entry['images']:5d}  {name:18s} {spent:9.2f} ms  {entry['times_ours'][name]:8.2f} x ours")
    with write_atomically(path) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".json"))
