"""The summary of a large study: seconds and memory of `summarize`, on made-up scores of the size of a real study.

    python benchmarks/study_statistics.py [RESULT.json]

220 runs (four arms, eleven fractions, five draws) of six findings on 1,675 test images of 448 patients, as many as the
test patients of `protocol.md` have; 4,400 resamples, 100 a comparison. Scores are labels in noise, better with more
labels, so that every table, curve and power law is made. One thread; CPU time of reading the runs, of their AUROCs on
all resamples, and of the whole, the second of two summaries (the first imports and compiles).
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import torch
from inference import timed
from record import RESULTS, peak_megabytes, save

from monai_simclr.runtime.artefacts import write_arrays, write_sealed_json
from monai_simclr.study import summary
from monai_simclr.study.plan import Study

FRACTIONS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1.0)
IMAGES, PATIENTS, TRAIN_PATIENTS = 1675, 448, 2000
PREVALENCE = {"A": 0.18, "B": 0.15, "C": 0.08, "D": 0.06, "E": 0.05, "F": 0.03}
SKILL = {"scratch": 1.0, "random_frozen": 0.6, "frozen": 1.2, "finetuned": 1.4}


def made_up(folder: Path) -> Study:
    """A study whose runs are complete on disk."""
    study = Study(folder, folder, folder / "study", fractions=FRACTIONS, draws=5)
    rng = np.random.default_rng(0)
    patients = np.sort(np.r_[np.arange(PATIENTS), rng.integers(PATIENTS, size=IMAGES - PATIENTS)]).astype(str)
    ill = rng.random((PATIENTS, len(PREVALENCE))) < 2 * np.array(list(PREVALENCE.values()))
    labels = (ill[patients.astype(int)] & (rng.random((IMAGES, len(PREVALENCE))) < 0.5)).astype(float)
    for run in study.runs():
        signal = SKILL[run.arm] * (1 + np.log10(run.fraction) / 4)
        scores = (signal * labels + rng.standard_normal(labels.shape)).astype(np.float32)
        held = {"scores": scores, "labels": labels, "patients": patients, "findings": np.array(list(PREVALENCE))}
        to = run.folder(study.output_dir)
        to.mkdir(parents=True)
        write_arrays(to / "scores.npz", held)
        counts = {"labelled_patients": int(run.fraction * TRAIN_PATIENTS), "labelled_images": 0}
        write_sealed_json(to / "settings.json", {"settings": {}, **counts})
    return study


def summarized(study: Study) -> dict[str, float]:
    """CPU seconds of one summary, by stage."""
    stages = {"reading": (summary, "_complete_runs"), "resampling": (summary, "ResampledRuns")}
    clocked = timed(time.process_time, whole=(summary, "summarize"), **stages)
    with clocked as seconds, contextlib.redirect_stdout(io.StringIO()):
        summary.summarize(study, TRAIN_PATIENTS, {})
    return {**seconds, "rest": 2 * seconds["whole"] - sum(seconds.values())}


def main(path: Path) -> None:
    """Measure, print, and store with what it ran on."""
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        study = made_up(Path(folder))
        runs = len(list(study.runs()))
        summarized(study)
        memory = peak_megabytes(lambda: found.append(summarized(study)))
    size = {"runs": runs, "findings": len(PREVALENCE), "test_images": IMAGES, "test_patients": PATIENTS}
    print(found[0], f"{memory:.0f} MB")
    save(path, ("numpy", "scipy"), n=size, cpu_seconds=found[0], megabytes=memory)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "study_statistics.json")
