"""Ignite handlers: what happens around a training run."""

from monai_simclr.handlers.base import HandlerGroup as HandlerGroup
from monai_simclr.handlers.checkpoint import Checkpoint as Checkpoint
from monai_simclr.handlers.damage import SkipUnreadable as SkipUnreadable
from monai_simclr.handlers.guard import ClipGradNorm as ClipGradNorm
from monai_simclr.handlers.guard import SeedEachStep as SeedEachStep
from monai_simclr.handlers.guard import TerminateOnNonFinite as TerminateOnNonFinite
from monai_simclr.handlers.monitor import ContrastiveMonitor as ContrastiveMonitor
from monai_simclr.handlers.progress import Progress as Progress
from monai_simclr.handlers.validation import EarlyStopping as EarlyStopping
from monai_simclr.handlers.validation import LinearProbe as LinearProbe
from monai_simclr.handlers.validation import MeanAUROC as MeanAUROC

__all__ = [
    "Checkpoint",
    "ClipGradNorm",
    "ContrastiveMonitor",
    "EarlyStopping",
    "HandlerGroup",
    "LinearProbe",
    "MeanAUROC",
    "Progress",
    "SeedEachStep",
    "SkipUnreadable",
    "TerminateOnNonFinite",
]
