"""What a trained classifier is used with: findings, preprocessing, calibration, thresholds, what is novel."""

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
"""Of ``classifier.json``. 1 had no number, and temperatures that were fitted without a prior."""

_WHAT, _REMEDY = "the card of a classifier", "restore it from a copy, or run configs/train.json again"
_PARTS = ("findings", "preprocessing", "operating", "novelty")


@dataclass(frozen=True)
class OperatingPoint:
    """How the logits of one finding become a probability and a decision; fixed on validation patients.

    Attributes:
        temperature: the probability is ``sigmoid(logit / temperature)``, for people to read.
        threshold: a logit of at least this is called positive; None when validation had no positive or no negative.
        specificity: that was asked for.
        achieved: specificity and sensitivity on the validation images.
        n: validation images with a label.
        positives: of these.
        temperature_at_bound: the temperature ran to its bound, so the probabilities are not to be trusted.
    """

    temperature: float
    threshold: float | None
    specificity: float
    achieved: Mapping[str, float] = field(default_factory=dict)
    n: int = 0
    positives: int = 0
    temperature_at_bound: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` for what turns probabilities round or makes them meaningless."""
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"a temperature must be finite and greater than 0, got {self.temperature}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"a threshold is a finite logit, or None, got {self.threshold}")
        if not 0 < self.specificity < 1:
            raise ValueError(f"a specificity lies between 0 and 1, got {self.specificity}")
        if not 0 <= self.positives <= self.n:
            raise ValueError(f"{self.positives} positives of {self.n} images cannot be")
        if any(not (value is None or 0 <= value <= 1) for value in self.achieved.values()):
            raise ValueError(f"a specificity or sensitivity lies between 0 and 1, got {dict(self.achieved)}")


@dataclass(frozen=True)
class InferenceConfig:
    """What stands in ``models/classifier.json`` beside ``models/model.pt``, and the novelty beside that.

    Attributes:
        findings: names of the K logits.
        preprocessing: settings of the steps from file to network input; they are part of the model.
        operating: one `OperatingPoint` a finding.
        novelty: distance from the training images.
        model_sha256: checksum of the weights that this belongs to.
    """

    findings: Sequence[str]
    preprocessing: Mapping[str, Any]
    operating: Mapping[str, OperatingPoint]
    novelty: Novelty
    model_sha256: str = ""

    def check_preprocessing(self, settings: Mapping[str, Any]) -> None:
        """Raise `ValueError`, with every difference, unless inference prepares images as training did."""
        names = sorted({*settings, *self.preprocessing})
        different = [
            f"{name} is {settings.get(name)!r} now and was {self.preprocessing.get(name)!r}"
            for name in names
            if _plain(settings.get(name)) != _plain(self.preprocessing.get(name))
        ]
        if different:
            raise ValueError(
                f"the classifier was trained with another preprocessing: {'; '.join(different)}; use the bundle and "
                "the version that trained it"
            )

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of logits ``(N, K)``, for people to read; `decisions` never looks at them."""
        temperatures = np.array([self.operating[name].temperature for name in self.findings])
        return sigmoid(np.asarray(logits, dtype=float) / temperatures)

    def decisions(self, logits: np.ndarray) -> list[list[int | None]]:
        """1 where a logit is at least its finding's threshold, 0 below, None where there is no threshold or no number.

        Args:
            logits: shape ``(N, K)``.

        Returns:
            N lists of K.
        """
        return [
            [
                None if threshold is None or not np.isfinite(logit) else int(logit >= threshold)
                for logit, threshold in zip(row, self.thresholds(), strict=True)
            ]
            for row in np.asarray(logits, dtype=float)
        ]

    def thresholds(self) -> list[float | None]:
        """The thresholds as logits, one a finding; None where there is none."""
        return [self.operating[name].threshold for name in self.findings]

    def threshold_probabilities(self) -> list[float | None]:
        """The thresholds as calibrated probabilities, for people to read; None where there is none."""
        found = [self.operating[name] for name in self.findings]
        return [
            None if one.threshold is None else float(sigmoid(np.array(one.threshold / one.temperature)))
            for one in found
        ]


def hash_settings(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings, whatever the order of their keys.

    Example:
        >>> hash_settings({"a": 1, "b": 2}) == hash_settings({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(_plain(settings).encode()).hexdigest()


def write_inference_config(card: InferenceConfig, model_path: str | Path) -> Path:
    """Write a card beside the weights that it belongs to: the novelty first, the JSON with the checksums last.

    Args:
        card: what to write; its `model_sha256` is taken from the file.
        model_path: the classifier's weights, which must be there.

    Returns:
        Path of ``classifier.json``.
    """
    folder = Path(model_path).parent
    novelty = folder / "novelty.safetensors"
    arrays = {name: np.ascontiguousarray(value) for name, value in _arrays(card.novelty).items()}
    write_tensor_file(novelty, safetensors.numpy.save(arrays, metadata={"made_for": file_sha256(model_path)}))
    numbers = {key: value for key, value in asdict(card.novelty).items() if not isinstance(value, np.ndarray)}
    content = {
        "format": _FORMAT,
        "model_sha256": file_sha256(model_path),
        "novelty_sha256": file_sha256(novelty),
        "preprocessing_sha256": hash_settings(card.preprocessing),
        "findings": list(card.findings),
        "preprocessing": dict(card.preprocessing),
        "operating": {name: asdict(one) for name, one in card.operating.items()},
        "novelty": numbers,
        "versions": package_versions(),
    }
    path = folder / "classifier.json"
    write_sealed_json(path, content)
    return path


def read_inference_config(model_path: str | Path) -> InferenceConfig:
    """The card of a classifier.

    Raises:
        FileNotFoundError: if the weights or the card are missing (says what makes them).
        ValueError: if the card belongs to other weights, a file was changed, or the card is of a later version.
    """
    model, path = Path(model_path), Path(model_path).parent / "classifier.json"
    if not model.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {model}, so predictions would come from random weights; run configs/train.json first"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path.name} beside {model.name}: it holds the thresholds and calibration; run configs/train.json again"
        )
    content = read_json(path, _WHAT, _REMEDY, ("model_sha256", "novelty_sha256", *_PARTS))
    with reading(path, _WHAT, _REMEDY):
        content = _of_this_format(content, path)
    novelty = path.parent / "novelty.safetensors"
    for file, name in ((model, "model_sha256"), (novelty, "novelty_sha256")):
        if not file.is_file() or file_sha256(file) != content[name]:
            raise ValueError(f"{file} is not the file that {path.name} was written for; restore both, or train again")
    with reading(novelty, "the novelty of a classifier", _REMEDY):
        arrays = safetensors.numpy.load(read_tensor_file(novelty, "the novelty of a classifier", _REMEDY)[1])
    with reading(path, _WHAT, _REMEDY):
        card = InferenceConfig(
            findings=content["findings"],
            preprocessing=content["preprocessing"],
            operating={name: OperatingPoint(**one) for name, one in content["operating"].items()},
            novelty=Novelty(**{**arrays, **content["novelty"]}),
        )
        _check(card)
        if "preprocessing_sha256" in content and content["preprocessing_sha256"] != hash_settings(card.preprocessing):
            raise ValueError("its preprocessing does not fit its checksum, so it was altered")
    return replace(card, model_sha256=content["model_sha256"])


def _check(card: InferenceConfig) -> None:
    """Raise `ValueError` if the parts of a card do not go together, or cannot be."""
    names = card.findings
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"its findings are {names!r}, not a list of names")
    if len(set(names)) < len(names) or set(names) != set(card.operating):
        raise ValueError(f"its findings {names} do not go with the operating points of {sorted(card.operating)}")
    if not isinstance(card.preprocessing, dict):
        raise ValueError("its preprocessing is not a mapping")
    card.novelty.check()


def _of_this_format(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """A card as this version writes it: one of format 1 is brought over, with a warning; a later one is refused."""
    found = content.get("format", 1)
    if found == _FORMAT:
        return content
    if found != 1:
        raise ValueError(
            f"{path} has format {found}, and this version reads formats 1 and {_FORMAT}; use the version that wrote it "
            f"({content.get('versions', {}).get('monai-simclr', 'it does not say which')}) or a later one"
        )
    operating = {
        name: {**one, "temperature_at_bound": is_at_bound(one["temperature"])}
        for name, one in content["operating"].items()
    }
    bound = [name for name, one in operating.items() if one["temperature_at_bound"]]
    extreme = f"; those of {', '.join(bound)} are not to be trusted" if bound else ""
    logger.warning(
        f"{path} is of an earlier version: decisions are right, but temperatures were fitted without a prior, so "
        f"probabilities may be too near 0 and 1{extreme}; run configs/train.json again for new ones"
    )
    return {**content, "operating": operating}


def _arrays(novelty: Novelty) -> dict[str, np.ndarray]:
    return {"mean": novelty.mean, "components": novelty.components, "variances": novelty.variances}


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=list)
