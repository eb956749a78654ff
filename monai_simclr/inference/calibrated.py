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

from monai_simclr.artefacts import reading
from monai_simclr.inference.card import read_card

__all__ = ["Calibratedd", "postprocessing"]

_BELOW_ONE = 1 - 2**-24
"""The largest float32 below 1: MONAI Deploy reads the whole part of a probability as the number of a class."""


class Calibratedd(MapTransform):
    """Turn logits ``(K,)`` into probabilities, ``sigmoid(logit / temperature)``, always below 1.

    Args:
        keys: keys of the logits.
        temperatures: one a finding, in the order of the logits.

    Raises:
        ValueError: if a temperature is not above 0, or the number of logits is another.

    Example:
        >>> Calibratedd("pred", [1.0, 2.0])({"pred": torch.tensor([0.0, 0.0])})["pred"]
        tensor([0.5000, 0.5000])
    """

    def __init__(self, keys: KeysCollection, temperatures: Sequence[float]) -> None:
        super().__init__(keys)
        if not all(0 < temperature < math.inf for temperature in temperatures):
            raise ValueError(f"temperatures must be finite and greater than 0, got {list(temperatures)}")
        self.temperatures = torch.tensor(temperatures, dtype=torch.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            logits = torch.as_tensor(d[key]).float()
            if logits.shape[-1] != len(self.temperatures):
                raise ValueError(f"{len(self.temperatures)} logits are needed, got {tuple(logits.shape)}")
            temperatures = self.temperatures.to(logits.device)
            d[key] = torch.sigmoid(logits / temperatures).clamp(max=_BELOW_ONE)
        return d


def postprocessing(findings: Sequence[str], operating: str | None, ckpt_path: str | Path) -> Compose:
    """Give the step from logits under ``"pred"`` to calibrated probabilities, for runtimes that know only the bundle.

    Args:
        findings: names of the logits, in order.
        operating: what `monai-simclr export` wrote into the metadata; None in a bundle that was not exported.
        ckpt_path: the classifier, whose card is read where `operating` is None.

    Raises:
        FileNotFoundError: if neither says how logits are calibrated.
        KeyError: if a finding has no temperature.
    """
    if operating is not None:
        with reading("metadata.json", "the metadata of an exported classifier", "export it again"):
            found = {name: float(one["temperature"]) for name, one in json.loads(operating).items()}
    elif Path(ckpt_path).is_file():
        found = {name: one.temperature for name, one in read_card(ckpt_path).operating.items()}
    else:
        raise FileNotFoundError(
            f"neither the metadata nor {ckpt_path} say how the logits are calibrated; export the bundle with "
            "`monai-simclr export BUNDLE -o model.ts`, or start in the bundle's folder"
        )
    return Compose([Calibratedd("pred", [found[name] for name in findings])])
