"""The summary of a study: one table, one curve, tests between arms, power laws, and the label saving."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.evaluation import (
    MACRO,
    Curve,
    Predictions,
    arm_curves,
    compare_arms,
    curve_laws,
    few_label_gain,
    holm,
    label_saving,
    labels_needed,
    unstated_saving,
)
from monai_simclr.report import write_label_curve
from monai_simclr.runtime.artefacts import read_arrays, read_json, reading
from monai_simclr.runtime.metrics import print_table, write_metrics
from monai_simclr.runtime.tables import write_table
from monai_simclr.study.plan import Study

_ARRAYS = ("scores", "labels", "patients", "findings")

_FEW = 0.1
"""Share of the train patients up to which labels are called few."""

_TARGETS = (0.7, 0.75, 0.8, 0.85, 0.9)


def summarize(study: Study, train_patients: int, skipped: Mapping[float, str], n_bootstrap: int = 0) -> Path:
    """Write tables, ``curve.png`` and ``metrics.json`` of the runs that are there, and print what they say.

    ``table.csv`` has every fraction and arm, ``few_label_gain.csv`` the mean over fractions up to 10 % of the patients.

    Args:
        study: the settings.
        train_patients: all train patients of the archive.
        skipped: fractions that were left out, and why.
        n_bootstrap: resamples of test patients, the same for all runs; 0 for 1000, or 100 a comparison if that is more:
            the smallest p-value is 2 over the resamples, and Holm multiplies it by the number of comparisons.

    Returns:
        Path of ``metrics.json``.

    Raises:
        ValueError: if no run of the reference arm is there yet.
    """
    runs = _load(study)
    paired = {(run["fraction"], run["draw"]) for run in runs if run["arm"] == study.reference}
    runs = [run for run in runs if (run["fraction"], run["draw"]) in paired]
    if not runs:
        raise ValueError(
            f"no run of the arm {study.reference!r} is in {study.output_dir} yet; every summary starts from it"
        )
    n_bootstrap = n_bootstrap or max(1000, 100 * len({(run["fraction"], run["arm"]) for run in runs}))
    table = _table(study, runs, n_bootstrap)
    curves = arm_curves(runs, n_bootstrap)
    write_table(table, study.output_dir / "table.csv")
    gain = _compared(study, runs, functools.partial(few_label_gain, at_most=_FEW, n_bootstrap=n_bootstrap))
    write_table(gain, study.output_dir / "few_label_gain.csv")
    macro = table[table["finding"] == MACRO]
    rows = _records(macro)
    write_label_curve(study.output_dir / "curve.png", rows)
    least = min(run["fraction"] for run in runs)
    saving = {
        arm: _saved(curve, curves[study.reference], least) for arm, curve in curves.items() if arm != study.reference
    }
    laws = {arm: _law(curve, train_patients) for arm, curve in curves.items()}
    columns = ["fraction", "patients", "arm", "reference", "draws", "mean", "sd", "difference", "low", "high", "p_holm"]
    shown = [{name: row[name] for name in columns} for row in rows]
    print_table(shown, title="macro AUROC on test patients; difference to the reference [95 %]")
    gains = [{**row, "sentence": _gain_said(row)} for row in _records(gain)]
    for row in gains:
        if row["finding"] == MACRO:
            print(row["sentence"])
    for arm, found in saving.items():
        print(f"{arm} reaches {study.reference} with {_share(curves[study.reference])} labels at: {found['sentence']}")
    done, planned = len(runs), len(list(study.runs()))
    return write_metrics(
        study.output_dir,
        {
            "few_label": rows,
            "few_label_gain": gains,
            "label_saving": saving,
            "power_law": laws,
            "not_run": {f"{100 * fraction:g}%": reason for fraction, reason in skipped.items()},
        },
        command="study",
        split="test",
        seed=0,
        n={
            "runs": done,
            "planned": planned,
            "train_patients": train_patients,
            "test_images": len(runs[0]["labels"]),
            "test_patients": len(set(runs[0]["patients"])),
        },
        baselines={"chance": 0.5, "reference": study.reference},
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _load(study: Study) -> list[dict[str, Any]]:
    runs = []
    for run in study.runs():
        folder = run.folder(study.output_dir)
        if not (folder / "settings.json").is_file():
            continue
        about, arrays = read_run(folder)
        counts = {"n_patients": about["labelled_patients"], "n_images": about["labelled_images"]}
        runs.append({"arm": run.arm, "fraction": run.fraction, "draw": run.draw, **arrays, **counts})
    return runs


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a run of a study has left: its settings and counts, and its scores.

    Raises:
        DamagedFileError: if a file of it is damaged.
    """
    remedy = "run the study again, which makes this run again"
    needs = ("settings", "labelled_patients", "labelled_images")
    about = read_json(folder / "settings.json", "the settings of a run", remedy, needs)
    path = folder / "scores.npz"
    arrays = read_arrays(path, "the scores of a run", remedy, _ARRAYS)
    with reading(path, "the scores of a run", remedy):
        Predictions(arrays["labels"], arrays["scores"], arrays["patients"], arrays["findings"].tolist())
        if not isinstance(about["settings"], dict):
            raise ValueError("its settings are not a mapping")
    return about, {name: arrays[name] for name in _ARRAYS}


