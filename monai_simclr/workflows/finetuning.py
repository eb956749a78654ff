"""How fine-tuning of a pretrained encoder with few labels begins."""

from __future__ import annotations

import logging
from typing import Literal, get_args

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch.utils.data import default_collate

from monai_simclr.data import StoreDataset
from monai_simclr.evaluation import probe_layer
from monai_simclr.networks import FindingClassifier
from monai_simclr.runtime.distributed import is_main_process, share_weights

logger = logging.getLogger("monai_simclr.training")

HeadStart = Literal["probe", "random"]
"""What the classifier's last layer is when fine-tuning begins: a linear probe on the encoder, or random weights."""

_C = 0.01
"""Inverse strength of the probe's penalty, for the sum over images, whatever the number of their views."""
_MOST_VIEWS, _BATCH = 20_000, 256


class FewLabelStart:
    """Begin fine-tuning where a linear probe ends, and keep the batch statistics where labels are few.

    From a random last layer the first gradients spoil the features that pretraining made (Kumar et al., "Fine-tuning
    can distort pretrained features", ICLR 2022). So the layer starts as the logistic regression of `probe_layer`, here
    on views of the labelled images. Attach it to the trainer after `LoadEncoder`. With several ranks the first one fits
    it for all.

    Args:
        network: the classifier, without DistributedDataParallel around it.
        dataset: the labelled images, which makes views of them.
        head_start: ``"probe"``, or ``"random"``, which leaves the layer as it is.
        head_views: number of views of an image that the probe is fitted on; fewer where that were over 20,000 in all.
        freeze_batch_norm_below: number of labelled images below which batch statistics are frozen; 0 never freezes.
        balance: of the training loss; with ``"class_weights"`` the probe's classes are balanced too.
        pretrained: without it nothing is done: a probe on a random encoder fits features that training replaces at
            once, and such an encoder has no statistics to keep.

    Raises:
        ValueError: if there is no such start, or it has no view.
    """

    def __init__(
        self,
        network: FindingClassifier,
        dataset: StoreDataset,
        head_start: HeadStart = "probe",
        head_views: int = 8,
        freeze_batch_norm_below: int = 0,
        balance: str = "none",
        pretrained: bool = True,
    ) -> None:
        if head_start not in get_args(HeadStart) or head_views < 1:
            starts = ", ".join(get_args(HeadStart))
            raise ValueError(f"head_start is one of {starts}, of 1 view or more; got {head_start!r} of {head_views}")
        self.network, self.dataset = network, dataset
        self.fits_probe = pretrained and head_start == "probe"
        self.keeps_statistics = pretrained and len(dataset) < freeze_batch_norm_below
        self.views = max(1, min(head_views, _MOST_VIEWS // max(1, len(dataset))))
        self.class_weight = "balanced" if balance == "class_weights" else None

    def attach(self, engine: SupervisedTrainer) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Freeze the statistics; when a run starts, and not when it resumes, set the last layer too."""
        if self.keeps_statistics:
            self.network.freeze_batch_statistics()
            logger.info(f"batch statistics stay the encoder's: {len(self.dataset)} labelled images make poor ones")
        if self.fits_probe and engine.state.iteration == 0 and len(self.dataset):  # an empty store raises at a batch
            if is_main_process():
                self._fit(engine)
            share_weights(self.network.classifier)

    @torch.no_grad()
    def _fit(self, engine: SupervisedTrainer) -> None:
        self.network.eval()
        features, labels = [], []
        keys = [(epoch, position) for epoch in range(self.views) for position in range(len(self.dataset))]
        for start in range(0, len(keys), _BATCH):
            items = self.dataset.__getitems__(keys[start : start + _BATCH])
            batch = default_collate(items) if isinstance(items, list) else items
            images, known = engine.prepare_batch(batch, engine.state.device)
            features.append(engine.inferer(images, self.network.encoder).float().cpu().numpy())
            labels.append(known.cpu().numpy())
        found = probe_layer(np.concatenate(features), np.concatenate(labels), self.class_weight, _C / self.views)
        layer = self.network.classifier
        for parameter, values in zip((layer.weight, layer.bias), found, strict=True):
            parameter.copy_(torch.from_numpy(values))
        logger.info(
            f"the last layer starts as a logistic regression on {self.views} views of each of {len(self.dataset)} "
            "labelled images"
        )
