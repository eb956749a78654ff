"""How fine-tuning of a pretrained encoder with few labels begins."""

from __future__ import annotations

import functools
import logging
from typing import Literal, get_args

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_simclr import recipes
from monai_simclr.data import Store
from monai_simclr.engines import embed
from monai_simclr.evaluation import probe_layer
from monai_simclr.networks import FindingClassifier
from monai_simclr.runtime.distributed import is_main_process, share_weights
from monai_simclr.workflows.run import Run

logger = logging.getLogger("monai_simclr.training")

HeadStart = Literal["probe", "random"]
"""What the classifier's last layer is when fine-tuning begins: a linear probe on the encoder, or random weights."""

_ROWS = 4096
"""Images that are in memory at once."""


class FewLabelStart:
    """Begin fine-tuning where a linear probe ends, and keep the batch statistics where labels are few.

    From a random last layer the first gradients spoil the features that pretraining made (Kumar et al., "Fine-tuning
    can distort pretrained features", ICLR 2022). So the layer is set to the logistic regression of `probe_layer` on the
    labelled images. Attach it to the trainer after `LoadEncoder`. With several ranks the first one fits, and all have
    its layer.

    Args:
        network: the classifier, without DistributedDataParallel around it.
        store, rows: the archive's images, and which rows are labelled.
        run: whose size and device.
        head_start: ``"probe"``, or ``"random"``, which leaves the layer as it is.
        freeze_batch_norm_below: number of labelled images below which batch statistics are frozen; 0 never freezes.
        balance: of the training loss; with ``"class_weights"`` the probe's classes are balanced too.
        pretrained: without it nothing is done: a probe on a random encoder fits features that training replaces at
            once, and such an encoder has no statistics to keep.

    Raises:
        ValueError: if there is no such start.
    """

    def __init__(
        self,
        network: FindingClassifier,
        store: Store,
        rows: np.ndarray,
        run: Run,
        head_start: HeadStart = "probe",
        freeze_batch_norm_below: int = 0,
        balance: str = "none",
        pretrained: bool = True,
    ) -> None:
        if head_start not in get_args(HeadStart):
            raise ValueError(f"head_start must be one of {', '.join(get_args(HeadStart))}, got {head_start!r}")
        self.network, self.store, self.rows, self.run = network, store, rows, run
        self.fits_probe = pretrained and head_start == "probe" and len(rows) > 0  # none of an empty store
        self.keeps_statistics = pretrained and len(rows) < freeze_batch_norm_below
        self.class_weight = "balanced" if balance == "class_weights" else None

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Freeze the statistics; at the first start of a run, not when it resumes, set the last layer too."""
        if self.keeps_statistics:
            self.network.freeze_batch_statistics()
            logger.info(f"batch statistics are those of the encoder: {len(self.rows)} labelled images make poor ones")
        if self.fits_probe and engine.state.iteration == 0:
            if is_main_process():
                self._fit()
            share_weights(self.network.classifier)

    def _fit(self) -> None:
        finish = functools.partial(recipes.to_network_input, size=self.run.size)
        chunks = np.array_split(self.rows, -(-len(self.rows) // _ROWS))
        features = [embed(self.network.encoder, self.store.images[rows], finish, self.run.device) for rows in chunks]
        labels = self.store.index[list(self.network.findings)].to_numpy(dtype=float)[self.rows]
        layer = self.network.classifier
        with torch.no_grad():
            for parameter, values in zip(
                (layer.weight, layer.bias),
                probe_layer(np.concatenate(features), labels, self.class_weight),
                strict=True,
            ):
                parameter.copy_(torch.from_numpy(values))
        logger.info(f"the last layer starts as logistic regression on the features of {len(self.rows)} labelled images")
