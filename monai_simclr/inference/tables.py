"""The rows of a journal as the files that people and programs read: CSV, JSON, and embeddings on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_simclr.evaluation import Embeddings
from monai_simclr.inference.card import InferenceConfig, hash_settings
from monai_simclr.inference.writer import unpacked
from monai_simclr.runtime.files import write_json
from monai_simclr.runtime.names import unescape
from monai_simclr.runtime.tables import write_rows

_ABOUT = ("file_hash", "patient_hash", "study_hash", "sop_instance_hash")


def write_tables(rows: Sequence[Mapping[str, Any]], card: InferenceConfig, folder: str | Path) -> list[Path]:
    """Write ``predictions.csv`` and ``predictions.json``, and ``embeddings.npz`` when the rows have features.

    Args:
        rows: one a file, as `PredictionWriter` makes them.
        card: of the classifier that made them.
        folder: where the files go; each is written whole or not at all.

    Returns:
        Paths of what was written.
    """
    made = [_csv(rows, card, Path(folder) / "predictions.csv"), _json(rows, card, Path(folder) / "predictions.json")]
    kept = [row for row in rows if row.get("features")]
    if kept:
        about = pd.DataFrame([{name: row[name] for name in _ABOUT} for row in kept])
        features = np.stack([unpacked(row["features"]) for row in kept])
        path = Path(folder) / "embeddings.npz"
        Embeddings(features, about, {"model_sha256": card.model_sha256}).save(path)
        made.append(path)
    return made


def _csv(rows: Sequence[Mapping[str, Any]], card: InferenceConfig, path: Path) -> Path:
    paths = ["path"] if any("path" in row for row in rows) else []
    columns = [*_ABOUT, *paths, "view_position", "flags", "novelty"]
    for name in card.findings:
        columns += [name, f"{name} threshold", f"{name} decision", f"{name} logit", f"{name} threshold logit"]
    columns.append("reason")
    lines = ({**row, **_shown(row, card), "path": unescape(row.get("path", ""))} for row in rows)
    return write_rows(path, columns, ([line.get(name, "") for name in columns] for line in lines))


def _shown(row: Mapping[str, Any], card: InferenceConfig) -> dict[str, Any]:
    """What stands for every finding; nothing at all for a file without predictions.

    Probability and threshold are rounded for display; the logits are written in full, and decided on.
    """
    if row["probabilities"] is None:
        return {}
    cells: dict[str, Any] = {}
    shown = zip(card.findings, row["probabilities"], card.threshold_probabilities(), strict=True)
    for name, probability, threshold in shown:
        cells[name] = f"{probability:.6f}"
        cells[f"{name} threshold"] = "" if threshold is None else f"{threshold:.6f}"
    for name, decision, logit, threshold in zip(
        card.findings, row["decisions"], row["logits"], card.thresholds(), strict=True
    ):
        cells |= {f"{name} decision": decision, f"{name} logit": logit, f"{name} threshold logit": threshold}
    return cells


def _json(rows: Sequence[Mapping[str, Any]], card: InferenceConfig, path: Path) -> Path:
    content = {
        "model_sha256": card.model_sha256,
        "preprocessing_sha256": hash_settings(card.preprocessing),
        "findings": {
            name: {**vars(card.operating[name]), "threshold_probability": threshold}
            for name, threshold in zip(card.findings, card.threshold_probabilities(), strict=True)
        },
        "false_alarm_rate_of_novelty": card.novelty.false_alarm,
        "notice": "research only, not for diagnosis",
        "rows": [{key: value for key, value in row.items() if key not in ("features", "stamp")} for row in rows],
    }
    write_json(path, content)
    return path
