"""The rows of a journal as the files that people and programs read: CSV, JSON, and embeddings on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.evaluation import Embeddings
from monai_simclr.inference.config import InferenceConfig, hash_settings
from monai_simclr.inference.writer import unpack_features
from monai_simclr.runtime.files import write_json
from monai_simclr.runtime.names import unescape
from monai_simclr.runtime.tables import write_rows

_HASHES = ("file_hash", "patient_hash", "study_hash", "sop_instance_hash")


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
