"""Does `select_images` beat random choice? Probe AUROC at 20, 50, 100 labels, ten draws. Writes selection.json.

``python benchmarks/selection.py NAME=EMBEDDINGS.npz ...`` on embeddings with labels and splits. Without arguments:
phantoms and, where ../shared/cxr is, its kermany part, both as 32 x 32 pixels reduced to 64 principal components.
Results of other names that are in the file stay there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from monai_simclr.data.phantoms import draw_phantom
from monai_simclr.evaluation import Embeddings, probe_scores, select_images

BUDGETS, DRAWS = (20, 50, 100), 10
CXR = Path(__file__).resolve().parent.parent.parent / "shared" / "cxr"


def _reduced(images: list[np.ndarray], index: pd.DataFrame) -> Embeddings:
    """Small images, flattened and reduced on train rows."""
    pixels = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).ravel() for image in images])
    train = (index["split"] == "train").to_numpy()
    model = PCA(64, random_state=0).fit(pixels[train])
    return Embeddings(model.transform(pixels), index)


def _phantoms(n: int = 600) -> Embeddings:
    made = [draw_phantom(patient, 0, size=64) for patient in range(n)]
    index = pd.DataFrame(
        {
            "image": [f"{phantom.patient}.png" for phantom in made],
            "patient_id": [str(phantom.patient) for phantom in made],
            "split": np.where(np.arange(n) < n * 0.6, "train", "test"),
            **{name: [float(phantom.finding == name) for phantom in made] for name in ("Cardiomegaly", "Pneumothorax")},
        }
    )
    return _reduced([phantom.pixels for phantom in made], index)


def _kermany() -> Embeddings:
    table = pd.read_csv(CXR / "kermany" / "labels.csv", dtype=str, keep_default_na=False)
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in _paths(table)]
    patients = np.unique(table["patient_id"])
    test = set(np.random.default_rng(0).permutation(patients)[: len(patients) * 3 // 10])
    index = pd.DataFrame(
        {
            "image": [path.name for path in _paths(table)],
            "patient_id": table["patient_id"],
            "split": ["test" if patient in test else "train" for patient in table["patient_id"]],
            "Pneumonia": (table["subtype"] != "normal").astype(float),
            "Bacteria": table["subtype"].map({"bacteria": 1.0, "virus": 0.0}),
        }
    )
    return _reduced([image.astype(np.float32) for image in images], index)


def _paths(table: pd.DataFrame) -> list[Path]:
    column = next(name for name in ("path", "file", "filename", "image") if name in table)
    found = {path.name: path for path in (CXR / "kermany" / "images").rglob("*.jpeg")}
    return [found[Path(name).name] for name in table[column]]


def measure(embeddings: Embeddings) -> list[dict]:
    """One row a finding and budget: mean AUROC of selected and of random images, and of their paired difference."""
    index = embeddings.index
    plain = {"image", "patient_id", "study_id", "view_position", "sex", "age", "split", "source", "manufacturer"}
    patients = index["patient_id"].to_numpy().astype(str)
    train = np.flatnonzero((index["split"] == "train").to_numpy())
    rows = []
    for budget in BUDGETS:
        areas: dict[str, list[list[float]]] = {}
        for draw in range(DRAWS):
            names = np.unique(patients[train])
            kept = np.random.default_rng(draw).permutation(names)[: len(names) * 4 // 5]
            there = train[np.isin(patients[train], kept)]  # draws differ in the patients that are on offer, for both
            picked = select_images(embeddings.where(there), budget, draw)["image"]
            chosen = np.flatnonzero(index["image"].isin(picked))
            shuffled = np.random.default_rng(draw).permutation(there)
            firsts = shuffled[np.unique(patients[shuffled], return_index=True)[1]]
            random = np.random.default_rng(draw).permutation(firsts)[:budget]
            for finding in (name for name in index.columns if name not in plain):
                areas.setdefault(finding, []).append([_area(embeddings, finding, some) for some in (chosen, random)])
        for finding, values in areas.items():
            pair = np.array(values)
            if np.isnan(pair).any():
                continue
            gap = pair[:, 0] - pair[:, 1]
            rows.append(
                {
                    "finding": finding,
                    "labels": budget,
                    "selected": round(float(pair[:, 0].mean()), 4),
                    "random": round(float(pair[:, 1].mean()), 4),
                    "difference": round(float(gap.mean()), 4),
                    "standard_error": round(float(gap.std(ddof=1) / np.sqrt(len(gap))), 4),
                    "draws_won": int((gap > 0).sum()),
                    "draws": DRAWS,
                }
            )
    return rows


def _area(embeddings: Embeddings, finding: str, rows: np.ndarray) -> float:
    scores, test, _ = probe_scores(embeddings, [finding], rows)
    labels = embeddings.index[finding].to_numpy(dtype=float)[test]
    known = np.isfinite(labels)
    if len(np.unique(labels[known])) < 2:
        return float("nan")
    return float(roc_auc_score(labels[known], scores[known, 0]))


def main() -> None:
    """Measure every set, print, and write the JSON beside this file."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    sets = {name: Embeddings.load(path) for name, path in given.items()} or {"phantoms, pixels": _phantoms()}
    if not given and CXR.is_dir():
        sets["kermany, pixels"] = _kermany()
    found = {name: measure(embeddings) for name, embeddings in sets.items()}
    for name, rows in found.items():
        print(name, pd.DataFrame(rows).to_string(index=False), sep="\n")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    path = Path(__file__).with_suffix(".json")
    before = json.loads(path.read_text(encoding="utf-8"))["results"] if path.is_file() else {}
    content = {"commit": commit, "results": {**before, **found}}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
