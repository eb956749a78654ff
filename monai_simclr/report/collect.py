"""The data of a report, and how it is collected from the folders of runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.data import open_store
from monai_simclr.evaluation import Embeddings, Predictions
from monai_simclr.report.html import Table
from monai_simclr.runtime.artefacts import read_arrays, read_json, reading
from monai_simclr.runtime.metrics import METRICS_FILE, read_metrics
from monai_simclr.runtime.tables import read_table, unescaped_text

_AGAIN = "run the command that writes it again, or leave its folder out"


@dataclass(frozen=True)
class ReportData:
    """Everything that a report can show; a section without its data says so.

    Attributes:
        metrics: what `read_metrics` returned, by name of the run, the oldest first.
        scored, clustered: names of the runs whose scores, and whose embeddings and clusters, these are; "" for the last
            one of its kind.
        embeddings: of N images.
        clusters: of the same images, shape ``(N,)``.
        thumbnails: of the same images, uint8 ``(N, h, w)``.
        history: one mapping per epoch of pretraining.
        study: rows of `compare_arms`, and `gain` those of `few_label_gain`.
        scores: the table of `score_table`.
        subgroups: the table of `score_subgroups`.
        test: predictions on test patients, and `val` on validation patients.
        commands: that produced the results.
        tables: further ones for the summary.

    Raises:
        ValueError: if clusters or thumbnails are of other images than the embeddings.
    """

    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scored: str = ""
    clustered: str = ""
    embeddings: Embeddings | None = None
    clusters: np.ndarray | None = None
    thumbnails: np.ndarray | None = None
    history: Sequence[Mapping[str, Any]] = ()
    study: Sequence[Mapping[str, Any]] = ()
    gain: Sequence[Mapping[str, Any]] = ()
    scores: pd.DataFrame | None = None
    subgroups: pd.DataFrame | None = None
    test: Predictions | None = None
    val: Predictions | None = None
    commands: Sequence[str] = ()
    tables: Sequence[Table] = ()

    def of_run(self, name: str, *commands: str) -> Mapping[str, Any]:
        """Metrics of a run by its name, or of the last one of some commands; empty where there is none."""
        last = [key for key in self.metrics if key.partition(" ")[0] in commands]
        return self.metrics.get(name or (last or [""])[-1], {})

    def __post_init__(self) -> None:
        images = 0 if self.embeddings is None else len(self.embeddings)
        for name, values in {"clusters": self.clusters, "thumbnails": self.thumbnails}.items():
            if values is not None and len(values) != images:
                raise ValueError(
                    f"{len(values)} {name} do not go with {images} embeddings; pass the same images in one order"
                )


def collect_runs(runs: Sequence[str | Path], store: str | Path | None = None) -> ReportData:
    """Read what runs of the bundle and studies have written; of several runs of one kind the last is shown.

    Args:
        runs: folders with a ``metrics.json``, or folders of such folders (a bundle's ``output``).
        store: the image store, for contact sheets; by default it is looked for in the bundle's ``cache``.

    Raises:
        FileNotFoundError: if a folder has no run in it.
    """
    folders: list[Path] = []
    for run in map(Path, runs):
        inside = [run] if (run / METRICS_FILE).is_file() else sorted(p.parent for p in run.glob(f"*/{METRICS_FILE}"))
        if not inside:
            raise FileNotFoundError(f"{run} has no {METRICS_FILE}, nor has a folder in it; name the folder of a run")
        folders += inside
    fields: dict[str, Any] = {"metrics": {}, "commands": []}
    for metrics, folder in sorted(((read_metrics(it), it) for it in folders), key=lambda run: str(run[0]["created"])):
        command = metrics["command"]
        name = f"{command} ({folder.name})" if command in fields["metrics"] else command
        fields["metrics"][name] = metrics
        fields["commands"] += _bundle_command(folder, command)
        if command == "pretrain":
            fields |= _read_history(folder / "history.json")
        elif command == "cluster" and (folder / "embeddings.npz").is_file():
            fields |= {"clustered": name, **_read_clusters(folder, metrics, store)}
        elif command in ("train", "evaluate"):
            if read := _read_scores(folder):
                fields |= {"scored": name, **dict.fromkeys(("scores", "subgroups", "test", "val")), **read}
        elif command == "study":
            with reading(folder / METRICS_FILE, "metrics of a study", _AGAIN):
                fields["study"] = metrics["values"]["few_label"]
                fields["gain"] = metrics["values"].get("few_label_gain", [])
    return ReportData(**fields)


def _read_history(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    history = read_json(path, "the history of pretraining", _AGAIN, kind=list)
    with reading(path, "the history of pretraining", _AGAIN):
        if not all(isinstance(row, dict) and isinstance(row.get("epoch", 0), int | float) for row in history):
            raise ValueError("its entries are not mappings with the number of an epoch")
    return {"history": history}


def _read_clusters(folder: Path, metrics: Mapping[str, Any], store: str | Path | None) -> dict[str, Any]:
    """Embeddings, the clusters of the largest number of them, and thumbnails where a store of the images is found."""
    embeddings = Embeddings.load(folder / "embeddings.npz")
    with reading(folder / METRICS_FILE, "metrics of clusters", _AGAIN):
        largest = max(int(n_clusters) for n_clusters in metrics["values"]["clusters"]["encoder"])
    with reading(folder / "clusters.csv", "a table of clusters", _AGAIN):
        clusters = read_table(folder / "clusters.csv")[f"cluster_of_{largest}"].astype(int).to_numpy()
        if len(clusters) != len(embeddings):
            raise ValueError(f"its {len(clusters)} rows do not go with {len(embeddings)} embeddings")
    fields = {"embeddings": embeddings, "clusters": clusters, "thumbnails": None}
    names = [Path(name).name for name in embeddings.index["image"].astype(str)]
    for place in [Path(store)] if store else sorted((folder.parent.parent / "cache").glob("*")):
        if (place / "images.npy").is_file() and (place / "index.csv").is_file():
            cached = open_store(place)
            if [Path(name).name for name in cached.index["image"]] == names:
                return {**fields, "thumbnails": cached.images}
    return fields


def _read_scores(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, column in {"scores": "score", "subgroups": "group"}.items():
        path = folder / f"{key}.csv"
        if path.is_file() and path.stat().st_size > 2:
            with reading(path, "a table of scores", _AGAIN):
                fields[key] = unescaped_text(pd.read_csv(path, keep_default_na=False, na_values=[""]))
                if column not in fields[key].columns:
                    raise ValueError(f"it has the columns {list(fields[key].columns)}")
    path = folder / "scores.npz"
    if path.exists():
        arrays = read_arrays(path, "scores", _AGAIN, ["scores", "labels", "patients", "findings"])
        with reading(path, "scores", _AGAIN):
            names = arrays["findings"].tolist()
            fields["test"] = Predictions(arrays["labels"], arrays["scores"], arrays["patients"], names)
            if "val_scores" in arrays and len(arrays["val_scores"]):
                fields["val"] = Predictions(arrays["val_labels"], arrays["val_scores"], arrays["val_patients"], names)
    return fields


def _bundle_command(folder: Path, command: str) -> list[str]:
    """The bundle command of a run, with the settings of the executed config that are plain values."""
    path = folder / "config.json"
    if not path.is_file():
        return []
    settings = " ".join(
        f"--{key} {shlex.quote(str(value))}"
        for key, value in read_json(path, "the executed config of a run", _AGAIN).items()
        if isinstance(value, str | int | float | bool)
        and value != ""
        and not str(value).startswith(("$", "@"))
        and not key.startswith("_")
        and key != "bundle_root"
    )
    config = "['configs/train.json','configs/evaluate.json']" if command == "evaluate" else f"configs/{command}.json"
    return [f"python -m monai.bundle run --config_file {shlex.quote(config)} {settings}".rstrip()]
