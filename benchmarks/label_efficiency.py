"""The study of `protocol.md` with its baselines: tables of every arm, their differences, and the label saving.

    python benchmarks/label_efficiency.py IDX/nih128 STUDY ../shared/nih128/manifest.csv IMAGENET.npy SIZE

STUDY is the folder of `monai-simclr study` on the same index. The baselines are linear probes as the study's frozen
arms are, on the same labelled patients: 32 x 32 pixels (50 principal components), six picture statistics of the
manifest (mean, deviation, sharpness, shares of white and black, bytes of the file), and view, age and sex.
IMAGENET.npy has features of frozen ImageNet weights for the index's rows (`benchmarks/imagenet.py`), and SIZE is the
pixels of the study's networks, 96 or 128. Writes `results/label_efficiency_SIZE.csv` (every fraction and arm),
`results/label_efficiency_SIZE_gain.csv` (mean over the fractions up to 10 %) and `results/label_efficiency_SIZE.json`
(label savings).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from real_floor import pixels, probe_runs, study_runs
from real_pack import MAIN_FINDINGS
from record import RESULTS, save

from monai_simclr.data import open_index, read_radiograph
from monai_simclr.evaluation import (
    MACRO,
    arm_curves,
    compare_arms,
    few_label_gain,
    label_saving,
    unstated_saving,
)
from monai_simclr.ops.resize import pad_resize
from monai_simclr.runtime.tables import write_table

PICTURE = ("mean", "std", "lap", "white", "black", "src_bytes")
"""Columns of the manifest that see exposure, processing and the file, and no anatomy."""

REFERENCES = ("scratch", "random_frozen", "imagenet")
"""Arms that the others are compared with."""

N_BOOTSTRAP = 2000


def baselines(index: pd.DataFrame, manifest: Path, imagenet: Path) -> dict[str, np.ndarray]:
    """Features ``(N, D)`` of the arms that are not networks of ours, by name."""
    images = np.stack([pad_resize(read_radiograph(path)[0], 96) for path in index["image"]])
    rows = pd.read_csv(manifest).set_index("file")
    files = ["/".join(Path(path).parts[-2:]) for path in index["image"]]
    view = pd.get_dummies(index["view_position"].astype(str)).to_numpy(dtype=np.float32)
    age = index["age"].to_numpy(dtype=np.float32)
    person = np.column_stack([np.nan_to_num(age, nan=np.nanmedian(age)), np.isnan(age), index["sex"] == "F"])
    return {
        "pixels": pixels(images, (index["split"] == "train").to_numpy()),
        "picture": rows.loc[files, list(PICTURE)].to_numpy(dtype=np.float32),
        "demographics": np.column_stack([view, person]).astype(np.float32),
        "imagenet": np.load(imagenet),
    }


def of_finding(runs: list[dict[str, Any]], k: int) -> list[dict[str, Any]]:
    """The same runs with one finding."""
    column = slice(k, k + 1)
    return [{**run, "scores": run["scores"][:, column], "labels": run["labels"][:, column]} for run in runs]


def paired(runs: list[dict[str, Any]], reference: str) -> list[dict[str, Any]]:
    """The runs whose fraction and draw the reference has too."""
    keys = {(run["fraction"], run["draw"]) for run in runs if run["arm"] == reference}
    return [run for run in runs if (run["fraction"], run["draw"]) in keys]


def arm_table(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """Every fraction and arm: AUROC with its interval, and the differences to each reference; macro and findings."""
    parts = []
    for k, finding in enumerate([MACRO, *MAIN_FINDINGS], start=-1):
        scored = runs if finding == MACRO else of_finding(runs, k)
        for reference in REFERENCES:
            if any(run["arm"] == reference for run in scored):
                table = compare_arms(paired(scored, reference), reference, N_BOOTSTRAP)
                parts.append(table.assign(finding=finding, reference=reference))
    return pd.concat(parts, ignore_index=True)


def main(folder: Path, study: Path, manifest: Path, imagenet: Path, size: str) -> None:
    """Write the tables."""
    name = f"label_efficiency_{size}"
    index = open_index(folder)
    runs = study_runs(study, index)
    keys = {(run["fraction"], run["draw"]) for run in runs}
    runs += probe_runs(index, baselines(index, manifest, imagenet), list(MAIN_FINDINGS), keys)
    table = arm_table(runs).round(4)
    write_table(table, RESULTS / f"{name}.csv")
    gains = [
        few_label_gain(paired(runs, reference), reference, 0.1, N_BOOTSTRAP).assign(reference=reference)
        for reference in sorted({run["arm"] for run in runs} & {*REFERENCES})
    ]
    write_table(pd.concat(gains, ignore_index=True).round(4), RESULTS / f"{name}_gain.csv")
    curves = arm_curves(runs, N_BOOTSTRAP)
    save(
        RESULTS / f"{name}.json",
        ("monai", "torch", "scikit-learn"),
        n={"test_images": len(runs[0]["labels"]), "test_patients": len(set(runs[0]["patients"]))},
        unstated=unstated_saving(curves["scratch"]),
        label_saving={arm: label_saving(curve, curves["scratch"]).as_dict() for arm, curve in curves.items()},
    )
    shown = table[(table["reference"] == "scratch") & (table["finding"] == MACRO)]
    print(shown.to_string(index=False))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(Path(given[0]), Path(given[1]), Path(given[2]), Path(given[3]), size=given[4])
