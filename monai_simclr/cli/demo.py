"""The whole workflow on phantoms, through the same bundle commands that a hospital's archive goes through."""

from __future__ import annotations

import dataclasses
import io
import logging
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import torch

from monai_simclr.data.phantoms import FINDINGS, write_dicom_phantoms, write_nih_phantoms
from monai_simclr.evaluation import compare_arms
from monai_simclr.networks import encoder_header, patients_records
from monai_simclr.report import collect_runs, write_report
from monai_simclr.report.html import Table
from monai_simclr.runtime.files import write_json, write_text
from monai_simclr.runtime.metrics import plain, read_metrics
from monai_simclr.runtime.progress import make_bar
from monai_simclr.workflows.bundle import copy_bundle, run_bundle

if TYPE_CHECKING:
    import rich.progress

_MARK = ".monai-simclr-demo"
NOTICE = (
    "These are phantoms: radiographs drawn by a program, for trying and testing. "
    "Their numbers say nothing about patients."
)
SHIPPED = "chest_xray_resnet18"
"""The encoder of real radiographs that comes with the package."""
_ENCODERS = {
    "scratch": "random weights",
    "shipped": f"{SHIPPED} as it comes",
    "random_start": "random weights, then phantoms",
    "pretrained": f"{SHIPPED}, then phantoms",
}
"""What fine-tuning starts from, by arm; without ``--pretrained`` there are the first and the last arm."""
_SIZE, _WIDTH, _BATCH, _FRACTION = 56, 0.25, 128, 0.1
ENCODERS_TITLE = "What the start from real radiographs changes, on held-out phantom patients, with 95 % intervals"
_FINE_TUNING = 20
"""Epochs of each fine-tuning."""
_EPOCH = re.compile(r"epoch (\d+)/(\d+)")


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demo found.

    Attributes:
        rows: five: `what, value, low, high, compared` (what the value is compared with, in words).
        encoders: where pretraining started from the shipped encoder, what that changes: a row of values with their
            intervals for it and for random weights, before and after pretraining on phantoms; else empty.
        notice: what the numbers are not evidence for, and what pretraining started from.
        report: path of the report.
    """

    rows: list[dict[str, Any]]
    encoders: list[dict[str, str]]
    notice: str
    report: Path


def run_demo(
    output_dir: str | Path = "demo", patients: int = 600, epochs: int = 30, draws: int = 5, pretrained: bool = False
) -> Demo:
    """Draw an archive, pretrain, cluster, fine-tune with few labels, predict on DICOM, and write the report.

    What the bundle commands print goes to ``log.txt``; a bar with the time left, or a line per step where stderr is not
    a terminal, shows how far it is.

    Args:
        output_dir: folder to work in; an earlier demo's is replaced, any other folder that is not empty is refused.
        patients: phantom patients, one to four images each.
        epochs: of pretraining.
        draws: of few labels, for each arm.
        pretrained: start pretraining from the shipped encoder, and compare that with the same network from random
            weights, each before and after pretraining on the phantoms.

    Raises:
        FileExistsError: if `output_dir` holds something other than a demo.
        FileNotFoundError: if `pretrained`, and the package was installed without its weights.
    """
    notice = f"{NOTICE} {_about_shipped()}" if pretrained else NOTICE
    folder = Path(output_dir).absolute()
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).is_file():
            raise FileExistsError(f"{folder} is not empty and not a demo of ours; pass -o with another folder")
        shutil.rmtree(folder)
    write_text(folder / _MARK, "made by monai-simclr demo, which replaces this folder when it runs again\n")
    arms = list(_ENCODERS) if pretrained else ["scratch", "pretrained"]
    # what the steps cost, in views that pass through training; from the CPU seconds that they took with 600 patients
    wide = 2 if pretrained else 1  # twice the channels
    cost = {"phantoms": 25 * patients, "pretrain": wide * 4 * patients * epochs}
    cost |= {"cluster": 20_000 + 45 * patients, "train": wide * 5000}
    n = {"phantoms": 1, "pretrain": len(arms) // 2, "cluster": len(arms) - 1, "train": len(arms) * draws}
    with _two_threads(), _steps(folder / "log.txt", sum(n[name] * cost[name] for name in n)) as step:
        with step("drawing phantoms", cost["phantoms"]):
            write_nih_phantoms(folder / "phantoms", n_patients=patients, size=128, bad_files=3)
            write_dicom_phantoms(folder / "dicom", n_patients=6, size=256)
        bundle = copy_bundle(folder / "bundle", FINDINGS, size=_SIZE, width=None if pretrained else _WIDTH)
        archive = {"dataset_dir": str(folder / "phantoms"), "num_workers": 0}
        for arm in arms[1:]:
            which = f", {_ENCODERS[arm]}" if pretrained else ""
            if arm != "shipped":
                settings = {"max_epochs": epochs, "batch_size": _BATCH, "learning_rate": 0.002, "strength": "phantom"}
                start = {"start_from": SHIPPED} if pretrained and arm == "pretrained" else {}
                with step(f"pretraining without labels{which}", cost["pretrain"]):
                    run_bundle(bundle, "pretrain", **archive, **settings, **start, **_places(bundle, "pretrain", arm))
            with step(f"clusters, neighbors and probe, with their baselines{which}", cost["cluster"]):
                run_bundle(bundle, "cluster", **archive, **_places(bundle, "cluster", arm))
        runs = []
        for arm in arms:  # the pretrained arm last, so that its model stays
            for draw in range(draws):
                name = f"fine-tuning with {_FRACTION:.0%} of the labels, {arm}, draw {draw + 1} of {draws}"
                with step(name, cost["train"]):
                    runs.append(_fine_tune(bundle, archive, arm, draw))
        with step("predictions on DICOM, and the report", 0):
            run_bundle(bundle, "inference", dataset_dir=str(folder / "dicom"), num_workers=0)
            return _report(folder, bundle, runs, notice)


@contextmanager
def _two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _about_shipped() -> str:
    header = encoder_header(SHIPPED)
    records = patients_records(header)
    unnamed = sum(record.unnamed for record in records)
    patients = sum(len(record.hashes) for record in records) - unnamed
    return (
        f"Pretraining started from {SHIPPED}, the {header['name']} of width {header['width']} that comes with the "
        f"package, pretrained at {header['size']} px on real radiographs of {patients:,} patients and {unnamed:,} "
        f"whose patients have no name: {header['data']}. "
        f"Here it gets {_SIZE} px. Its card is bundle/docs/README.md."
    )


def _places(bundle: Path, command: str, arm: str) -> dict[str, str]:
    """Settings for an arm's encoder and its results; the pretrained arm has the bundle's own places."""
    if arm == "pretrained":
        return {}
    encoder = SHIPPED if arm == "shipped" else str(bundle / "models" / f"{arm}.safetensors")
    return {"encoder_path": encoder, "output_dir": str(bundle / "output" / f"{command}_{arm}")}


def _fine_tune(bundle: Path, archive: Mapping[str, Any], arm: str, draw: int) -> dict[str, Any]:
    output = bundle / "output" / "few_label" / f"{arm}_{draw}"
    run_bundle(
        bundle,
        "train",
        **archive,
        **_places(bundle, "train", arm) | {"output_dir": str(output)},
        pretrained=arm != "scratch",
        draw=draw,
        label_fraction=_FRACTION,
        max_epochs=_FINE_TUNING,
        val_interval=_FINE_TUNING,
    )
    with np.load(output / "scores.npz", allow_pickle=False) as scores:
        return {"arm": arm, "draw": draw, "fraction": _FRACTION, **scores}


def _report(folder: Path, bundle: Path, runs: list[dict[str, Any]], notice: str) -> Demo:
    output = bundle / "output"
    few_label = plain(compare_arms(runs, reference="scratch"))
    last = output / "few_label" / f"pretrained_{max(run['draw'] for run in runs)}"
    data = collect_runs([output / "pretrain", output / "cluster", last, output / "inference"])
    rows = _five_rows(data.metrics["cluster"]["values"], few_label)
    others = [path for command in ("pretrain", "cluster") for path in sorted(output.glob(f"{command}_*"))]
    metrics = {
        **data.metrics,
        **{path.name.replace("_", ", ", 1).replace("_", " "): read_metrics(path) for path in others},
    }
    encoders: list[dict[str, str]] = []
    if others:
        encoders = _by_encoder(metrics, few_label)
        started = [run for run in runs if run["arm"] in ("random_start", "pretrained")]
        own = plain(compare_arms(started, reference="random_start"))[1] | {"reference": "random_start"}
        few_label.append(own)
        notice += (
            f" After pretraining on phantoms, this start instead of random weights changes the AUROC with "
            f"{_FRACTION:.0%} of the labels by {own['difference']:+.3f} [{own['low_draws']:.3f}, "
            f"{own['high_draws']:.3f}]."
        )
        cells = [list(row.values()) for row in encoders]
        data = dataclasses.replace(data, tables=[Table(ENCODERS_TITLE, list(encoders[0]), cells)])
    write_json(output / "few_label" / "comparison.json", few_label)
    metrics["few_label"] = {"values": {"few_label": few_label}}
    data = dataclasses.replace(data, metrics=metrics, study=few_label)
    page = write_report(folder / "report.html", title="monai-simclr: demo on chest phantoms", notice=notice, data=data)
    return Demo(rows, encoders, notice, page)


def _by_encoder(metrics: Mapping[str, Any], few_label: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A row for what fine-tuning of each arm starts from: clusters and neighbors before it, AUROC after it."""
    rows, arms = [], {row["arm"]: row for row in few_label}
    for arm, encoder in _ENCODERS.items():
        own = arm not in ("scratch", "pretrained")  # these two are in the bundle's own clustering
        clustered = metrics[f"cluster, {arm.replace('_', ' ')}" if own else "cluster"]["values"]
        features = "random encoder" if arm == "scratch" else "encoder"
        number, clusters = next(iter(clustered["clusters"][features].items()))  # as many clusters as classes
        auroc = {name: arms[arm][key] for name, key in (("value", "mean"), ("low", "mean_low"), ("high", "mean_high"))}
        values = {
            f"accuracy of {number} clusters": clusters["acc_one_to_one"],
            "accuracy of nearest neighbors": clustered["knn"][features],
            f"AUROC with {_FRACTION:.0%} of the labels": auroc,
        }
        cells = {name: f"{it['value']:.3f} [{it['low']:.3f}, {it['high']:.3f}]" for name, it in values.items()}
        rows.append({"encoder": encoder, **cells})
    return rows


