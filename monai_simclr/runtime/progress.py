"""Progress of work on many images: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress

Progress = Callable[[int, int, int], None]
"""Called with the number of images that are done, of all images, and of those that were refused."""

_SECONDS = 10.0


@dataclass(frozen=True)
class Wording:
    """The words for a piece of work: "decoding", "decoded", "rejected" ("" if nothing can be), the logger, the unit."""

    name: str
    done: str
    refused: str = ""
    logger: str = "monai_simclr"
    unit: str = "images"


DECODING = Wording("decoding", "decoded", "rejected", "monai_simclr.data")


class LoggedProgress:
    """One line in the log every ten seconds: how many images, how fast, and the time left."""

    def __init__(self, wording: Wording = DECODING) -> None:
        self.wording, self.started, self.logged = wording, 0.0, 0.0
        self.first: int | None = None

    def __call__(self, done: int, total: int, refused: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.started, self.logged = done, now, now
        if now - self.logged < _SECONDS:
            return
        self.logged = now
        speed, unit = (done - self.first) / (now - self.started), self.wording.unit
        left = f"about {(total - done) / max(speed, 1e-9) / 60:.0f} min left"
        others = f" {refused} {self.wording.refused}," if self.wording.refused else ""
        logging.getLogger(self.wording.logger).info(
            f"{self.wording.done} {done:,} of {total:,} {unit},{others} {speed:.0f} {unit}/s, {left}"
        )


def make_bar(*texts: str, counts: bool = True) -> rich.progress.Progress:
    """A bar on stderr with its name, counts or percents, the time left, and a column for each template of `texts`.

    Nothing is drawn where stderr is not a terminal.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn() if counts else TaskProgressColumn())
    period = 30 if counts else 600  # seconds over which the speed is estimated: percents come seldom
    return Progress(
        *columns,
        TimeRemainingColumn(),
        *map(TextColumn, texts),
        console=Console(file=sys.stderr),  # this one, also while sys.stderr is redirected
        disable=not sys.stderr.isatty(),
        speed_estimate_period=period,
    )


@contextmanager
def shown_progress(wording: Wording = DECODING) -> Iterator[Progress]:
    """Show a bar on stderr while the block runs, or log lines where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield LoggedProgress(wording)
        return
    with make_bar(*([f"{{task.fields[refused]}} {wording.refused}"] if wording.refused else [])) as bar:
        task = bar.add_task(wording.name, total=None, refused=0)
        yield lambda done, total, refused: bar.update(task, completed=done, total=total, refused=refused)
