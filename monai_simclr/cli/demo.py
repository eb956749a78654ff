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
from monai_simclr.report import collect_runs, write_report
from monai_simclr.runtime.files import write_json, write_text
from monai_simclr.runtime.metrics import plain
from monai_simclr.runtime.progress import make_bar
from monai_simclr.workflows.bundle import copy_bundle, run_bundle

if TYPE_CHECKING:
    import rich.progress

_MARK = ".monai-simclr-demo"
NOTICE = (
    "These are phantoms: radiographs drawn by a program, for trying and testing. "
    "Their numbers say nothing about patients."
)
_SIZE, _WIDTH, _BATCH, _FRACTION = 56, 0.25, 128, 0.1
_FINE_TUNING = 20
"""Epochs of each fine-tuning."""
_EPOCH = re.compile(r"epoch (\d+)/(\d+)")


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demo found.

    Attributes:
        rows: five: `what, value, low, high, compared` (what the value is compared with, in words).
        report: path of the report.
    """

    rows: list[dict[str, Any]]
    report: Path


def run_demo(output_dir: str | Path = "demo", patients: int = 600, epochs: int = 30, draws: int = 5) -> Demo:
    """Draw an archive, pretrain, cluster, fine-tune with few labels, predict on DICOM, and write the report.

    What the bundle commands print goes to ``log.txt``; a bar with the time left, or a line per step where stderr is not
    a terminal, shows how far it is.

    Args:
        output_dir: folder to work in; an earlier demo's is replaced, any other folder that is not empty is refused.
        patients: phantom patients, one to four images each.
        epochs: of pretraining.
        draws: of few labels, for each of the two arms.

    Raises:
        FileExistsError: if `output_dir` holds something other than a demo.
    """
    folder = Path(output_dir).absolute()
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).is_file():
            raise FileExistsError(f"{folder} is not empty and not a demo of ours; pass -o with another folder")
        shutil.rmtree(folder)
    write_text(folder / _MARK, "made by monai-simclr demo, which replaces this folder when it runs again\n")
    torch.set_num_threads(2)
    # what the steps cost, in views that pass through training; from the seconds they took with 600 and 120 patients
    cost = {"phantoms": 2 * patients, "pretrain": 4 * patients * epochs, "cluster": 1200, "train": 300}
    with _steps(folder / "log.txt", sum(cost.values()) + (2 * draws - 1) * cost["train"]) as step:
        with step("drawing phantoms", cost["phantoms"]):
            write_nih_phantoms(folder / "phantoms", n_patients=patients, size=128, bad_files=3)
            write_dicom_phantoms(folder / "dicom", n_patients=6, size=256)
        bundle = copy_bundle(folder / "bundle", FINDINGS, size=_SIZE, width=_WIDTH)
        archive = {"dataset_dir": str(folder / "phantoms"), "num_workers": 0}
        with step("pretraining without labels", cost["pretrain"]):
            settings = {"max_epochs": epochs, "batch_size": _BATCH, "learning_rate": 0.002, "strength": "phantom"}
            run_bundle(bundle, "pretrain", **archive, **settings)
        with step("clusters, neighbors and probe, with their baselines", cost["cluster"]):
            run_bundle(bundle, "cluster", **archive)
        arms = []
        for arm in ("scratch", "pretrained"):  # the scratch arm first, so that the pretrained model stays
            for draw in range(draws):
                name = f"fine-tuning with {_FRACTION:.0%} of the labels, {arm}, draw {draw + 1} of {draws}"
                with step(name, cost["train"]):
                    arms.append(_fine_tune(bundle, archive, arm, draw))
        with step("predictions on DICOM, and the report", 0):
            run_bundle(bundle, "inference", dataset_dir=str(folder / "dicom"), num_workers=0)
            return _report(folder, bundle, arms)


def _fine_tune(bundle: Path, archive: Mapping[str, Any], arm: str, draw: int) -> dict[str, Any]:
    output = bundle / "output" / "few_label" / f"{arm}_{draw}"
    run_bundle(
        bundle,
        "train",
        **archive,
        pretrained=arm == "pretrained",
        draw=draw,
        label_fraction=_FRACTION,
        max_epochs=_FINE_TUNING,
        val_interval=_FINE_TUNING,
        output_dir=str(output),
    )
    with np.load(output / "scores.npz", allow_pickle=False) as scores:
        return {"arm": arm, "draw": draw, "fraction": _FRACTION, **scores}


def _report(folder: Path, bundle: Path, arms: list[dict[str, Any]]) -> Demo:
    output = bundle / "output"
    few_label = plain(compare_arms(arms, reference="scratch"))
    write_json(output / "few_label" / "comparison.json", few_label)
    last = output / "few_label" / f"pretrained_{max(arm['draw'] for arm in arms)}"
    data = collect_runs([output / "pretrain", output / "cluster", last, output / "inference"])
    rows = _five_rows(data.metrics["cluster"]["values"], few_label)
    metrics = {**data.metrics, "few_label": {"values": {"few_label": few_label}}}
    data = dataclasses.replace(data, metrics=metrics, study=few_label)
    page = folder / "report.html"
    return Demo(rows, write_report(page, title="monai-simclr: demo on chest phantoms", notice=NOTICE, data=data))


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
            "low": pretrained["low"],
            "high": pretrained["high"],
            "compared": f"no gain 0.000; {pretrained['draws']} draws",
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