def _five_rows(clustered: Mapping[str, Any], few_label: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the encoder learned without labels, and what that is worth with few: five rows for a terminal."""
    by_features = clustered["clusters"]
    number = next(iter(by_features["encoder"]))  # as many clusters as classes
    one_to_one = {name: rows[number]["acc_one_to_one"] for name, rows in by_features.items()}
    arms = {row["arm"]: row for row in few_label}
    scratch, pretrained = arms["scratch"], arms["pretrained"]

    def accuracy(what: str, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        own = rows["encoder"]
        other, best = max(((name, rows[name]["value"]) for name in rows if name != "encoder"), key=lambda pair: pair[1])
        compared = f"{other} {best:.3f}, most frequent class {own['majority']:.3f}"
        return {"what": what, "value": own["value"], "low": own["low"], "high": own["high"], "compared": compared}

    def auroc(what: str, row: Mapping[str, Any], compared: str) -> dict[str, Any]:
        return {
            "what": what,
            "value": row["mean"],
            "low": row["mean_low"],
            "high": row["mean_high"],
            "compared": compared,
        }

    share = f"{_FRACTION:.0%} of the labels"
    return [
        accuracy(f"accuracy of {number} clusters", one_to_one),
        accuracy("accuracy of nearest neighbors", clustered["knn"]),
        auroc(f"AUROC with {share}, from scratch", scratch, "chance 0.500"),
        auroc(f"AUROC with {share}, pretrained", pretrained, f"from scratch {scratch['mean']:.3f}"),
        {
            "what": "difference by pretraining",
            "value": pretrained["difference"],
            "low": pretrained["low_draws"],
            "high": pretrained["high_draws"],
            "compared": f"no gain 0.000; over patients and {pretrained['draws']} draws",
        },
    ]


class _Log(io.TextIOBase):
    """A log file that tells a bar how many epochs of the current step are done."""

    def __init__(self, file: TextIO, bar: rich.progress.Progress) -> None:
        self.file, self.bar, self.task = file, bar, bar.add_task("", total=None)
        self.done, self.cost = 0.0, 0.0

    def write(self, text: str) -> int:
        """Write to the file; a line "epoch 3/30" moves the bar."""
        if epochs := _EPOCH.search(text):
            self.bar.update(self.task, completed=self.done + self.cost * int(epochs[1]) / int(epochs[2]))
        return self.file.write(text)

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()


@contextmanager
def _steps(path: Path, total: float) -> Iterator[Any]:
    """Send what is printed and logged to a file, and show the steps of the work on stderr: a bar, or a line each."""
    terminal, started = sys.stderr, time.perf_counter()
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file, make_bar(counts=False) as bar:
        log = _Log(file, bar)
        bar.update(log.task, total=total)

        @contextmanager
        def step(name: str, cost: float) -> Iterator[None]:
            log.cost = cost
            bar.update(log.task, description=name)
            if not terminal.isatty():
                print(f"{time.perf_counter() - started:4.0f} s  {name}", file=terminal, flush=True)
            yield
            log.done += cost
            bar.update(log.task, completed=log.done)

        try:
            with redirect_stdout(log), redirect_stderr(log):
                yield step
        finally:
            _forget_handlers(log)


def _forget_handlers(stream: TextIO | io.TextIOBase) -> None:
    """Take the handlers off that MONAI made for a stream: it is about to be closed."""
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.Logger.manager.loggerDict))]
    for logger in loggers:
        for handler in list(logger.handlers):
            if getattr(handler, "stream", None) is stream:
                logger.removeHandler(handler)
