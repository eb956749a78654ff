"""Patients seen in training: recorded with every checkpoint as keyed hashes, and checked before it is scored."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
from torch import nn

from monai_simclr.data import unnamed_images
from monai_simclr.data.nih_names import other_form
from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.networks import SeenPatients, encoder_file, encoder_header, patients_records
from monai_simclr.runtime.artefacts import is_torch_file, read_json, read_tensor_file, reading, write_sealed_json
from monai_simclr.runtime.files import file_sha256

logger = logging.getLogger("monai_simclr")


def patients_key(checkpoint: bytes | str) -> str:
    """The key of the patient hashes that travel with a checkpoint, from its weights or the checksum of its file.

    The key is public, next to the hashes, so that anyone with the ids can check them: it keeps the hashes of two
    checkpoints apart, and makes precomputed tables of hashes useless. Weights do both as well as a random number, since
    nobody has them before the run ends, and equal runs write equal files. See SECURITY.md.
    """
    content = checkpoint.encode() if isinstance(checkpoint, str) else checkpoint
    return hashlib.sha256(b"monai-simclr patients_key:" + content).hexdigest()[:16]


def patients_header(encoder: nn.Module, seen: pd.DataFrame) -> dict[str, str]:
    """What an encoder's file records about the patients seen in pretraining: a key, and hashes under that key.

    Args:
        encoder: with the weights that are saved.
        seen: `image` and `patient_id` of every image that it was trained on.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    key = patients_key(safetensors.torch.save(weights))
    hashes = sorted(keyed_hash(key, name) for name in seen["patient_id"].unique())
    unnamed = unnamed_images(seen)
    count = {"unnamed_images": str(unnamed)} if unnamed else {}
    return {"patients_key": key, "patients_seen": json.dumps(hashes), **count}


def inherited_patients(path: str | Path) -> str:
    """Which patients the weights at `path` have seen, for the header of an encoder that continues from them."""
    what = "the weights to start from"
    path = encoder_file(path)
    header = {} if is_torch_file(path) else read_tensor_file(path, what, "copy it again")[0]
    if "patients_seen" not in header:
        logger.warning(f"{path.name} has no record of the patients seen; make sure that no test patient was")
    return json.dumps([record.as_json() for record in patients_records(header)])


def encoder_records(path: str | Path) -> list[SeenPatients]:
    """Whom an encoder has seen in pretraining, and each encoder that it continues; none for a state dict.

    What counts is the content of the file, not its name: `torch.save` writes no record.
    """
    return [] if is_torch_file(encoder_file(path)) else patients_records(encoder_header(path))


def record_patients(path: str | Path, trained_on: np.ndarray, pretraining: Sequence[SeenPatients] = ()) -> Path:
    """Write next to a classifier, as ``NAME.patients.json``, keyed hashes of the patients it was trained on.

    Args:
        path: of the classifier, which exists already.
        trained_on: patients whose labels were used, validation included.
        pretraining: of the encoder it started from, see `encoder_records`.
    """
    key = patients_key(file_sha256(path))
    seen = sorted(keyed_hash(key, str(patient)) for patient in np.unique(trained_on))
    content: dict[str, Any] = {"fine-tuning": {"key": key, "seen": seen}}
    for number, record in enumerate(pretraining):
        content[f"pretraining {number}" if number else "pretraining"] = record.as_json()
    sidecar = Path(path).with_suffix(".patients.json")
    write_sealed_json(sidecar, content)
    return sidecar


def check_encoder(path: str | Path, patients: np.ndarray, allowed: bool = False) -> int:
    """Refuse to score patients seen in pretraining, unless allowed; returns their number.

    A state dict has no record of patients, which is logged, and so are images without a patient's name.

    Raises:
        ValueError: if one was seen and that is not allowed, or the file is damaged.
    """
    return check_records(encoder_records(path), patients, Path(path).name, allowed)


def check_records(records: Sequence[SeenPatients], patients: np.ndarray, name: str, allowed: bool = False) -> int:
    """`check_encoder` for the `encoder_records` of an encoder of this name."""
    if not records:
        logger.warning(f"{name} has no record of the patients seen; make sure that no test patient was")
        return 0
    count = _count_seen(records, patients, allowed)
    if count:
        logger.warning(f"pretraining saw {count} of the patients to be scored: their scores are too good, as allowed")
    return count


def check_classifier(path: str | Path, patients: np.ndarray, allowed: bool = False) -> int:
    """`check_encoder` for a classifier, from the file that `record_patients` wrote; its absence is logged."""
    sidecar = Path(path).with_suffix(".patients.json")
    if not sidecar.is_file():
        logger.warning(f"there is no {sidecar.name}, so it is unknown which patients {Path(path).name} has seen")
        return 0
    remedy = "restore it, or train again: without it nobody knows which patients the classifier has seen"
    stages = read_json(sidecar, "the patients of a classifier", remedy)
    with reading(sidecar, "the patients of a classifier", remedy):
        seen = [SeenPatients.from_json(stage) for stage in stages.values()]
        if "fine-tuning" not in stages:
            raise ValueError("it lacks the patients of fine-tuning")
    return _count_seen(seen, patients, allowed)


def _count_seen(records: Sequence[SeenPatients], patients: np.ndarray, allowed: bool) -> int:
    """The most patients that any record has seen, see `check_unseen`; images without a patient's name are logged."""
    count = max(check_unseen(patients, record.key, record.hashes, allowed) for record in records)
    unnamed = sum(record.unnamed for record in records)
    if unnamed:
        logger.warning(
            f"training saw {unnamed} images without a patient's name: if the images to be scored are of the same "
            "archive, some may be of the same patients, and nothing here can tell"
        )
    return count


def check_unseen(patients: np.ndarray, key: str, seen: frozenset[str], allowed: bool = False) -> int:
    """Refuse to score patients whose hash under `key` is in `seen` ("": none is), unless allowed; returns how many.

    Patients of NIH ChestX-ray14 are called ``NIH-00013`` by our readers and in the record of the encoder that is
    installed. Where an index or a record has the number alone, it may be another archive's, so that such a match is
    logged and not refused.

    Raises:
        ValueError: if one was seen and that is not allowed.

    Example:
        >>> check_unseen(np.array(["a", "b"]), "key", frozenset({keyed_hash("key", "b")}), allowed=True)
        1
    """
    names = np.unique(np.char.strip(np.asarray(patients).astype(str))).tolist()  # as in an index
    found = [name for name in names if key and keyed_hash(key, name) in seen]
    if found and not allowed:
        raise ValueError(
            f"pretraining saw {len(found)} of the {len(names)} patients to be scored, the first is {found[0]!r}, so "
            "their scores would be too good; score other patients, pretrain without them, or pass "
            "--allow_seen_patients True"
        )
    others = [other for name in names if (other := other_form(name))]
    alike = sum(key != "" and keyed_hash(key, name) in seen for name in others)
    if alike:
        logger.warning(
            f"{alike} of the {len(names)} patients to be scored have the number of a patient of NIH ChestX-ray14 that "
            "pretraining saw: if they are these, their scores are too good; others can be scored"
        )
    return len(found)
