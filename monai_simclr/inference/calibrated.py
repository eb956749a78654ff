"""From a network's logits to calibrated probabilities and decisions, as one step of a MONAI pipeline."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform

from monai_simclr.inference.config import read_inference_config
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
        temperatures: one per finding, in the order of the logits.
        thresholds: logits, one per finding, None where there is none; without them no decisions are made.

    Raises:
        ValueError: if a temperature is not above 0, or the number of thresholds or logits differs.

    Example:
        >>> output = Calibratedd("pred", [1.0, 2.0], [0.5, None])({"pred": torch.tensor([0.0, 0.0])})
        >>> output["pred"], output["pred_decision"]
        (tensor([0.5000, 0.5000]), tensor([ 0, -1]))
    """

    def __init__(
        self, keys: KeysCollection, temperatures: Sequence[float], thresholds: Sequence[float | None] | None = None
    ) -> None:
        super().__init__(keys)
        if not all(0 < temperature < math.inf for temperature in temperatures):
            raise ValueError(f"temperatures must be finite and greater than 0, got {list(temperatures)}")
        if thresholds is not None and len(thresholds) != len(temperatures):
            raise ValueError(
                f"as many thresholds as temperatures are needed, {len(temperatures)}, got {len(thresholds)}"
            )
        self.temperatures = torch.tensor(temperatures, dtype=torch.float32)
        known = None if thresholds is None else [math.nan if value is None else value for value in thresholds]
        self.thresholds = None if known is None else torch.tensor(known, dtype=torch.float64)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            logits = torch.as_tensor(d[key]).float()
            if logits.shape[-1] != len(self.temperatures):
                raise ValueError(f"{len(self.temperatures)} logits are needed, got {tuple(logits.shape)}")
            if self.thresholds is not None:
                thresholds = self.thresholds.to(logits.device)
                known = torch.isfinite(thresholds) & torch.isfinite(logits)
                # compared in float64, which holds every float32 exactly
                d[f"{key}_decision"] = torch.where(known, (logits.double() >= thresholds).long(), -1)
            d[key] = torch.sigmoid(logits / self.temperatures.to(logits.device)).clamp(max=_BELOW_ONE)
        return d


def postprocessing(findings: Sequence[str], operating: str | None, ckpt_path: str | Path) -> Compose:
    """Build the step from logits under ``"pred"`` to calibrated probabilities, for runtimes that know only the bundle.

    Args:
        findings: names of the logits, in order.
        operating: what `monai-simclr export` wrote into the metadata; None in a bundle that was not exported. Exports
            of an earlier version have no thresholds as logits, and give no decisions.
        ckpt_path: the classifier, whose inference config is read where `operating` is None.

    Raises:
        FileNotFoundError: if neither says how logits are calibrated.
        KeyError: if a finding has no temperature.
    """
    if operating is not None:
        with reading("metadata.json", "the metadata of an exported classifier", "export it again"):
            points = {
                name: {**point, "temperature": float(point["temperature"])}
                for name, point in json.loads(operating).items()
            }
    elif Path(ckpt_path).is_file():
        points = {
            name: {"temperature": point.temperature, "threshold_logit": point.threshold}
            for name, point in read_inference_config(ckpt_path).operating.items()
        }
    else:
        raise FileNotFoundError(
            f"neither the metadata nor {ckpt_path} say how the logits are calibrated; export the bundle with "
            "`monai-simclr export BUNDLE -o model.ts`, or start in the bundle's folder"
        )
    known = all("threshold_logit" in points[name] for name in findings)
    thresholds = [points[name]["threshold_logit"] for name in findings] if known else None
    return Compose([Calibratedd("pred", [points[name]["temperature"] for name in findings], thresholds)])