def _table(study: Study, runs: Sequence[Mapping[str, Any]], n_bootstrap: int) -> pd.DataFrame:
    """Every fraction and arm: macro mean first, then every finding."""
    table = _compared(study, runs, functools.partial(compare_arms, n_bootstrap=n_bootstrap))
    patients = {run["fraction"]: run["n_patients"] for run in runs}
    first = ["finding", "fraction", "patients", "arm", "reference"]
    table["patients"] = table["fraction"].map(patients)
    return table[[*first, *(name for name in table.columns if name not in first)]]


def _compared(
    study: Study, runs: Sequence[Mapping[str, Any]], compare: Callable[[Sequence[Mapping[str, Any]], str], pd.DataFrame]
) -> pd.DataFrame:
    """Arms against the reference, macro mean and findings; the frozen arms are also compared with each other."""
    findings = [str(name) for name in runs[0]["findings"]]
    both = {(run["fraction"], run["draw"]) for run in runs if run["arm"] == "random_frozen"}
    parts = []
    for name in [MACRO, *(findings if len(findings) > 1 else [])]:
        mine = [run if name == MACRO else _of_finding(run, findings.index(name)) for run in runs]
        compared = [compare(mine, study.reference).assign(reference=study.reference)]
        frozen = [run for run in mine if run["arm"] == "random_frozen"]
        frozen += [run for run in mine if run["arm"] == "frozen" and (run["fraction"], run["draw"]) in both]
        if study.reference != "random_frozen" and len({run["arm"] for run in frozen}) == 2:
            again = compare(frozen, "random_frozen").assign(reference="random_frozen")
            compared.append(again[again["arm"] == "frozen"] if len(again) else again)
        joined = pd.concat(compared, ignore_index=True)
        if len(joined) and "p" in joined:
            parts.append(joined.assign(finding=name, p_holm=holm(joined["p"].to_numpy())))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _of_finding(run: Mapping[str, Any], k: int) -> dict[str, Any]:
    return {**run, "scores": run["scores"][:, k : k + 1], "labels": run["labels"][:, k : k + 1]}


def _gain_said(row: Mapping[str, Any]) -> str:
    """One sentence on a row of the few-label gain."""
    low, high, draws = row["low_draws"], row["high_draws"], row["draws"]
    with_draws = f"[{low:.3f}, {high:.3f}] with {draws} draws resampled too" if draws > 1 else "one draw of labels only"
    return (
        f"{row['arm']} minus {row['reference']}, {row['finding']}, mean over {row['fractions']} % of the patients: "
        f"{row['difference']:+.3f} [{row['low']:.3f}, {row['high']:.3f}] over test patients, {with_draws}"
    )


def _share(reference: Curve) -> str:
    most = float(reference.fractions[-1])
    return "all" if most == 1 else f"{most:.1%} of the"


def _saved(curve: Curve, reference: Curve, least: float) -> dict[str, Any]:
    """The label saving with its sentence, or why it is not stated."""
    found, reason = label_saving(curve, reference).as_dict(), unstated_saving(reference)
    return {**found, "sentence": f"not stated: {reason}"} if reason else _said(found, least=least)


def _law(curve: Curve, train_patients: int) -> dict[str, Any] | None:
    laws = curve_laws(curve, train_patients)
    if not laws:
        return None
    needed = {f"{target:g}": _said(labels_needed(laws, target).as_dict(), " patients") for target in _TARGETS}
    return {**laws[0]._asdict(), "patients_needed_for_auroc": needed}


def _said(interval: Mapping[str, float], unit: str = "", least: float = 0.0) -> dict[str, Any]:
    """An interval that may be infinite, with a sentence; JSON has no infinity."""

    def word(value: float) -> str:
        if math.isinf(value):
            return "not reached"
        if math.isnan(value):
            return "unknown"
        if unit:
            return f"{value:.0f}{unit}"
        return f"{value:.1%} of train patients" + (" or fewer" if value <= least else "")

    sentence = f"{word(interval['value'])} [{word(interval['low'])}, {word(interval['high'])}]"
    return {**interval, "sentence": sentence}
