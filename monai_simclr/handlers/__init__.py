"""Ignite handlers: what happens around a run, not in it."""

from monai_simclr.handlers.monitor import ContrastiveMonitor as ContrastiveMonitor
from monai_simclr.handlers.progress import Progress as Progress
from monai_simclr.handlers.progress import StopOnNonFinite as StopOnNonFinite
from monai_simclr.handlers.scores import MeanAUROC as MeanAUROC

__all__ = ["ContrastiveMonitor", "MeanAUROC", "Progress", "StopOnNonFinite"]
