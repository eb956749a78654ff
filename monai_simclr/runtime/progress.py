"""What a person sees of work on many images: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Progress = Callable[[int, int, int], None]
"""Called with the number of images that are done, of all, and of those that are refused."""

_SECONDS = 10.0


@dataclass(frozen=True)
class Wording:
    """How a piece of work is spoken of.

    Attributes:
        name: what is going on, beside the bar.
        done: what was done to an image.
        refused: what became of the others.
        logger: name of the logger of the lines.
    """

    name: str
    done: str
    refused: str
    logger: str = "monai_simclr"


DECODING = Wording("decoding", "decoded", "rejected", "monai_simclr.data")


class LoggedProgress:
    """One line in the log every ten seconds: how many, how fast, how long still."""

    def __init__(self, wording: Wording = DECODING) -> None:
        self.wording, self.started, self.said = wording, 0.0, 0.0
        self.first: int | None = None

    def __call__(self, done: int, total: int, refused: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.started, self.said = done, now, now
        if now - self.said < _SECONDS:
            return
        self.said = now
        speed = (done - self.first) / (now - self.started)
        left = f"about {(total - done) / max(speed, 1e-9) / 60:.0f} min left"
        words = self.wording
        logging.getLogger(words.logger).info(
            f"{words.done} {done:,} of {total:,} images, {refused} {words.refused}, {speed:.0f} images/s, {left}"
        )


@contextmanager
def shown_progress(wording: Wording = DECODING) -> Iterator[Progress]:
    """Give a bar on stderr while the block runs, or lines in the log where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield LoggedProgress(wording)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    count = TextColumn(f"{{task.fields[refused]}} {wording.refused}")
    with Bar(*columns, count, console=Console(stderr=True)) as bar:
        task = bar.add_task(wording.name, total=None, refused=0)
        yield lambda done, total, refused: bar.update(task, completed=done, total=total, refused=refused)
