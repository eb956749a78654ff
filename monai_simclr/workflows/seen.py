"""Whom a checkpoint has learned from: checked before it is scored, and written beside what was trained."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from monai_simclr.artefacts import read_json, reading, write_sealed_json
from monai_simclr.evaluation import check_unseen
from monai_simclr.files import keyed_hash
from monai_simclr.networks import encoder_header, patients_seen

__all__ = ["check_classifier", "check_encoder", "record_patients"]

logger = logging.getLogger("monai_simclr")


def check_encoder(path: str | Path, patients: np.ndarray, allowed: bool = False) -> int:
    """Refuse to score patients whom pretraining saw, unless that is stated; how many it saw.

    Args:
        path: the encoder; a state dict (.pt) does not say whom it saw, which is logged.
        patients: to be scored.
        allowed: state that seen patients may be scored.

    Raises:
        ValueError: if one was seen and that was not allowed.
    """
    if Path(path).suffix in (".pt", ".pth"):
        logger.warning(
            f"{Path(path).name} does not say which patients it has seen; make sure that it saw no test patient"
        )
        return 0
    header = encoder_header(path)
    count = check_unseen(patients, header.get("patients_key", ""), patients_seen(header), allowed)
    if count:
        logger.warning(f"pretraining saw {count} of the patients that are scored: the scores flatter, as was allowed")
    return count


def record_patients(path: str | Path, trained_on: np.ndarray, encoder_path: str | Path | None) -> Path:
    """Write beside a classifier, as ``NAME.patients.json``, keyed hashes of the patients it has learned from.

    Args:
        path: of the classifier.
        trained_on: patients whose labels were used, validation included.
        encoder_path: the pretrained encoder it started from, None for scratch.
    """
    key = secrets.token_hex(8)
    seen = sorted(keyed_hash(key, str(patient)) for patient in np.unique(trained_on))
    content: dict[str, Mapping] = {"fine-tuning": {"key": key, "seen": seen}}
    if encoder_path is not None and Path(encoder_path).suffix == ".safetensors":
        header = encoder_header(encoder_path)
        content["pretraining"] = {"key": header.get("patients_key", ""), "seen": sorted(patients_seen(header))}
    sidecar = Path(path).with_suffix(".patients.json")
    write_sealed_json(sidecar, content)
    return sidecar


def check_classifier(path: str | Path, patients: np.ndarray, allowed: bool = False) -> int:
    """`check_encoder` for a classifier, from the file that `record_patients` wrote; its absence is logged."""
    sidecar = Path(path).with_suffix(".patients.json")
    if not sidecar.is_file():
        logger.warning(f"there is no {sidecar.name}, so it is unknown which patients {Path(path).name} has seen")
        return 0
    remedy = "restore it, or train again: without it nobody knows which patients the classifier has seen"
    stages = read_json(sidecar, "the patients of a classifier", remedy)
    with reading(sidecar, "the patients of a classifier", remedy):
        seen = [(str(stage["key"]), frozenset(map(str, stage["seen"]))) for stage in stages.values()]
        if "fine-tuning" not in stages:
            raise ValueError("it lacks the patients of fine-tuning")
    return max(check_unseen(patients, key, hashes, allowed) for key, hashes in seen)
