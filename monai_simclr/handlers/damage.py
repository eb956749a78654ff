"""Images that cannot be read in training: counted and listed; too many of them end the run."""

from __future__ import annotations

import logging
from pathlib import Path

from ignite.engine import Engine, Events

from monai_simclr.handlers.base import rank_path
from monai_simclr.runtime.tables import write_rows

logger = logging.getLogger("monai_simclr.training")


class SkipUnreadable:
    """List the images that `StoreDataset` had to replace in a file, and stop when there are too many.

    Args:
        path: CSV file of `row` and `reason`, written at the first unreadable image. Every rank lists its own.
        images: number of images of the data set.
        max_share: maximum share of them that may be unreadable.

    Raises:
        ValueError: when there are more (states how many, and the first reason).
    """

    def __init__(self, path: str | Path, images: int, max_share: float = 0.05) -> None:
        self.path, self.images, self.max_share = rank_path(path), images, max_share
        self.reasons: dict[int, str] = {}

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def state_dict(self) -> dict[str, str]:
        """The reasons by row."""
        return {str(row): reason for row, reason in self.reasons.items()}

    def load_state_dict(self, state: dict[str, str]) -> None:
        """Restore the reasons."""
        self.reasons = {int(row): reason for row, reason in state.items()}

    def __call__(self, engine: Engine) -> None:
        batch = engine.state.batch
        if not isinstance(batch, dict) or "damaged_row" not in batch:
            return
        before = len(self.reasons)
        for row, reason in zip(batch["damaged_row"], batch["damage"], strict=True):
            if reason:
                self.reasons.setdefault(int(row), reason)
        if len(self.reasons) == before:
            return
        write_rows(self.path, ["row", "reason"], sorted(self.reasons.items()))
        row, reason = next(iter(self.reasons.items()))
        problem = f"{len(self.reasons)} of {self.images} images could not be used, the first is row {row}: {reason}"
        if len(self.reasons) > self.max_share * self.images:
            raise ValueError(f"{problem}; more than {self.max_share:.0%} are damaged; see {self.path}")
        logger.warning(f"{problem}; others are drawn in their place; see {self.path}")
