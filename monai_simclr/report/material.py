"""What a report is made of, and how it is found in the folders of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.evaluation import Embeddings, Predictions
from monai_simclr.runtime.artefacts import read_arrays, read_json, reading
from monai_simclr.runtime.metrics import METRICS_FILE, read_metrics
from monai_simclr.runtime.tables import read_table, unescaped_text

_AGAIN = "run the command that writes it again, or leave its folder out"


@dataclass(frozen=True)
class ReportData:
    """Everything a report can show; what is not there has a section that says so.

    Attributes:
        metrics: what `read_metrics` gave, by name of the run.
        embeddings: of N images.
        clusters: of the same images, shape ``(N,)``.
        thumbnails: of the same images, uint8 ``(N, h, w)``.
        history: one mapping an epoch of pretraining.
        study: rows of `compare_arms`.
        card: the table of `score_table`.
        subgroups: the table of `score_subgroups`.
        test: predictions on test patients, and `val` on validation patients.
        commands: that made the results.

    Raises:
        ValueError: if clusters or thumbnails do not go with the embeddings, or come without.
    """

    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    embeddings: Embeddings | None = None
    clusters: np.ndarray | None = None
    thumbnails: np.ndarray | None = None
    history: Sequence[Mapping[str, Any]] = ()
    study: Sequence[Mapping[str, Any]] = ()
    card: pd.DataFrame | None = None
    subgroups: pd.DataFrame | None = None
    test: Predictions | None = None
    val: Predictions | None = None
    commands: Sequence[str] = ()

    def __post_init__(self) -> None:
        images = 0 if self.embeddings is None else len(self.embeddings)
        for name, values in {"clusters": self.clusters, "thumbnails": self.thumbnails}.items():
            if values is not None and len(values) != images:
                raise ValueError(
                    f"{len(values)} {name} do not go with {images} embeddings; pass the same images in one order"
                )


def collect_runs(runs: Sequence[str | Path], store: str | Path | None = None) -> ReportData:
    """Read what runs of the bundle and studies have left.

    Args:
        runs: folders with a ``metrics.json``, or folders of such folders (a bundle's ``output``).
        store: the image store, for contact sheets; looked for in the bundle's ``cache`` when it is not given.

    Raises:
        FileNotFoundError: if a folder has no run in it.
    """
    folders = [folder for run in runs for folder in _runs_in(Path(run))]
    found: dict[str, Any] = {"metrics": {}, "commands": []}
    for folder in folders:
        metrics = read_metrics(folder)
        name = (
            metrics["command"]
            if metrics["command"] not in found["metrics"]
            else f"{metrics['command']} ({folder.name})"
        )
        found["metrics"][name] = metrics
        found["commands"] += _command(folder, metrics["command"])
        _READ.get(metrics["command"], _nothing)(folder, found)
    if found.get("embeddings") is not None:
        cluster_folder = next(folder for folder in folders if (folder / "embeddings.npz").is_file())
        found["thumbnails"] = _thumbnails(cluster_folder, found["embeddings"], store)
    return ReportData(**found)


def _runs_in(folder: Path) -> list[Path]:
    if (folder / METRICS_FILE).is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.glob(f"*/{METRICS_FILE}")) if folder.is_dir() else []
    if not inside:
        raise FileNotFoundError(f"{folder} has no {METRICS_FILE}, nor has a folder in it; name the folder of a run")
    return inside


def _read_pretraining(folder: Path, found: dict[str, Any]) -> None:
    if (folder / "history.json").is_file():
        found["history"] = read_json(folder / "history.json", "the history of pretraining", _AGAIN, kind=list)
        with reading(folder / "history.json", "the history of pretraining", _AGAIN):
            _check_history(found["history"])


def _read_clusters(folder: Path, found: dict[str, Any]) -> None:
    if not (folder / "embeddings.npz").is_file():
        return
    found["embeddings"] = Embeddings.load(folder / "embeddings.npz")
    with reading(folder / "clusters.csv", "a table of clusters", _AGAIN):
        table = read_table(folder / "clusters.csv")
        largest = max(
            (str(name) for name in table.columns if str(name).startswith("cluster_of_")),
            key=lambda name: int(name.split("_")[-1]),
        )
        found["clusters"] = table[largest].astype(int).to_numpy()
        if len(table) != len(found["embeddings"]):
            raise ValueError(f"its {len(table)} rows do not go with {len(found['embeddings'])} embeddings")


def _read_scores(folder: Path, found: dict[str, Any]) -> None:
    for key, name in {"card": "scores.csv", "subgroups": "subgroups.csv"}.items():
        if (folder / name).is_file() and (folder / name).stat().st_size > 2:
            with reading(folder / name, "a table of scores", _AGAIN):
                found[key] = unescaped_text(pd.read_csv(folder / name))
                if "score" not in found[key].columns and "group" not in found[key].columns:
                    raise ValueError(f"it has the columns {list(found[key].columns)}")
    path = folder / "scores.npz"
    if path.exists():
        arrays = read_arrays(path, "scores", _AGAIN, ["scores", "labels", "patients", "findings"])
        with reading(path, "scores", _AGAIN):
            names = arrays["findings"].tolist()
            found["test"] = Predictions(arrays["labels"], arrays["scores"], arrays["patients"], names)
            if "val_scores" in arrays and len(arrays["val_scores"]):
                found["val"] = Predictions(arrays["val_labels"], arrays["val_scores"], arrays["val_patients"], names)


def _read_study(folder: Path, found: dict[str, Any]) -> None:
    with reading(folder / METRICS_FILE, "metrics of a study", _AGAIN):
        found["study"] = read_metrics(folder)["values"]["few_label"]


def _check_history(history: Sequence[Any]) -> None:
    if not all(isinstance(row, dict) and isinstance(row.get("epoch", 0), int | float) for row in history):
        raise ValueError("its entries are not mappings with the number of an epoch")


def _nothing(folder: Path, found: dict[str, Any]) -> None:
    pass


_READ = {
    "pretrain": _read_pretraining,
    "cluster": _read_clusters,
    "train": _read_scores,
    "evaluate": _read_scores,
    "study": _read_study,
}


def _command(folder: Path, command: str) -> list[str]:
    """The bundle command, with the settings of the executed config that are plain values."""
    path = folder / "config.json"
    if not path.is_file():
        return []
    config = read_json(path, "the executed config of a run", _AGAIN)
    plain = {
        key: value
        for key, value in config.items()
        if isinstance(value, str | int | float | bool)
        and not str(value).startswith(("$", "@"))
        and key[0] != "_"
        and key != "bundle_root"
    }
    name = "['configs/train.json','configs/evaluate.json']" if command == "evaluate" else f"configs/{command}.json"
    settings = " ".join(f"--{key} {value}" for key, value in plain.items())
    return [f'python -m monai.bundle run --config_file "{name}" {settings}'.rstrip()]


def _thumbnails(folder: Path, embeddings: Embeddings, store: str | Path | None) -> np.ndarray | None:
    """Stored images of the embeddings' rows, where a store with exactly these images is found."""
    places = [Path(store)] if store else sorted((folder.parent.parent / "cache").glob("*"))
    for place in places:
        if (place / "images.npy").is_file() and (place / "index.csv").is_file():
            with reading(place, "an image store", "build it again with monai-simclr store --rebuild"):
                images = np.load(place / "images.npy", mmap_mode="r", allow_pickle=False)
                names = read_table(place / "index.csv")["image"].map(_file_name)
            mine = embeddings.index["image"].astype(str).map(_file_name)
            if len(images) == len(embeddings) and names.tolist() == mine.tolist():
                return images
    return None


def _file_name(path: str) -> str:
    return Path(path).name
