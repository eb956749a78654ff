"""An archive read with uncertain='smoothed' goes through every command: a loss uses 0.7, nothing else counts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monai.bundle import run
from typer.testing import CliRunner

from monai_simclr.cli.app import app
from monai_simclr.data import open_index, read_index, write_index
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.runtime.metrics import read_metrics
from monai_simclr.workflows.bundle import copy_bundle, run_bundle

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns that configs are code
FINDINGS = ["Cardiomegaly", "Effusion"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of the train labels is smoothed, some to 0.7 and some to 0.3; then every command runs."""
    folder = tmp_path_factory.mktemp("smoothed")
    index = open_index(write_nih_phantoms(folder / "phantoms", n_patients=60, size=64))
    train = (index["split"] == "train").to_numpy() & (np.arange(len(index)) % 3 == 0)
    soft = index.assign(**{name: index[name].mask(train, 0.4 * index[name] + 0.3) for name in FINDINGS})
    write_index(soft, folder / "phantoms" / "smoothed.csv")
    bundle = copy_bundle(folder / "bundle", FINDINGS, size=32, encoder="resnet10", width=0.125)
    given = {"dataset_dir": str(folder / "phantoms" / "smoothed.csv"), "num_workers": 0, "precision": "float32"}
    small = {"max_epochs": 1, "batch_size": 16}
    run_bundle(bundle, "pretrain", **given, **small, probe_interval=1)
    quick = {"n_bootstrap": 10, "n_seeds": 1, "method": "kmeans", "remove": []}
    run_bundle(bundle, "cluster", **quick, **{k: v for k, v in given.items() if k != "precision"})
    few = {"label_fraction": 1.0, "n_bootstrap": 10}
    for balance in ("class_weights", "balanced_sampling"):
        run_bundle(bundle, "train", **given, **small, **few, balance=balance)
    files = [str(bundle / "configs" / f"{name}.json") for name in ("train", "evaluate")]
    run(
        config_file=files,
        bundle_root=str(bundle),
        n_bootstrap=10,
        evaluation_split="train",
        allow_seen_patients=True,
        **given,
    )
    archive, embedded = given["dataset_dir"], str(bundle / "output" / "cluster" / "embeddings.npz")
    first = str(index["image"][0])
    for command in (
        [
            "study",
            str(bundle),
            "--dataset-dir",
            archive,
            "-o",
            str(folder / "study"),
            "--fractions",
            "50,100",
            "--draws",
            "1",
            "--iterations",
            "2",
            "--set",
            "precision=float32",
        ],
        ["select", embedded, "--budget", "5", "-o", str(folder / "worklist.csv")],
        ["similar", embedded, Path(first).name],
        ["audit", archive, "-o", str(folder / "audit")],
        ["report", str(bundle / "output"), "-o", str(folder / "report.html")],
    ):
        said = CliRunner().invoke(app, command)
        assert said.exit_code == 0, (command[0], said.output)
    return folder


def test_every_command_runs_and_counts_plain_labels_only(done):
    index = read_index(done / "phantoms" / "smoothed.csv")
    assert set(np.unique(index[FINDINGS])) == {0.0, 0.3, 0.7, 1.0}
    output = done / "bundle" / "output"
    metrics = {name: read_metrics(output / name) for name in ("pretrain", "cluster", "train", "evaluate")}
    plain = index[index["split"] == "train"][FINDINGS].isin([0, 1]).sum()
    for name in FINDINGS:
        assert metrics["evaluate"]["values"]["findings"][name]["n"] == plain[name]
        assert metrics["cluster"]["values"]["probe_findings"][name]["auroc"] is not None
    errors = pd.read_csv(output / "cluster" / "label_errors.csv")
    assert set(errors["label"]) <= {0.0, 1.0}
    baseline = {row["finding"]: row for row in metrics["train"]["baselines"]["confounder_baseline"]}
    assert all(baseline[name]["baseline"] != 0.5 for name in FINDINGS)
