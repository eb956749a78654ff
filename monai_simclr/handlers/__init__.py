"""Ignite handlers: what happens around a run, not in it."""

from monai_simclr.handlers.checkpoint import Checkpoint as Checkpoint
from monai_simclr.handlers.damage import DamagedImages as DamagedImages
from monai_simclr.handlers.group import HandlerGroup as HandlerGroup
from monai_simclr.handlers.guard import ClipGradients as ClipGradients
from monai_simclr.handlers.guard import KeyedNoise as KeyedNoise
from monai_simclr.handlers.guard import StopOnNonFinite as StopOnNonFinite
from monai_simclr.handlers.monitor import ContrastiveMonitor as ContrastiveMonitor
from monai_simclr.handlers.probe import LinearProbe as LinearProbe
from monai_simclr.handlers.progress import Progress as Progress
from monai_simclr.handlers.scores import KeepBest as KeepBest
from monai_simclr.handlers.scores import MeanAUROC as MeanAUROC

__all__ = [
    "Checkpoint",
    "ClipGradients",
    "ContrastiveMonitor",
    "DamagedImages",
    "HandlerGroup",
    "KeepBest",
    "KeyedNoise",
    "LinearProbe",
    "MeanAUROC",
    "Progress",
    "StopOnNonFinite",
]
