"""From an evaluator's batches to rows: calibrated probabilities, decisions, and when to decide nothing."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys
from torch import Tensor

from monai_simclr.inference.card import ClassifierCard
from monai_simclr.inference.journal import Journal
from monai_simclr.inference.pictures import RowPictures
from monai_simclr.names import escape
from monai_simclr.networks import FindingClassifier

__all__ = ["NOVEL", "Keep", "PredictionWriter", "packed", "unpacked"]

logger = logging.getLogger("monai_simclr")

NOVEL, INVERTED = "unlike the training images", "likely inverted"


@dataclass(frozen=True)
class Keep:
    """What goes into a row beside the predictions.

    Attributes:
        paths: the file's path; it often identifies a patient.
        embeddings: the encoder's features, which can identify a patient too.
        overlays: a PNG of every positive radiograph, colored where the decision came from.
        dicom: a Structured Report of every DICOM radiograph, and its overlay as Secondary Capture; both name the
            patient.
    """

    paths: bool = False
    embeddings: bool = False
    overlays: bool = False
    dicom: bool = False


class PredictionWriter:
    """Turn every batch of an evaluator into rows of a journal.

    A row has a decision for a finding only if nothing speaks against it: the file was read, its header says neither
    lateral nor another body part, and its embedding is not further from the training images than the card's threshold.
    An image that is far away, but near when it is inverted, is "likely inverted".

    Args:
        card: of the classifier.
        network: the classifier itself; its encoder's output is read with a hook.
        journal: where the rows go.
        data: the records that are predicted, in the order of ``"row"``.
        keep: what else a row keeps.
    """

    def __init__(
        self,
        card: ClassifierCard,
        network: FindingClassifier,
        journal: Journal,
        data: Sequence[Mapping[str, Any]],
        keep: Keep = Keep(),
    ) -> None:
        self.card, self.network, self.journal, self.data, self.keep = card, network, journal, data, keep
        self._features: Tensor | None = None
        wanted = keep.overlays or keep.dicom
        self._pictures = RowPictures(card, network, journal.folder, keep.overlays, keep.dicom) if wanted else None

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        hook = self.network.encoder.register_forward_hook(self._remember)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, lambda _: hook.remove())
        engine.add_event_handler(Events.EXCEPTION_RAISED, _let_go, hook)

    def __call__(self, engine: Engine) -> None:
        """Write the rows of the batch that was just predicted."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        assert self._features is not None
        features, logits = self._features.numpy(), output[CommonKeys.PRED].float().cpu().numpy()
        distances = self.card.novelty.distance(features)
        flags = self._flags(batch, output[CommonKeys.IMAGE], distances)
        probabilities, thresholds = self.card.probabilities(logits), self.card.thresholds()
        rows = []
        for i, reason in enumerate(batch["reason"]):
            about = {name: values[i] for name, values in batch["about"].items()}
            row = {**about, "flags": ";".join(flags[i]), "reason": reason, "novelty": None, "probabilities": None}
            if not reason:
                row["novelty"] = round(float(distances[i] / self.card.novelty.threshold), 4)
                row["probabilities"] = [round(float(value), 6) for value in probabilities[i]]
            row["decisions"] = _decisions(row, thresholds)
            if self.keep.paths:
                row["path"] = escape(str(self.data[int(batch["row"][i])]["image"]))
            if self.keep.embeddings and not reason:
                row["features"] = packed(features[i])
            if self._pictures is not None:
                self._pictures(row, output[CommonKeys.IMAGE][i], str(self.data[int(batch["row"][i])]["image"]))
            rows.append(row)
        self.journal.append(rows)

    def _remember(self, module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        self._features = output.detach().float().cpu()

    def _flags(self, batch: Any, images: Tensor, distances: np.ndarray) -> list[list[str]]:
        flags = [[flag for flag in text.split(";") if flag] for text in batch["about"]["flags"]]
        far = [
            i for i, reason in enumerate(batch["reason"])
            if not reason and distances[i] > self.card.novelty.threshold
        ]  # fmt: skip
        if far:
            with torch.no_grad():
                turned = self.network.encoder(1 - images[far].float()).float().cpu().numpy()
            for i, still in zip(far, self.card.novelty.is_novel(turned), strict=True):
                flags[i].append(NOVEL if still else INVERTED)
        return flags


def packed(features: np.ndarray) -> str:
    """Features as text: float16, little-endian, base64."""
    return base64.b64encode(np.asarray(features, dtype="<f2").tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """What `packed` packed, as float32.

    Example:
        >>> unpacked(packed(np.array([0.5, -2.0])))
        array([ 0.5, -2. ], dtype=float32)
    """
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32)


def _decisions(row: Mapping[str, Any], thresholds: Sequence[float | None]) -> list[int | None]:
    if row["reason"] or row["flags"]:
        return [None] * len(thresholds)
    return [
        None if threshold is None else int(probability >= threshold)
        for probability, threshold in zip(row["probabilities"], thresholds, strict=True)
    ]


def _let_go(engine: Engine, error: BaseException, hook: Any) -> None:
    hook.remove()
    raise error
