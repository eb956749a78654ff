"""From an evaluator's batches to rows: calibrated probabilities, decisions, and when to decide nothing."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from monai_simclr.inference.card import InferenceConfig
from monai_simclr.inference.journal import Journal
from monai_simclr.inference.pictures import RowPictures
from monai_simclr.networks import FindingClassifier
from monai_simclr.runtime.names import escape

logger = logging.getLogger("monai_simclr")

NOVEL, INVERTED, NO_CHEST = "unlike the training images", "likely inverted", "not an upright chest"

_NOT_A_NUMBER = "the network gave numbers that are not finite"


@dataclass(frozen=True)
class OutputOptions:
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

    Decisions are taken on logits (`InferenceConfig.decisions`); the probabilities of a row are rounded, for people.

    A row has a decision for a finding only if nothing speaks against it: the file was read, its header says neither
    lateral nor another body part, and its embedding is not further from the training images than the card's threshold.
    An image that is far away, but near when it is inverted, is "likely inverted". Whatever the encoder makes of it, an
    image whose pixels show no upright chest (`ops.chest_scores`) gets that flag, unless another one stands there.

    Args:
        card: of the classifier.
        network: the classifier itself; its encoder's output is read with a hook.
        journal: where the rows go.
        data: the records that are predicted, in the order of ``"row"``.
        outputs: what else a row keeps.
        watching: the folder is watched: a file that went away before it could be read gets no row.
    """

    def __init__(
        self,
        card: InferenceConfig,
        network: FindingClassifier,
        journal: Journal,
        data: Sequence[Mapping[str, Any]],
        outputs: OutputOptions = OutputOptions(),
        watching: bool = False,
    ) -> None:
        self.card, self.network, self.journal, self.data, self.outputs = card, network, journal, data, outputs
        self.watching = watching
        self._hook: RemovableHandle | None = None
        self._features: Tensor | None = None
        wanted = outputs.overlays or outputs.dicom
        self._pictures = RowPictures(card, network, journal.folder, outputs.overlays, outputs.dicom) if wanted else None

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator, for all of its runs: the encoder is listened to while one runs."""
        engine.add_event_handler(Events.STARTED, self._listen)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._let_go)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._let_go)

    def __call__(self, engine: Engine) -> None:
        """Write the rows of the batch that was just predicted."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        logits, features = output[CommonKeys.PRED].float().cpu().numpy(), self._features_of(len(batch["reason"]))
        distances = self.card.novelty.distance(features)
        batch["reason"] = _with_numbers(batch["reason"], logits, distances)
        flags = self._flags(batch, output[CommonKeys.IMAGE], distances)
        rows = []
        for i, reason in enumerate(batch["reason"]):
            path = str(self.data[int(batch["row"][i])]["image"])
            if self.watching and reason and not os.path.exists(path):
                continue
            about = {name: values[i] for name, values in batch["about"].items()}
            row = {**about, "flags": ";".join(flags[i]), "reason": reason, "novelty": None}
            row |= self._results(row, logits[i])
            if not reason:
                row["novelty"] = round(float(distances[i] / self.card.novelty.threshold), 4)
            if self.outputs.paths:
                row["path"] = escape(path)
            if self.outputs.embeddings and not reason:
                row["features"] = packed(features[i])
            if self._pictures is not None:
                row["reason"] = self._pictures(row, output[CommonKeys.IMAGE][i], path) or reason
            rows.append(row)
        self.journal.append(rows)

    def _results(self, row: Mapping[str, Any], logits: np.ndarray) -> dict[str, Any]:
        """Logits as they are, probabilities for display, decisions where nothing speaks against one."""
        undecided = {"decisions": [None] * len(self.card.findings)}
        if row["reason"]:
            return {"logits": None, "probabilities": None, **undecided}
        shown = [round(float(value), 6) for value in self.card.probabilities(logits[None])[0]]
        decided = undecided if row["flags"] else {"decisions": self.card.decisions(logits[None])[0]}
        return {"logits": logits.tolist(), "probabilities": shown, **decided}

    def _listen(self, engine: Engine) -> None:
        self._let_go(engine)  # Ctrl-C in a notebook can leave the hook of a run behind
        self._hook = self.network.encoder.register_forward_hook(self._remember)

    def _remember(self, module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        self._features = output.detach().float().cpu()

    def _features_of(self, images: int) -> np.ndarray:
        """The encoder's output of this batch, once: what is left of another batch is never taken for it."""
        features, self._features = self._features, None
        if features is None or len(features) != images:
            came = "none" if features is None else f"those of {len(features)}"
            raise RuntimeError(
                f"the encoder's features of {images} images are needed, {came} came; the evaluator must run the "
                "writer's network once a batch"
            )
        return features.numpy()

    def _let_go(self, engine: Engine, error: BaseException | None = None) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._features = None
        if error is not None:
            raise error

    def _flags(self, batch: Any, images: Tensor, distances: np.ndarray) -> list[list[str]]:
        flags = [[flag for flag in text.split(";") if flag] for text in batch["about"]["flags"]]
        far = [
            i for i, reason in enumerate(batch["reason"]) if not reason and distances[i] > self.card.novelty.threshold
        ]
        if far:
            with torch.no_grad():
                turned = self.network.encoder(1 - images[far].float()).float().cpu().numpy()
            for i, still in zip(far, self.card.novelty.is_novel(turned), strict=True):
                flags[i].append(NOVEL if still else INVERTED)
        chests = batch.get("chest", [True] * len(flags))  # a dataset of another kind says nothing of its pixels
        for i, (reason, chest) in enumerate(zip(batch["reason"], chests, strict=True)):
            if not (reason or flags[i] or chest):
                flags[i].append(NO_CHEST)
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


def _with_numbers(reasons: Sequence[str], logits: np.ndarray, distances: np.ndarray) -> list[str]:
    """Reasons, with one for every image of which the network gave no finite numbers: NaN is below no threshold."""
    finite = np.isfinite(logits).all(axis=1) & np.isfinite(distances)
    return [reason or ("" if fine else _NOT_A_NUMBER) for reason, fine in zip(reasons, finite, strict=True)]
