"""Whom a checkpoint has learned from: checked before it is scored, and written beside what was trained."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.networks import encoder_header, patients_seen
from monai_simclr.runtime.artefacts import read_json, reading, write_sealed_json
from monai_simclr.runtime.files import file_sha256

logger = logging.getLogger("monai_simclr")


def patients_key(checkpoint: bytes | str) -> str:
    """The key of the hashes of patients that travel with a checkpoint, from the checkpoint itself.

    The key stands in the open beside the hashes, so that whoever has the ids can check them: it keeps the hashes of two
    checkpoints apart, and tables of hashes that were made beforehand useless. Weights do both as well as a random
    number, since nobody has them before the run ends, and equal runs leave equal files. See SECURITY.md.

    Args:
        checkpoint: the weights as bytes, or a checksum of their file.

    Example:
        >>> patients_key("1f0c"), patients_key("1f0d")
        ('659f13b80222c127', 'be9727f173429475')
    """
    given = checkpoint.encode() if isinstance(checkpoint, str) else checkpoint
    return hashlib.sha256(b"monai-simclr patients_key:" + given).hexdigest()[:16]


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
        path: of the classifier, which is there already.
        trained_on: patients whose labels were used, validation included.
        encoder_path: the pretrained encoder it started from, None for scratch.
    """
    key = patients_key(file_sha256(path))
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


def seen_patients(patients: np.ndarray, key: str, seen: frozenset[str]) -> np.ndarray:
    """Which patients a checkpoint has seen, from the keyed hashes in its header: a mask of shape ``(N,)``.

    Example:
        >>> seen_patients(np.array(["a", "b"]), "key", frozenset({keyed_hash("key", "b")})).tolist()
        [False, True]
    """
    names, codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    return np.array([keyed_hash(key, str(name)) in seen for name in names], dtype=bool)[codes]


def check_unseen(patients: np.ndarray, key: str, seen: frozenset[str], allowed: bool = False) -> int:
    """Refuse to score patients from whom an encoder has already learned, unless that is stated.

    Args:
        patients: of the images to be scored.
        key: `patients_key` of the checkpoint's header; "" for a checkpoint that does not say whom it saw.
        seen: `patients_seen` of the header.
        allowed: state that seen patients may be scored; the number is then returned, to be reported.

    Returns:
        How many of the patients the checkpoint has seen.

    Raises:
        ValueError: if it has seen one and that was not allowed.

    Example:
        >>> check_unseen(np.array(["a", "b"]), "key", frozenset({keyed_hash("key", "b")}), allowed=True)
        1
    """
    known = seen_patients(patients, key, seen) if key else np.zeros(len(patients), dtype=bool)
    found = np.unique(np.asarray(patients).astype(str)[known])
    if len(found) and not allowed:
        raise ValueError(
            f"pretraining saw {len(found)} of the {len(np.unique(patients))} patients to be scored, the first is "
            f"{str(found[0])!r}, so their scores would flatter; score other patients, pretrain without them, or say "
            "so with --allow_seen_patients True"
        )
    return len(found)
