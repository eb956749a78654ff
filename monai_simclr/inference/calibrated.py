"""From a network's logits to the probabilities that the card promises, as one step of a MONAI pipeline."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform

from monai_simclr.inference.card import read_inference_config
from monai_simclr.runtime.artefacts import reading

_BELOW_ONE = 1 - 2**-24
"""The largest float32 below 1: MONAI Deploy reads the whole part of a probability as the number of a class."""


class Calibratedd(MapTransform):
    """Turn logits ``(K,)`` into probabilities, ``sigmoid(logit / temperature)``, always below 1, and into decisions.

    Decisions are taken on the logits, before a probability is rounded or reaches 0 or 1: under ``"KEY_decision"``,
    int64, 1 where the logit is at least the threshold, 0 below, -1 where there is no threshold or the logit is not
    finite.

    Args:
        keys: keys of the logits.
        temperatures: one a finding, in the order of the logits.
        thresholds: logits, one a finding, None where there is none; no decisions are made when left out.

    Raises:
        ValueError: if a temperature is not above 0, or the number of logits is another.

    Example:
        >>> made = Calibratedd("pred", [1.0, 2.0], [0.5, None])({"pred": torch.tensor([0.0, 0.0])})
        >>> made["pred"], made["pred_decision"]
        (tensor([0.5000, 0.5000]), tensor([ 0, -1]))
    """

    def __init__(
        self, keys: KeysCollection, temperatures: Sequence[float], thresholds: Sequence[float | None] | None = None
    ) -> None:
        super().__init__(keys)
        if not all(0 < temperature < math.inf for temperature in temperatures):
            raise ValueError(f"temperatures must be finite and greater than 0, got {list(temperatures)}")
        self.temperatures = torch.tensor(temperatures, dtype=torch.float32)
        known = None if thresholds is None else [float("nan") if one is None else one for one in thresholds]
        self.thresholds = None if known is None else torch.tensor(known, dtype=torch.float64)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            logits = torch.as_tensor(d[key]).float()
            if self.thresholds is not None and logits.shape[-1] == len(self.thresholds):
                d[f"{key}_decision"] = _decided(logits, self.thresholds.to(logits.device))
            if logits.shape[-1] != len(self.temperatures):
                raise ValueError(f"{len(self.temperatures)} logits are needed, got {tuple(logits.shape)}")
            temperatures = self.temperatures.to(logits.device)
            d[key] = torch.sigmoid(logits / temperatures).clamp(max=_BELOW_ONE)
        return d


def postprocessing(findings: Sequence[str], operating: str | None, ckpt_path: str | Path) -> Compose:
    """Give the step from logits under ``"pred"`` to calibrated probabilities, for runtimes that know only the bundle.

    Args:
        findings: names of the logits, in order.
        operating: what `monai-simclr export` wrote into the metadata; None in a bundle that was not exported. Of an
            earlier version it has no thresholds as logits, and there are no decisions.
        ckpt_path: the classifier, whose card is read where `operating` is None.

    Raises:
        FileNotFoundError: if neither says how logits are calibrated.
        KeyError: if a finding has no temperature.
    """
    if operating is not None:
        with reading("metadata.json", "the metadata of an exported classifier", "export it again"):
            found = json.loads(operating)
            for one in found.values():
                one["temperature"] = float(one["temperature"])
    elif Path(ckpt_path).is_file():
        card = read_inference_config(ckpt_path)
        found = {
            name: {"temperature": one.temperature, "threshold_logit": one.threshold}
            for name, one in card.operating.items()
        }
    else:
        raise FileNotFoundError(
            f"neither the metadata nor {ckpt_path} say how the logits are calibrated; export the bundle with "
            "`monai-simclr export BUNDLE -o model.ts`, or start in the bundle's folder"
        )
    known = all("threshold_logit" in found[name] for name in findings)
    thresholds = [found[name]["threshold_logit"] for name in findings] if known else None
    return Compose([Calibratedd("pred", [found[name]["temperature"] for name in findings], thresholds)])


def _decided(logits: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """Decisions on logits, compared in float64, which holds every float32 exactly."""
    known = torch.isfinite(thresholds) & torch.isfinite(logits)
    return torch.where(known, (logits.double() >= thresholds).long(), -1)
