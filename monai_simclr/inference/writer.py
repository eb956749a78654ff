"""What an evaluator is used with: its trained weights, rows from its batches, and the tables that people read."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys
from monai.handlers.checkpoint_loader import CheckpointLoader
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from monai_simclr.evaluation import Embeddings
from monai_simclr.inference.config import InferenceConfig, hash_settings
from monai_simclr.inference.journal import Rows
from monai_simclr.inference.pictures import RowPictures
from monai_simclr.inference.runtimes import Runtime, use_runtime
from monai_simclr.networks import FindingClassifier, load_classifier
from monai_simclr.runtime.files import write_json
from monai_simclr.runtime.names import escape, unescape
from monai_simclr.runtime.tables import write_rows

NOVEL, INVERTED, NO_CHEST = "unlike the training images", "likely inverted", "not an upright chest"

_NOT_FINITE = "the network's outputs are not finite"
_HASHES = ("file_hash", "patient_hash", "study_hash", "sop_instance_hash")


class LoadClassifier(CheckpointLoader):
    """MONAI's `CheckpointLoader` with the checks of `load_classifier`: damage, findings, and what makes a missing file.

    It loads when the evaluator starts for the first time, and not again: while a folder is watched, all rows come from
    the same weights.

    Args:
        load_path: the classifier that ``configs/train.json`` wrote.
        load_dict: the network, under any name, without DistributedDataParallel around it.
        runtime: what computes the features, see `use_runtime`.

    Raises:
        FileNotFoundError: on the start, if there is no file: predictions would come from random weights.
        ValueError: on the start, if the weights belong to another encoder or to other findings, or were altered.
    """

    def __init__(self, load_path: str, load_dict: dict, runtime: Runtime = "torch") -> None:
        super().__init__(load_path, load_dict)
        self.runtime, self.loaded = runtime, False

    def __call__(self, engine: Engine) -> None:
        if not self.loaded:
            (network,) = self.load_dict.values()
            load_classifier(network, self.load_path, next(network.parameters()).device)
            use_runtime(network, self.load_path, self.runtime)
        self.loaded = True


@dataclass(frozen=True)
class OutputOptions:
    """What is written in addition to the predictions.

    Attributes:
        paths: the file's path; it often identifies a patient.
        embeddings: the encoder's features, which can identify a patient too.
        overlays: a PNG of every positive radiograph, colored where the decision came from.
        dicom: a Structured Report of every DICOM radiograph, and its overlay as Secondary Capture; both name the
            patient.
        stow: these DICOM files are stored at the DICOMweb service that the radiographs came from.
    """

    paths: bool = False
    embeddings: bool = False
    overlays: bool = False
    dicom: bool = False
    stow: bool = False


class PredictionWriter:
    """Turn every batch of an evaluator over an `InferenceDataset` into rows of a journal.

    Decisions are taken on logits (`InferenceConfig.decisions`); the probabilities of a row are rounded, for people.

    A row has a decision for a finding only if nothing speaks against it: the file was read, its header says neither
    lateral nor another body part, and its embedding is not further from the training images than the threshold of the
    novelty. An image that is far away, but near when it is inverted, is "likely inverted". Whatever the encoder makes
    of it, an image whose pixels show no upright chest (`ops.chest_scores`) gets that flag, unless it has another one.

    Args:
        config: inference config of the classifier.
        network: the classifier itself; its encoder's output is read with a hook.
        journal: where the rows go.
        outputs: what else is written.
        watching: the folder is watched: a file that disappears before it can be read gets no row.
    """

    def __init__(
        self,
        config: InferenceConfig,
        network: FindingClassifier,
        journal: Rows,
        outputs: OutputOptions = OutputOptions(),
        watching: bool = False,
    ) -> None:
        self.config, self.network, self.journal, self.outputs = config, network, journal, outputs
        self.watching = watching
        self._hook: RemovableHandle | None = None
        self._features: Tensor | None = None
        self._pictures = RowPictures(config, network, journal.folder, outputs.overlays, outputs.dicom)

    def refused(self, about: Mapping[str, str], path: str, reason: str) -> dict[str, Any]:
        """The row of a file without predictions; `about` is what `describe_file` gives."""
        row: dict[str, Any] = {**about, "reason": reason, "novelty": None, "logits": None, "probabilities": None}
        row["decisions"] = [None] * len(self.config.findings)
        return row | ({"path": escape(path)} if self.outputs.paths else {})

    def lost(self, about: Mapping[str, str], path: str, reason: str) -> dict[str, Any]:
        """`refused` for a file on which no evaluator ran to its end; what it had of an earlier row is removed."""
        self._pictures.remove(about["file_hash"])
        return self.refused(about, path, reason)

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator, and on the network's encoder."""

        def remember(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
            self._features = output.detach().float().cpu()

        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        self._hook = self.network.encoder.register_forward_hook(remember)

    def detach(self, engine: Engine) -> None:
        """Undo `attach`."""
        engine.remove_event_handler(self, Events.ITERATION_COMPLETED)
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._features = None

    def __call__(self, engine: Engine) -> None:
        """Write the rows of the batch that was just predicted."""
        batch: Any = engine.state.batch
        images: Tensor = engine.state.output[CommonKeys.IMAGE]  # type: ignore[index,assignment,call-overload]
        logits = engine.state.output[CommonKeys.PRED].float().cpu().numpy()  # type: ignore[index,call-overload,union-attr]
        features, records = self._take_features(len(batch["reason"])), engine.state.dataloader.dataset.data  # type: ignore[union-attr]
        distances = self.config.novelty.distance(features)
        finite = np.isfinite(logits).all(axis=1) & np.isfinite(distances)  # NaN is below no threshold
        reasons = [
            reason or ("" if fine else _NOT_FINITE) for reason, fine in zip(batch["reason"], finite, strict=True)
        ]
        flags = self._flags(batch, reasons, images, distances)
        rows = []
        for i, reason in enumerate(reasons):
            path = str(records[int(batch["row"][i])]["image"])
            if self.watching and reason and not os.path.exists(path):
                continue
            about = {name: values[i] for name, values in batch["about"].items()}
            row = self.refused({**about, "flags": ";".join(flags[i])}, path, reason)
            if not reason:
                row["logits"] = logits[i].tolist()
                probabilities = self.config.probabilities(logits[i : i + 1])[0]
                row["probabilities"] = [round(float(value), 6) for value in probabilities]
                if not flags[i]:
                    row["decisions"] = self.config.decisions(logits[i : i + 1])[0]
                row["novelty"] = round(float(distances[i] / self.config.novelty.threshold), 4)
            if self.outputs.embeddings and not reason:
                row["features"] = pack_features(features[i])
            row |= self._pictures(row, images[i], path)
            rows.append(row)
        self.journal.append(rows)

    def _take_features(self, n_images: int) -> np.ndarray:
        """The encoder's output of this batch, once: features of another batch are never used for it."""
        features, self._features = self._features, None
        if features is None or len(features) != n_images:
            came = "none" if features is None else f"those of {len(features)}"
            raise RuntimeError(
                f"the encoder's features of {n_images} images are needed, {came} came; the evaluator must run the "
                "writer's network once per batch"
            )
        return features.numpy()

    def _flags(self, batch: Any, reasons: list[str], images: Tensor, distances: np.ndarray) -> list[list[str]]:
        flags = [[flag for flag in text.split(";") if flag] for text in batch["about"]["flags"]]
        threshold = self.config.novelty.threshold
        far = [i for i, reason in enumerate(reasons) if not reason and distances[i] > threshold]
        if far:
            with torch.no_grad():
                inverted = self.network.encoder(1 - images[far].float()).float().cpu().numpy()
            for i, novel in zip(far, self.config.novelty.is_novel(inverted), strict=True):
                flags[i].append(NOVEL if novel else INVERTED)
        chests = batch.get("chest", [True] * len(flags))  # a dataset of another class does not look at the pixels
        for i, (reason, chest) in enumerate(zip(reasons, chests, strict=True)):
            if not (reason or flags[i] or chest):
                flags[i].append(NO_CHEST)
        return flags


def write_tables(rows: Sequence[Mapping[str, Any]], config: InferenceConfig, folder: str | Path) -> list[Path]:
    """Write ``predictions.csv`` and ``predictions.json``, and ``embeddings.npz`` when the rows have features.

    In the CSV, probabilities and thresholds are rounded for display; the logits that were decided on are written in
    full.

    Args:
        rows: one per file, as `PredictionWriter` makes them.
        config: inference config of the classifier that made them.
        folder: where the files go; each is written whole or not at all.

    Returns:
        Paths of the files.
    """
    table, document = Path(folder) / "predictions.csv", Path(folder) / "predictions.json"
    columns = [*_HASHES, *(["path"] if any("path" in row for row in rows) else []), "view_position", "flags", "novelty"]
    for name in config.findings:
        columns += [name, f"{name} threshold", f"{name} decision", f"{name} logit", f"{name} threshold logit"]
    columns.append("reason")
    lines = ({**row, **_cells(row, config), "path": unescape(row.get("path", ""))} for row in rows)
    write_rows(table, columns, ([line.get(name, "") for name in columns] for line in lines))
    content = {
        "model_sha256": config.model_sha256,
        "preprocessing_sha256": hash_settings(config.preprocessing),
        "runtime": dict(config.runtime),
        "findings": {
            name: {**vars(config.operating[name]), "threshold_probability": threshold}
            for name, threshold in zip(config.findings, config.threshold_probabilities(), strict=True)
        },
        "false_alarm_rate_of_novelty": config.novelty.false_alarm,
        "notice": "research only, not for diagnosis",
        "rows": [{key: value for key, value in row.items() if key not in ("features", "stamp")} for row in rows],
    }
    write_json(document, content)
    kept = [row for row in rows if row.get("features")]
    if not kept:
        return [table, document]
    about = pd.DataFrame([{name: row[name] for name in _HASHES} for row in kept])
    features = np.stack([unpack_features(row["features"]) for row in kept])
    Embeddings(features, about, {"model_sha256": config.model_sha256}).save(Path(folder) / "embeddings.npz")
    return [table, document, Path(folder) / "embeddings.npz"]


def _cells(row: Mapping[str, Any], config: InferenceConfig) -> dict[str, Any]:
    """The cells of every finding; none for a file without predictions."""
    if row["probabilities"] is None:
        return {}
    cells: dict[str, Any] = {}
    for name, probability, threshold, decision, logit, threshold_logit in zip(
        config.findings,
        row["probabilities"],
        config.threshold_probabilities(),
        row["decisions"],
        row["logits"],
        config.thresholds(),
        strict=True,
    ):
        cells |= {name: f"{probability:.6f}", f"{name} threshold": "" if threshold is None else f"{threshold:.6f}"}
        cells |= {f"{name} decision": decision, f"{name} logit": logit, f"{name} threshold logit": threshold_logit}
    return cells


def pack_features(features: np.ndarray) -> str:
    """Features as text: float16, little-endian, base64."""
    return base64.b64encode(np.asarray(features, dtype="<f2").tobytes()).decode()


def unpack_features(text: str) -> np.ndarray:
    """The features that `pack_features` wrote, as float32.

    Example:
        >>> unpack_features(pack_features(np.array([0.5, -2.0])))
        array([ 0.5, -2. ], dtype=float32)
    """
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32)
