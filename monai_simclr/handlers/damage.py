"""Images that cannot be read, met in training: counted, listed, and too many of them end the run."""

from __future__ import annotations

import logging
from pathlib import Path

from ignite.engine import Engine, Events

from monai_simclr.runtime.distributed import is_main_process, rank
from monai_simclr.runtime.tables import write_rows

logger = logging.getLogger("monai_simclr.training")


class SkipUnreadable:
    """Keep a list of the images that `StoreDataset` had to replace, in a file, and stop when they are too many.

    Args:
        path: CSV file, `row` and `reason`, written when the first damaged image is met. Every rank lists its own.
        images: how many there are.
        max_share: share of them that may be unreadable.

    Raises:
        ValueError: when more are (says how many, and why the first).
    """

    def __init__(self, path: str | Path, images: int, max_share: float = 0.05) -> None:
        path = Path(path)
        self.path = path if is_main_process() else path.with_suffix(f".rank{rank()}{path.suffix}")
        self.images, self.max_share = images, max_share
        self.found: dict[int, str] = {}

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def state_dict(self) -> dict[str, str]:
        """What was found, by row."""
        return {str(row): reason for row, reason in self.found.items()}

    def load_state_dict(self, state: dict[str, str]) -> None:
        """Go on with what was found."""
        self.found = {int(row): reason for row, reason in state.items()}

    def __call__(self, engine: Engine) -> None:
        batch = engine.state.batch
        said: list[str] = [text for text in batch.get("damage", ()) if text] if isinstance(batch, dict) else []
        before = len(self.found)
        for text in said:
            row, _, reason = text.partition(": ")
            self.found.setdefault(int(row), reason)
        if len(self.found) == before:
            return
        self._write()
        first, why = next(iter(self.found.items()))
        sentence = f"{len(self.found)} of {self.images} images could not be used, the first is row {first}: {why}"
        if len(self.found) > self.max_share * self.images:
            raise ValueError(f"{sentence}; more than {self.max_share:.0%} are damaged; see {self.path}")
        logger.warning(f"{sentence}; others are drawn in their place; see {self.path}")

    def _write(self) -> None:
        write_rows(self.path, ["row", "reason"], sorted(self.found.items()))
