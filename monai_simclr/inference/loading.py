"""The trained weights of a bundle's evaluator, whoever runs it."""

from __future__ import annotations

from ignite.engine import Engine
from monai.handlers.checkpoint_loader import CheckpointLoader

from monai_simclr.networks import load_classifier


class LoadClassifier(CheckpointLoader):
    """MONAI's `CheckpointLoader` with the checks of `load_classifier`: damage, findings, and what makes a missing file.

    It loads when the evaluator starts for the first time, and not again: while a folder is watched, all rows come from
    the same weights.

    Args:
        load_path: the classifier that ``configs/train.json`` wrote.
        load_dict: the network, under any name, without DistributedDataParallel around it.

    Raises:
        FileNotFoundError: on the start, if there is no file: predictions would come from random weights.
        ValueError: on the start, if the weights belong to another encoder or to other findings, or were altered.
    """

    def __init__(self, load_path: str, load_dict: dict) -> None:
        super().__init__(load_path, load_dict)
        self.loaded = False

    def __call__(self, engine: Engine) -> None:
        if not self.loaded:
            (network,) = self.load_dict.values()
            load_classifier(network, self.load_path, next(network.parameters()).device)
        self.loaded = True
