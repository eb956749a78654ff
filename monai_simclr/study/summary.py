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
    ResampledRuns,
    arm_curves,
    compare_arms,
    curve_laws,
    few_label_gain,
    holm,
    label_saving,
    labels_needed,
    unstated_saving,
)
from monai_simclr.evaluation.intervals import FEWEST_UNITS
from monai_simclr.report import write_label_curve
from monai_simclr.runtime.artefacts import read_arrays, read_json, reading
from monai_simclr.runtime.metrics import print_table, table_rows, write_metrics
from monai_simclr.runtime.tables import write_table
from monai_simclr.study.plan import Study

_ARRAYS = ("scores", "labels", "patients", "findings")
_FEW = 0.1
"""Share of the train patients up to which labels are called few."""
_TARGETS = (0.7, 0.75, 0.8, 0.85, 0.9)
_PRINTED = ["fraction", "patients", "arm", "reference", "draws", "mean", "sd", "difference", "low", "high", "p_holm"]

Run = Mapping[str, Any]
"""Scores of one run: `arm, fraction, draw, n_patients, n_images` and the arrays of `scores.npz`."""


def summarize(
    study: Study,
    train_patients: int,
    skipped: Mapping[float, str],
    n_bootstrap: int = 0,
    seen_patients: int | None = None,
) -> Path:
    """Write tables, ``curve.png`` and ``metrics.json`` of the complete runs, and print the results.

    ``table.csv`` has every fraction and arm, ``few_label_gain.csv`` the mean over fractions up to 10 % of the patients.

    Args:
        study: the settings.
        train_patients: number of all train patients of the archive.
        skipped: fractions that were skipped, and why.
        n_bootstrap: resamples of test patients, the same for all runs; 0 for 1000, or 100 per comparison if that is
            more: the smallest p-value is 2 over the resamples, and Holm multiplies it by the number of comparisons.
        seen_patients: number of test patients that an encoder had seen in pretraining; None where it is unknown.

    Returns:
        Path of ``metrics.json``.

    Raises:
        ValueError: if there is no run of the reference arm yet.
    """
    runs = _complete_runs(study)
    n_bootstrap = n_bootstrap or max(1000, 100 * len({(run["fraction"], run["arm"]) for run in runs}))
    resampled = ResampledRuns(runs, n_bootstrap)
    findings = [str(name) for name in runs[0]["findings"]]
    table = _compare(study, resampled, findings, compare_arms)
    patients = table["fraction"].map({run["fraction"]: run["n_patients"] for run in runs})
    table.insert(0, "patients", patients)
    first = ["finding", "fraction", "patients", "arm", "reference"]
    table = table[[*first, *(name for name in table.columns if name not in first)]]
    write_table(table, study.output_dir / "table.csv")
    gain = _compare(study, resampled, findings, functools.partial(few_label_gain, at_most=_FEW))
    write_table(gain, study.output_dir / "few_label_gain.csv")
    rows = table_rows(table[table["finding"] == MACRO])
    write_label_curve(study.output_dir / "curve.png", rows)
    print_table(
        [{name: row[name] for name in _PRINTED} for row in rows],
        title="macro AUROC on test patients; difference to the reference [95 %]",
    )
    gains = [{**row, "sentence": _describe_gain(row)} for row in table_rows(gain)]
    for row in gains:
        if row["finding"] == MACRO:
            print(row["sentence"])
    curves = arm_curves(resampled)
    savings = _label_savings(curves, study.reference, smallest=min(run["fraction"] for run in runs))
    for arm, saving in savings.items():
        largest = float(curves[study.reference].fractions[-1])
        labels = "all" if largest == 1 else f"{largest:.1%} of the"
        print(f"{arm} reaches {study.reference} with {labels} labels at: {saving['sentence']}")
    return write_metrics(
        study.output_dir,
        {
            "few_label": rows,
            "few_label_gain": gains,
            "label_saving": savings,
            "power_law": {arm: _power_law(curve, train_patients) for arm, curve in curves.items()},
            "not_run": {f"{100 * fraction:g}%": reason for fraction, reason in skipped.items()},
        },
        command="study",
        split="test",
        seed=0,
        n={
            "runs": len(runs),
            "planned": len(list(study.runs())),
            "train_patients": train_patients,
            "test_images": len(runs[0]["labels"]),
            "test_patients": len(set(runs[0]["patients"])),
            **({} if seen_patients is None else {"seen_patients": seen_patients}),
        },
        baselines={"chance": 0.5, "reference": study.reference},
    )


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Settings and counts of a complete run of a study, and its scores.

    Raises:
        DamagedFileError: if a file of it is damaged.
    """
    remedy = "run the study again, which repeats this run"
    needs = ("settings", "labelled_patients", "labelled_images")
    about = read_json(folder / "settings.json", "the settings of a run", remedy, needs)
    path = folder / "scores.npz"
    arrays = read_arrays(path, "the scores of a run", remedy, _ARRAYS)
    with reading(path, "the scores of a run", remedy):
        Predictions(arrays["labels"], arrays["scores"], arrays["patients"], arrays["findings"].tolist())
        if not isinstance(about["settings"], dict):
            raise ValueError("its settings are not a mapping")
    return about, {name: arrays[name] for name in _ARRAYS}


def _complete_runs(study: Study) -> list[Run]:
    """Runs on disk whose fraction and draw the reference arm has too."""
    runs: list[Run] = []
    for run in study.runs():
        folder = run.folder(study.output_dir)
        if (folder / "settings.json").is_file():
            about, arrays = read_run(folder)
            counts = {"n_patients": about["labelled_patients"], "n_images": about["labelled_images"]}
            runs.append({"arm": run.arm, "fraction": run.fraction, "draw": run.draw, **arrays, **counts})
    paired = {(run["fraction"], run["draw"]) for run in runs if run["arm"] == study.reference}
    if not paired:
        raise ValueError(
            f"no run of the arm {study.reference!r} is in {study.output_dir} yet; every summary starts from it"
        )
    return [run for run in runs if (run["fraction"], run["draw"]) in paired]


def _compare(
    study: Study, runs: ResampledRuns, findings: Sequence[str], compare: Callable[[ResampledRuns, str], pd.DataFrame]
) -> pd.DataFrame:
    """Arms against the reference, macro mean and findings; the frozen arms are also compared with each other."""
    random = [key for key in runs.aurocs if key[1] == "random_frozen"]
    frozen = [key for key in runs.aurocs if key[1] == "frozen" and (key[0], "random_frozen", key[2]) in runs.aurocs]
    parts = []
    for k, name in enumerate([MACRO, *(findings if len(findings) > 1 else [])], start=-1):
        finding = None if name == MACRO else k
        compared = [compare(runs.part(runs.aurocs, finding), study.reference).assign(reference=study.reference)]
        if study.reference != "random_frozen" and random and frozen:
            again = compare(runs.part(random + frozen, finding), "random_frozen").assign(reference="random_frozen")
            compared.append(again[again["arm"] == "frozen"] if len(again) else again)
        table = pd.concat(compared, ignore_index=True)
        if len(table) and "p" in table:
            parts.append(table.assign(finding=name, p_holm=holm(table["p"].to_numpy())))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _label_savings(curves: Mapping[str, Curve], reference: str, smallest: float) -> dict[str, dict[str, Any]]:
    """The label saving of every other arm and its description, or why it is not stated."""
    unstated, savings = unstated_saving(curves[reference]), {}
    for arm in (arm for arm in curves if arm != reference):
        saving = label_saving(curves[arm], curves[reference]).as_dict()
        savings[arm] = {
            **saving,
            "sentence": f"not stated: {unstated}" if unstated else _describe(saving, "", smallest),
        }
    return savings


def _power_law(curve: Curve, train_patients: int) -> dict[str, Any] | None:
    laws = curve_laws(curve, train_patients)
    if not laws:
        return None
    needed = {f"{target:g}": labels_needed(laws, target).as_dict() for target in _TARGETS}
    described = {
        target: {**patients, "sentence": _describe(patients, " patients")} for target, patients in needed.items()
    }
    return {**laws[0]._asdict(), "patients_needed_for_auroc": described}


def _describe_gain(row: Mapping[str, Any]) -> str:
    draws = row["draws"]
    about = (
        f"{row['arm']} minus {row['reference']}, {row['finding']}, mean over {row['fractions']} % of the patients: "
        f"{row['difference']:+.3f}"
    )
    if not _is_known(row["low"]):
        return f"{about}, no interval: fewer than {FEWEST_UNITS} test patients have the finding, or lack it"
    low, high = row["low_draws"], row["high_draws"]
    both = (
        f"[{low:.3f}, {high:.3f}] over {draws} draws too" if draws > 1 and _is_known(low) else "one draw of labels only"
    )
    return f"{about} [{row['low']:.3f}, {row['high']:.3f}] over test patients, {both}"


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _describe(interval: Mapping[str, float], unit: str, smallest: float = 0.0) -> str:
    """An interval of numbers, or of shares of the train patients, whose ends may be infinite."""

    def word(value: float) -> str:
        if math.isinf(value):
            return "not reached"
        if math.isnan(value):
            return "unknown"
        if unit:
            return f"{value:.0f}{unit}"
        return f"{value:.1%} of train patients" + (" or fewer" if value <= smallest else "")

    return f"{word(interval['value'])} [{word(interval['low'])}, {word(interval['high'])}]"
