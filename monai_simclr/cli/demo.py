"""The whole workflow on phantoms, through the same bundle commands that a hospital's archive goes through."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_simclr.data.phantoms import FINDINGS, write_dicom_phantoms, write_nih_phantoms
from monai_simclr.engines.precision import has_bfloat16
from monai_simclr.evaluation import compare_arms
from monai_simclr.report import collect_runs, write_report
from monai_simclr.runtime.files import write_json, write_text
from monai_simclr.runtime.metrics import plain, print_table
from monai_simclr.workflows.bundle import copy_bundle, run_bundle

_MARK = ".monai-simclr-demo"
_NOTICE = (
    "These are phantoms: radiographs drawn by a program, for trying and testing. "
    "Their numbers say nothing about patients."
)
_SIZE, _WIDTH, _BATCH, _FRACTION = 56, 0.25, 128, 0.1
_ACCURACIES = ("acc_one_to_one", "acc_many_to_one")
_PRINTED = ["fraction", "arm", "draws", "mean", "sd", "difference", "low", "high"]


def run_demo(output_dir: str | Path = "demo", patients: int = 600, epochs: int = 30, draws: int = 5) -> Path:
    """Draw an archive, pretrain, cluster, fine-tune with few labels, predict on DICOM, and write the report.

    Args:
        output_dir: folder to work in; an earlier demo's is replaced, any other folder that is not empty is refused.
        patients: phantom patients, one to four images each.
        epochs: of pretraining.
        draws: of few labels, for each of the two arms.

    Returns:
        Path of the report.

    Raises:
        FileExistsError: if `output_dir` holds something other than a demo.
    """
    started = time.perf_counter()
    folder = Path(output_dir).absolute()
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).is_file():
            raise FileExistsError(f"{folder} is not empty and not a demo of ours; pass -o with another folder")
        shutil.rmtree(folder)
    write_text(folder / _MARK, "made by monai-simclr demo, which replaces this folder when it runs again\n")
    torch.set_num_threads(2)
    with _step("drawing phantoms"):
        write_nih_phantoms(folder / "phantoms", n_patients=patients, size=128, bad_files=3)
        write_dicom_phantoms(folder / "dicom", n_patients=6, size=256)
    bundle = copy_bundle(folder / "bundle", FINDINGS, size=_SIZE, width=_WIDTH)
    archive = {"dataset_dir": str(folder / "phantoms"), "num_workers": 0}
    fast = "bfloat16" if torch.cuda.is_available() or has_bfloat16() else "float32"
    training = {**archive, "precision": fast}
    with _step("pretraining without labels"):
        settings = {"max_epochs": epochs, "batch_size": _BATCH, "learning_rate": 0.002, "strength": "phantom"}
        run_bundle(bundle, "pretrain", **training, **settings)
    with _step("clusters, neighbors and probe, with their baselines"):
        run_bundle(bundle, "cluster", **archive)
    arms = _few_labels(bundle, training, draws)
    with _step("predictions on DICOM"):
        run_bundle(bundle, "inference", dataset_dir=str(folder / "dicom"), num_workers=0)
    report = _report(folder, bundle, arms)
    _log(f"{_NOTICE}\nThe demo took {time.perf_counter() - started:.0f} s. Report: {report}")
    return report


def _few_labels(bundle: Path, training: Mapping[str, Any], draws: int) -> list[dict[str, Any]]:
    """Fine-tune both arms on the same draws, the scratch arm first, so that the pretrained model stays."""
    rows = []
    for arm, pretrained in (("scratch", False), ("pretrained", True)):
        for draw in range(draws):
            with _step(f"fine-tuning with {_FRACTION:.0%} of the labels, {arm}, draw {draw + 1} of {draws}"):
                output = bundle / "output" / "few_label" / f"{arm}_{draw}"
                run_bundle(
                    bundle,
                    "train",
                    **training,
                    pretrained=pretrained,
                    draw=draw,
                    label_fraction=_FRACTION,
                    max_epochs=20,
                    val_interval=20,
                    output_dir=str(output),
                )
            with np.load(output / "scores.npz", allow_pickle=False) as scores:
                rows.append({"arm": arm, "draw": draw, "fraction": _FRACTION, **scores})
    return rows


def _report(folder: Path, bundle: Path, arms: list[dict[str, Any]]) -> Path:
    output = bundle / "output"
    table = compare_arms(arms, reference="scratch")
    few_label = plain(table)
    write_json(output / "few_label" / "comparison.json", few_label)
    last = output / "few_label" / f"pretrained_{max(arm['draw'] for arm in arms)}"
    data = collect_runs([output / "pretrain", output / "cluster", last, output / "inference"])
    values = data.metrics["cluster"]["values"]
    accuracies = {
        f"{features}, {n_clusters} clusters, {name}": measures[name]
        for features, by_number in values["clusters"].items()
        for n_clusters, measures in by_number.items()
        for name in _ACCURACIES
        if measures.get(name, {}).get("value")
    }
    accuracies |= {f"kNN, {features}": row for features, row in values["knn"].items()}
    print_table(
        [
            {
                "what": name,
                "accuracy": row["value"],
                "low": row["low"],
                "high": row["high"],
                "majority": row["majority"],
            }
            for name, row in accuracies.items()
        ],
        title="What the encoder learned, on held-out phantom patients",
    )
    print_table(table[_PRINTED], title=f"AUROC with {_FRACTION:.0%} of the train patients' labels")
    commands = [
        f"python -m monai.bundle run --config_file configs/{name}.json --dataset_dir {folder.resolve() / archive}"
        for name, archive in {
            "pretrain": "phantoms",
            "cluster": "phantoms",
            "train": "phantoms",
            "inference": "dicom",
        }.items()
    ]
    metrics = {**data.metrics, "few_label": {"values": {"few_label": few_label}}}
    data = dataclasses.replace(data, metrics=metrics, study=few_label, commands=commands)
    return write_report(folder / "report.html", title="monai-simclr: demo on chest phantoms", notice=_NOTICE, data=data)


@contextmanager
def _step(name: str) -> Iterator[None]:
    started = time.perf_counter()
    _log(f"... {name}")
    yield
    _log(f"    {time.perf_counter() - started:.0f} s")


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
