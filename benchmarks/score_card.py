"""All scores of 100,000 images x 14 findings with 1,000 patient resamples: seconds and memory. Writes score_card.json.

Run from the repository's root, on a quiet machine: ``python benchmarks/score_card.py``. The budget is 60 s on two cores
and 2 GiB; it uses one.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import time
from pathlib import Path

import numpy as np

from monai_simclr.evaluation import Predictions, score_table
from monai_simclr.runtime.metrics import package_versions

IMAGES, VALIDATION, PATIENTS, FINDINGS, RESAMPLES = 100_000, 10_000, 30_000, 14, 1_000
GIB = 2**30


def _made(images: int, patients: int, seed: int) -> Predictions:
    """Labels of 8 % prevalence and logits that know something of them, several images a patient."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, FINDINGS)) < 0.08).astype(float)
    logits = rng.normal(size=labels.shape) + labels - 2
    names = np.char.add(f"set{seed}-", rng.integers(patients, size=images).astype(str))
    return Predictions(labels, logits, names, [f"finding {k}" for k in range(FINDINGS)])


def main() -> None:
    """Measure once, print, and write the JSON beside this file."""
    resource.setrlimit(resource.RLIMIT_AS, (2 * GIB, 2 * GIB))  # all of it, code included, in 2 GiB
    test, validation = _made(IMAGES, PATIENTS, 0), _made(VALIDATION, PATIENTS // 10, 1)
    started = time.perf_counter()
    card = score_table(test, validation, n_bootstrap=RESAMPLES)
    seconds = time.perf_counter() - started
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    result = {
        "commit": commit,
        "versions": {"python": platform.python_version(), **package_versions()},
        "hardware": {"processor": platform.machine(), "threads": 1, "address_space_limit_gib": 2},
        "settings": {"images": IMAGES, "patients": PATIENTS, "findings": FINDINGS, "resamples": RESAMPLES},
        "results": {
            "seconds": round(seconds, 1),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "scores": int(card["score"].nunique()),
        },
    }
    print(json.dumps(result["results"]))
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
