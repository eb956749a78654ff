"""What a trained classifier is used with: findings, preprocessing, calibration, thresholds, and what is novel."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from monai_simclr.evaluation import Novelty
from monai_simclr.evaluation.calibration import is_at_bound
from monai_simclr.evaluation.predictions import sigmoid
from monai_simclr.runtime.artefacts import read_json, read_tensor_file, reading, write_sealed_json, write_tensor_file
from monai_simclr.runtime.files import file_sha256
from monai_simclr.runtime.metrics import package_versions

logger = logging.getLogger("monai_simclr")

_FORMAT = 2
"""Of ``classifier.json``. Format 1 had no number, and temperatures that were fitted without a prior."""

_WHAT, _REMEDY = "the inference config of a classifier", "restore it from a copy, or run configs/train.json again"
_PARTS = ("findings", "preprocessing", "operating", "novelty")


@dataclass(frozen=True)
class OperatingPoint:
    """How the logits of one finding become a probability and a decision; fixed on validation patients.

    Attributes:
        temperature: the probability is ``sigmoid(logit / temperature)``, for people to read.
        threshold: a logit of at least this is called positive; None when validation had no positive or no negative.
        specificity: the requested one.
        achieved: specificity and sensitivity on the validation images.
        n: validation images with a label.
        positives: how many of them are positive.
        temperature_at_bound: the temperature ran to its bound, so the probabilities cannot be trusted.
    """

    temperature: float
    threshold: float | None
    specificity: float
    achieved: Mapping[str, float] = field(default_factory=dict)
    n: int = 0
    positives: int = 0
    temperature_at_bound: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` for values that invert probabilities or make them meaningless."""
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"a temperature must be finite and greater than 0, got {self.temperature}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"a threshold must be a finite logit, or None, got {self.threshold}")
        if not 0 < self.specificity < 1:
            raise ValueError(f"a specificity must lie between 0 and 1, got {self.specificity}")
        if not 0 <= self.positives <= self.n:
            raise ValueError(f"positives must lie between 0 and n = {self.n}, got {self.positives}")
        if any(not (value is None or 0 <= value <= 1) for value in self.achieved.values()):
            raise ValueError(f"a specificity or sensitivity must lie between 0 and 1, got {dict(self.achieved)}")


