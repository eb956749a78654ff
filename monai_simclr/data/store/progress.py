"""What a person sees of a build: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["LoggedProgress", "Progress", "shown_progress"]

logger = logging.getLogger("monai_simclr.data")

Progress = Callable[[int, int, int], None]
"""Called with the number of images that are done, of all, and of those that are rejected."""

_SECONDS = 10.0


class LoggedProgress:
    """One line in the log every ten seconds: how many, how fast, how long still."""

    def __init__(self) -> None:
        self.started = self.said = 0.0
        self.first: int | None = None

    def __call__(self, done: int, total: int, rejected: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.started, self.said = done, now, now
        if now - self.said < _SECONDS:
            return
        self.said = now
        speed = (done - self.first) / (now - self.started)
        left = f"about {(total - done) / max(speed, 1e-9) / 60:.0f} min left"
        logger.info(f"decoded {done:,} of {total:,} images, {rejected} rejected, {speed:.0f} images/s, {left}")


@contextmanager
def shown_progress(name: str) -> Iterator[Progress]:
    """Give a bar on stderr while the block runs, or lines in the log where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield LoggedProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, TextColumn("{task.fields[rejected]} rejected"), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None, rejected=0)
        yield lambda done, total, rejected: bar.update(task, completed=done, total=total, rejected=rejected)
