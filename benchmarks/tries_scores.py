"""How the tries are scored: linear probes on validation patients, floors, and paired differences to the base."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from record import save
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from monai_simclr import recipes
from monai_simclr.data import Store, finding_columns, label_fraction
from monai_simclr.engines import embed
from monai_simclr.evaluation import Embeddings, compare_arms, probe_scores
from monai_simclr.runtime.tables import write_table

FRACTIONS, DRAWS, RANDOM = (0.02, 0.1, 1.0), 10, 3


def questions_of(indexes: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The labelled train and validation rows; validation is called test, which is what a probe scores."""
    asked = {}
    for name, index in indexes.items():
        kept = index[index["split"].isin(["train", "val"])].reset_index(drop=True)
        asked[name] = kept.assign(split=kept["split"].replace({"val": "test"}))
    return asked


def score(features: np.ndarray, index: pd.DataFrame, questions: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """Scores of validation images ``(runs, N, K)``, their labels ``(N, K)`` and patients, the runs and the findings.

    All questions stand beside each other: an image of one has unknown labels for the findings of the others. The
    penalty is fixed (C 0.01), as there are no further patients to choose it on.
    """
    place = {path: i for i, path in enumerate(index["image"])}
    runs = [(f, draw) for f in FRACTIONS for draw in range(1 if f == 1 else DRAWS)]
    columns = [f"{name} {finding}" for name, asked in questions.items() for finding in finding_columns(asked)]
    blocks, labels, patients = [], [], []
    for name, asked in questions.items():
        made = Embeddings(features[[place[path] for path in asked["image"]]], asked)
        findings, test = list(finding_columns(asked)), (asked["split"] == "test").to_numpy()
        here = [columns.index(f"{name} {finding}") for finding in findings]
        block = np.zeros((len(runs), int(test.sum()), len(columns)), dtype=np.float32)
        for i, (fraction, draw) in enumerate(runs):
            rows = label_fraction(asked, fraction, draw, findings)
            block[i][:, here] = probe_scores(made, findings, rows)[0]
        known = np.full(block.shape[1:], np.nan)
        known[:, here] = asked.loc[test, findings].to_numpy(dtype=float)
        blocks.append(block)
        labels.append(known)
        patients.append(asked.loc[test, "patient_id"].to_numpy(dtype=str))
    return {
        "scores": np.concatenate(blocks, axis=1),
        "labels": np.concatenate(labels),
        "patients": np.concatenate(patients),
        "runs": np.array(runs),
        "findings": np.array(columns),
    }


def areas_of(scored: Mapping[str, np.ndarray]) -> list[float]:
    """Macro AUROC with each fraction of the labels, the mean over its draws, of what `score` returned."""
    known = [np.flatnonzero(~np.isnan(column)) for column in scored["labels"].T]
    by_run = [
        np.mean([roc_auc_score(scored["labels"][rows, k], scores[rows, k]) for k, rows in enumerate(known)])
        for scores in scored["scores"]
    ]
    fractions = scored["runs"][:, 0]
    return [round(float(np.mean(np.array(by_run)[fractions == fraction])), 4) for fraction in FRACTIONS]


def floors(
    store: Store, questions: Mapping[str, pd.DataFrame], out: Path, make: Callable[[], torch.nn.Module], size: int
) -> None:
    """What a try has to beat: random encoders, 32 x 32 pixels, and three numbers that see brightness and sharpness."""
    finish = functools.partial(recipes.to_network_input, size=size)

    def random(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        return embed(make(), store.images, finish)

    made: dict[str, Callable[[], np.ndarray]] = {
        **{f"random encoder, seed {seed}": functools.partial(random, seed) for seed in range(RANDOM)},
        "32 x 32 pixels, PCA": lambda: _pixels(store),
        "mean, deviation, sharpness": lambda: np.stack([_tone(image) for image in store.images]),
    }
    for name, features in made.items():
        path = out / f"floor {name}.npz"
        if not path.is_file():
            np.savez(path, **score(features(), store.index, questions))


def _pixels(store: Store) -> np.ndarray:
    small = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).ravel() for image in store.images])
    train = (store.index["split"] == "train").to_numpy()
    scaled = StandardScaler().fit(small[train]).transform(small)
    return np.asarray(PCA(50, random_state=0).fit(scaled[train]).transform(scaled), dtype=np.float32)


def _tone(image: np.ndarray) -> np.ndarray:
    values = image.astype(np.float32)
    slopes = np.hypot(cv2.Sobel(values, -1, 1, 0), cv2.Sobel(values, -1, 0, 1))
    return np.array([values.mean(), values.std(), np.log1p(slopes).mean()], dtype=np.float32)


def table_of(tries: Mapping[str, tuple[str, dict]], out: Path, to: Path) -> pd.DataFrame:
    """Every try that is there beside the floors: AUROC on validation patients, and paired differences to the base."""
    files = {f"floor: {path.stem[6:]}": path for path in sorted(out.glob("floor *.npz"))}
    files |= {name: out / f"{key}.npz" for name, (key, _) in tries.items() if (out / f"{key}.npz").is_file()}
    runs = [run for name, path in files.items() for run in _runs(name, path)]
    findings = list(runs[0]["findings"])
    by = {None: compare_arms(runs, "base", 500)}
    by |= {name: compare_arms([_only(run, k) for run in runs], "base", 2) for k, name in enumerate(findings)}
    rows = [_row(name, by, tries.get(name), out) for name in files]
    table = pd.DataFrame(rows).sort_values("mean", ascending=False, kind="stable")
    save(to, ("torch", "monai", "scikit-learn"), patients=len(set(runs[0]["patients"])), draws=DRAWS, tries=rows)
    write_table(table.drop(columns="settings"), to.with_suffix(".csv"))
    return table


def _row(name: str, by: Mapping[str | None, pd.DataFrame], given: tuple[str, dict] | None, out: Path) -> dict:
    mine = {finding: table[table["arm"] == name].set_index("fraction") for finding, table in by.items()}
    whole = mine.pop(None)
    row: dict = {"name": name, "mean": round(float(whole["mean"].mean()), 4)}
    for fraction in FRACTIONS:
        for finding, table in mine.items():
            row[f"{finding}, {fraction:.0%}"] = round(float(table.loc[fraction, "mean"]), 4)
        low, high = (round(float(whole.loc[fraction, bound]), 4) for bound in ("low", "high"))
        row[f"minus base, {fraction:.0%}"] = [round(float(whole.loc[fraction, "difference"]), 4), low, high]
    about = json.loads((out / f"{given[0]}.json").read_text()) if given else {}
    return {**row, **{k: v for k, v in about.items() if k != "name"}, "settings": given[1] if given else {}}


def _runs(name: str, path: Path) -> list[dict]:
    with np.load(path, allow_pickle=False) as file:
        held = dict(file)
    shared = {key: held[key] for key in ("labels", "patients", "findings")}
    return [
        {"arm": name, "fraction": float(fraction), "draw": int(draw), "scores": held["scores"][i], **shared}
        for i, (fraction, draw) in enumerate(held["runs"])
    ]


def _only(run: dict, k: int) -> dict:
    return {**run, "scores": run["scores"][:, [k]], "labels": run["labels"][:, [k]]}