@dataclass(frozen=True)
class InferenceConfig:
    """The content of ``classifier.json`` and ``novelty.safetensors``, which lie next to the weights.

    Attributes:
        findings: names of the K logits.
        preprocessing: settings of the steps from file to network input; they are part of the model.
        operating: one `OperatingPoint` per finding.
        novelty: distance from the training images.
        model_sha256: checksum of the weights that this belongs to.
        runtime: what computes the features in this run (`use_runtime`); not in the file.
    """

    findings: Sequence[str]
    preprocessing: Mapping[str, Any]
    operating: Mapping[str, OperatingPoint]
    novelty: Novelty
    model_sha256: str = ""
    runtime: Mapping[str, Any] = field(default_factory=lambda: {"name": "torch"})

    def check_preprocessing(self, settings: Mapping[str, Any]) -> None:
        """Raise `ValueError` with every difference, unless inference prepares images as training did."""
        different = [
            f"{name} is {settings.get(name)!r} now and was {self.preprocessing.get(name)!r}"
            for name in sorted({*settings, *self.preprocessing})
            if _canonical(settings.get(name)) != _canonical(self.preprocessing.get(name))
        ]
        if different:
            raise ValueError(
                f"the classifier was trained with another preprocessing: {'; '.join(different)}; use the bundle and "
                "the version that trained it"
            )

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of logits ``(N, K)``, for people to read; `decisions` does not use them."""
        temperatures = np.array([self.operating[name].temperature for name in self.findings])
        return sigmoid(np.asarray(logits, dtype=float) / temperatures)

    def decisions(self, logits: np.ndarray) -> list[list[int | None]]:
        """1 where a logit ``(N, K)`` is at least the threshold, 0 below; None without a threshold or a finite logit."""
        return [
            [
                None if threshold is None or not np.isfinite(logit) else int(logit >= threshold)
                for logit, threshold in zip(row, self.thresholds(), strict=True)
            ]
            for row in np.asarray(logits, dtype=float)
        ]

    def thresholds(self) -> list[float | None]:
        """The thresholds as logits, in the order of the findings; None where there is none."""
        return [self.operating[name].threshold for name in self.findings]

    def threshold_probabilities(self) -> list[float | None]:
        """The thresholds as calibrated probabilities, for people to read; None where there is none."""
        points = [self.operating[name] for name in self.findings]
        return [
            None if point.threshold is None else float(sigmoid(np.array(point.threshold / point.temperature)))
            for point in points
        ]


def hash_settings(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings, whatever the order of their keys.

    Example:
        >>> hash_settings({"a": 1, "b": 2}) == hash_settings({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(_canonical(settings).encode()).hexdigest()


def write_inference_config(config: InferenceConfig, model_path: str | Path) -> Path:
    """Write an inference config next to its weights: the novelty first, the JSON with the checksums last.

    Args:
        config: what to write; its `model_sha256` is taken from the file.
        model_path: the classifier's weights, which must exist.

    Returns:
        Path of ``classifier.json``.
    """
    path, sha256 = Path(model_path).with_name("classifier.json"), file_sha256(model_path)
    values = asdict(config.novelty)
    arrays = {name: np.ascontiguousarray(values.pop(name)) for name in ("mean", "components", "variances")}
    novelty = path.with_name("novelty.safetensors")
    write_tensor_file(novelty, safetensors.numpy.save(arrays, metadata={"made_for": sha256}))
    content = {
        "format": _FORMAT,
        "model_sha256": sha256,
        "novelty_sha256": file_sha256(novelty),
        "preprocessing_sha256": hash_settings(config.preprocessing),
        "findings": list(config.findings),
        "preprocessing": dict(config.preprocessing),
        "operating": {name: asdict(point) for name, point in config.operating.items()},
        "novelty": values,
        "versions": package_versions(),
    }
    write_sealed_json(path, content)
    return path


def has_inference_config(model_path: str | Path) -> bool:
    """Whether there is a ``classifier.json`` next to a classifier, and it is of these weights and of no others.

    Raises:
        DamagedFileError: if the file is damaged.
    """
    path = Path(model_path).with_name("classifier.json")
    return path.is_file() and bool(
        read_json(path, _WHAT, _REMEDY, ("model_sha256",))["model_sha256"] == file_sha256(model_path)
    )


def read_inference_config(model_path: str | Path) -> InferenceConfig:
    """Read the inference config of a classifier.

    Raises:
        FileNotFoundError: if the weights or the config are missing (says what makes them).
        ValueError: if the config belongs to other weights, a file was changed, or a later version wrote it.
    """
    model, path = Path(model_path), Path(model_path).with_name("classifier.json")
    if not model.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {model}, so predictions would come from random weights; run configs/train.json first"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path.name} next to {model.name}: it holds the thresholds and calibration; run configs/train.json "
            "again"
        )
    content = read_json(path, _WHAT, _REMEDY, ("model_sha256", "novelty_sha256", *_PARTS))
    with reading(path, _WHAT, _REMEDY):
        content = _upgrade(content, path)
    novelty = path.with_name("novelty.safetensors")
    for file, name in ((model, "model_sha256"), (novelty, "novelty_sha256")):
        if not file.is_file() or file_sha256(file) != content[name]:
            raise ValueError(f"{file} is not the file that {path.name} was written for; restore both, or train again")
    with reading(novelty, "the novelty of a classifier", _REMEDY):
        arrays = safetensors.numpy.load(read_tensor_file(novelty, "the novelty of a classifier", _REMEDY)[1])
    with reading(path, _WHAT, _REMEDY):
        config = InferenceConfig(
            findings=content["findings"],
            preprocessing=content["preprocessing"],
            operating={name: OperatingPoint(**point) for name, point in content["operating"].items()},
            novelty=Novelty(**{**arrays, **content["novelty"]}),
        )
        _check(config)
        if "preprocessing_sha256" in content and content["preprocessing_sha256"] != hash_settings(config.preprocessing):
            raise ValueError("its preprocessing does not match its checksum, so it was altered")
    return replace(config, model_sha256=content["model_sha256"])


def _check(config: InferenceConfig) -> None:
    """Raise `ValueError` if the parts of a config are invalid or do not match."""
    names = config.findings
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"its findings are {names!r}, not a list of names")
    if len(set(names)) < len(names) or set(names) != set(config.operating):
        raise ValueError(f"its findings {names} do not match the operating points of {sorted(config.operating)}")
    if not isinstance(config.preprocessing, dict):
        raise ValueError("its preprocessing is not a mapping")
    config.novelty.check()


def _upgrade(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Bring format 1 to this one, with a warning; refuse a later one."""
    version = content.get("format", 1)
    if version == _FORMAT:
        return content
    if version != 1:
        raise ValueError(
            f"{path} has format {version}, and this version reads formats 1 and {_FORMAT}; use the version that wrote "
            f"it ({content.get('versions', {}).get('monai-simclr', 'which it does not name')}) or a later one"
        )
    operating = {
        name: {**point, "temperature_at_bound": is_at_bound(point["temperature"])}
        for name, point in content["operating"].items()
    }
    bound = [name for name, point in operating.items() if point["temperature_at_bound"]]
    extreme = f"; those of {', '.join(bound)} cannot be trusted" if bound else ""
    logger.warning(
        f"{path} was written by an earlier version: decisions are right, but temperatures were fitted without a prior, "
        f"so probabilities may be too near 0 and 1{extreme}; run configs/train.json again for new ones"
    )
    return {**content, "operating": operating}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=list)
