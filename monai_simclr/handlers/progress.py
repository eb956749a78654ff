"""What a person sees of a run: a bar with the loss on a terminal, one line an epoch in a log; and the history."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys, IterationEvents
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

__all__ = ["Progress", "StopOnNonFinite"]

logger = logging.getLogger("monai_simclr.training")


class Progress:
    """Show a trainer's progress and keep one record an epoch.

    Args:
        name: what is running, for the bar and the lines.

    Attributes:
        history: one dict an epoch: `epoch`, `loss` (mean over its iterations), `images_per_second`, `seconds`.
    """

    def __init__(self, name: str = "training") -> None:
        self.name = name
        self.history: list[dict[str, float]] = []
        self._losses: list[torch.Tensor] = []
        self._images, self._started = 0, 0.0
        self._bar: Bar | None = None

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)
        engine.add_event_handler(Events.COMPLETED, self._stop)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._raise)

    def _start(self, engine: Engine) -> None:
        if not sys.stderr.isatty():
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, TextColumn("loss {task.fields[loss]}"))
        total = (engine.state.max_epochs or 1) * (engine.state.epoch_length or 1)
        self._task = self._bar.add_task(self.name, total=total, loss="-")
        self._bar.start()

    def _start_epoch(self, engine: Engine) -> None:
        self._losses, self._images, self._started = [], 0, time.perf_counter()

    def _step(self, engine: Engine) -> None:
        output: Any = engine.state.output
        output = output[0] if isinstance(output, list) else output
        self._losses.append(output[CommonKeys.LOSS].detach())
        self._images += len(output[CommonKeys.IMAGE])
        if self._bar is not None:
            self._bar.update(self._task, advance=1, loss=f"{float(self._losses[-1]):.3f}")

    def _finish_epoch(self, engine: Engine) -> None:
        seconds = time.perf_counter() - self._started
        record = {
            "epoch": engine.state.epoch,
            "loss": float(torch.stack(self._losses).mean()),
            "images_per_second": self._images / seconds,
            "seconds": seconds,
        }
        self.history.append(record)
        if self._bar is None:
            speed = f"{record['images_per_second']:.0f} images/s"
            logger.info(
                f"{self.name}: epoch {engine.state.epoch}/{engine.state.max_epochs}, loss {record['loss']:.4f}, {speed}"
            )

    def _stop(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _raise(self, engine: Engine, error: BaseException) -> None:
        self._stop(engine)
        raise error


class StopOnNonFinite:
    """Stop before the optimizer steps when the loss is NaN or infinite, so that no weight is spoilt.

    Raises:
        FloatingPointError: names the iteration and the rows of the batch.
    """

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        loss = cast(Any, engine.state.output)[CommonKeys.LOSS].detach()
        if torch.isfinite(loss).all():
            return
        batch = engine.state.batch
        rows = batch.get("row") if isinstance(batch, dict) else None
        which = "" if rows is None else f" of the rows {[int(row) for row in rows][:20]}"
        raise FloatingPointError(
            f"the loss is {float(loss.mean())} at iteration {engine.state.iteration}, on a "
            f"batch{which}; no step was taken; "
            "look at these images, or lower the learning rate"
        )
