"""The floors of a study on the splits of `real_pack.py`, with the same labels, and all arms within each source.

    python benchmarks/real_floor.py IDX/nih STUDY OUT.csv

Two floors, each a linear probe as the study's frozen arms have it: 32 x 32 pixels reduced by PCA, and three numbers
an image (mean, standard deviation, sharpness), which see exposure and processing but no anatomy. Where the images come
from several sources, everything is also scored within each: a model that has only learned what a source looks like
falls back there. Every row has the paired difference to the pixels, with its interval over test patients.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from monai_simclr.data import finding_columns, label_fraction, open_index, read_radiograph
from monai_simclr.evaluation import Embeddings, compare_arms, probe_scores
from monai_simclr.ops.resize import pad_resize
from monai_simclr.runtime.tables import write_table

FEWEST = 20
"""Positives, and negatives, that a source needs to be scored by itself."""

_NUMBERS = ("mean", "mean_low", "mean_high", "minus_pixels", "low", "high")


def pixels(images: np.ndarray, train: np.ndarray) -> np.ndarray:
    """50 principal components of 32 x 32 pixels, fitted on train rows, of uint8 images ``(N, S, S)``."""
    small = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).ravel() for image in images])
    scaled = StandardScaler().fit(small[train]).transform(small)
    return np.asarray(PCA(50, random_state=0).fit(scaled[train]).transform(scaled), dtype=np.float32)


def tone(images: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and mean log gradient of uint8 images ``(N, S, S)``: float32 ``(N, 3)``."""
    rows = []
    for image in images.astype(np.float32):
        slopes = np.hypot(cv2.Sobel(image, -1, 1, 0), cv2.Sobel(image, -1, 0, 1))
        rows.append((image.mean(), image.std(), np.log1p(slopes).mean()))
    return np.array(rows, dtype=np.float32)


def study_runs(study: Path, index: pd.DataFrame) -> list[dict]:
    """Every run of a study folder: arm, fraction, draw, scores, labels, and the patients by their names in the index.

    Raises:
        ValueError: if a run was scored on other test images than those of the index.
    """
    patients, runs = index.loc[index["split"] == "test", "patient_id"].to_numpy(dtype=str), []
    for path in sorted(study.glob("runs/*/*percent/draw*/scores.npz")):
        arm, fraction, draw = path.parts[-4:-1]
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("scores", "labels", "patients")}
        # a study's files have hashes of the patients: the same images when they repeat alike
        if not np.array_equal(pd.factorize(arrays["patients"])[0], pd.factorize(patients)[0]):
            raise ValueError(f"{study} was scored on other test images than the index has; use the study's own index")
        share = round(float(fraction.removesuffix("percent")) / 100, 9)
        runs.append({"arm": arm, "fraction": share, "draw": int(draw[4:]), **arrays, "patients": patients})
    return runs


def probe_runs(
    index: pd.DataFrame, features: Mapping[str, np.ndarray], findings: list[str], keys: set[tuple[float, int]]
) -> list[dict]:
    """Linear probes on features of the index's rows as runs of a study, one arm a name, for every fraction and draw."""
    runs = []
    for fraction, draw in sorted(keys):
        rows = label_fraction(index, fraction, draw, findings)
        for arm, values in features.items():
            scores, test, _ = probe_scores(Embeddings(values, index), findings, rows)
            run = {"arm": arm, "fraction": fraction, "draw": draw, "scores": scores}
            labels = index[findings].to_numpy(dtype=float)[test]
            runs.append({**run, "labels": labels, "patients": index["patient_id"].to_numpy(dtype=str)[test]})
    return runs


def demographic_groups(sources: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Which test images: all, and each source with enough positives and negatives of the first finding."""
    found = {"all": np.ones(len(sources), dtype=bool)}
    for source in np.unique(sources):
        here = sources == source
        fewest = min(int((labels[here, 0] == value).sum()) for value in (0, 1))
        if fewest >= FEWEST and not here.all():
            found[str(source)] = here
    return found


def narrowed(run: Mapping, rows: np.ndarray, k: int) -> dict:
    """A run with some of its test images and one finding."""
    known = rows & np.isfinite(run["labels"][:, k])
    return {
        **run,
        "scores": run["scores"][known][:, [k]],
        "labels": run["labels"][known][:, [k]],
        "patients": run["patients"][known],
    }


def main(folder: Path, study: Path, out: Path) -> None:
    """Write and print the table."""
    index = open_index(folder)
    runs = study_runs(study, index)
    images = np.stack([pad_resize(read_radiograph(path)[0], 96) for path in index["image"]])
    floors = {"pixels": pixels(images, (index["split"] == "train").to_numpy()), "tone": tone(images)}
    keys = {(run["fraction"], run["draw"]) for run in runs}
    runs += probe_runs(index, floors, list(finding_columns(index)), keys)
    test = (index["split"] == "test").to_numpy()
    parts = []
    for k, finding in enumerate(finding_columns(index)):
        for group, rows in demographic_groups(index["source"].to_numpy(dtype=str)[test], runs[0]["labels"]).items():
            table = compare_arms([narrowed(run, rows, k) for run in runs], "pixels")
            parts.append(table.assign(finding=finding, images=group))
    table = pd.concat(parts, ignore_index=True).rename(columns={"difference": "minus_pixels"}).round(4)
    table = table[["finding", "images", "fraction", "arm", "draws", *_NUMBERS]]
    write_table(table, out)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
