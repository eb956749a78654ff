"""What a person sees of a run: a bar with the loss on a terminal, one line an epoch in a log; and the history."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from monai_simclr.runtime.distributed import is_main_process, world_size

logger = logging.getLogger("monai_simclr.training")

_STARVED = 0.3
"""Share of the time spent waiting for data from which on it is said."""

_SHOWN = 0.5
"""Seconds between two looks at the loss on a bar: each look waits for the device."""


class Progress:
    """Show a trainer's progress and keep one record an epoch.

    Args:
        name: what is running, for the bar and the lines.

    Attributes:
        history: one dict an epoch: `epoch`, `loss` (mean over its iterations), `images_per_second` (images, not views,
            on all ranks), `data_share` (of the time, spent waiting for data), `seconds`. They also go to
            ``engine.state.metrics``, where MONAI's TensorBoard and MLflow handlers find them.
    """

    def __init__(self, name: str = "training") -> None:
        self.name = name
        self.history: list[dict[str, float]] = []
        self._clear()
        self._resumed = False
        self._bar: Bar | None = None
        self._shown, self._starved = 0.0, False

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._wait)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._got)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)
        engine.add_event_handler(Events.COMPLETED, self._stop)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._stop)
        raise_after_all(engine)

    def state_dict(self) -> dict[str, Any]:
        """The history, and what the epoch so far adds up to: plain numbers."""
        seconds = self._seconds + time.perf_counter() - self._started
        sums = {"images": self._images, "seconds": seconds, "waited": self._waited}
        return {"history": self.history, "losses": [float(loss) for loss in self._losses], **sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, also in the middle of an epoch."""
        self.history = list(state["history"])
        self._losses[:] = [torch.tensor(loss) for loss in state["losses"]]
        self._images, self._seconds, self._waited = state["images"], state["seconds"], state["waited"]
        self._resumed = True

    def _clear(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._images, self._seconds, self._waited = 0, 0.0, 0.0
        self._started = self._asked = time.perf_counter()

    def _start(self, engine: Engine) -> None:
        if not (sys.stderr.isatty() and is_main_process()):
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, TextColumn("loss {task.fields[loss]}"))
        total = (engine.state.max_epochs or 1) * (engine.state.epoch_length or 1)
        self._task = self._bar.add_task(self.name, total=total, loss="-")
        self._bar.start()

    def _start_epoch(self, engine: Engine) -> None:
        if not self._resumed:
            self._clear()
        self._resumed = False
        self._started = time.perf_counter()

    def _wait(self, engine: Engine) -> None:
        self._asked = time.perf_counter()

    def _got(self, engine: Engine) -> None:
        self._waited += time.perf_counter() - self._asked

    def _step(self, engine: Engine) -> None:
        output = batch_output(engine)
        self._losses.append(output[CommonKeys.LOSS].detach())
        batch = engine.state.batch
        views = len(output[CommonKeys.IMAGE])
        self._images += world_size() * (len(batch["row"]) if isinstance(batch, dict) and "row" in batch else views)
        if self._bar is not None and time.perf_counter() - self._shown > _SHOWN:
            self._shown = time.perf_counter()
            self._bar.update(self._task, completed=engine.state.iteration, loss=f"{float(self._losses[-1]):.3f}")

    def _finish_epoch(self, engine: Engine) -> None:
        seconds = self._seconds + time.perf_counter() - self._started
        record = {
            "epoch": engine.state.epoch,
            "loss": float(torch.tensor([float(loss) for loss in self._losses]).mean()),
            "images_per_second": self._images / seconds,
            "data_share": self._waited / seconds,
            "seconds": seconds,
        }
        self.history.append(record)
        self._clear()
        engine.state.metrics.update({name: value for name, value in record.items() if name != "epoch"})
        if self._bar is None:
            logger.info(self._line(engine, record))
        if record["data_share"] > _STARVED and not self._starved:
            self._starved = True  # once a run is enough
            logger.warning(
                f"epoch {engine.state.epoch}: {record['data_share']:.0%} of the time went into waiting for data; raise "
                "--num_workers, or make the views on the device"
            )

    def _line(self, engine: Engine, record: dict[str, float]) -> str:
        metrics = engine.state.metrics
        parts = [f"{self.name}: epoch {engine.state.epoch}/{engine.state.max_epochs}, loss {record['loss']:.4f}"]
        if "chance_loss" in metrics:
            parts[0] += f" (chance {metrics['chance_loss']:.2f})"
            parts.append(f"partner found {metrics['top1']:.0%} (chance {metrics['chance']:.2%})")
            parts.append(f"effective rank {metrics['effective_rank']:.0f}")
        parts += [f"{record['images_per_second']:.0f} images/s", f"{record['data_share']:.0%} waiting for data"]
        return ", ".join(parts)

    def _stop(self, engine: Engine, error: BaseException | None = None) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=engine.state.iteration)
            self._bar.stop()
            self._bar = None


def batch_output(engine: Engine) -> dict[str, Any]:
    """The output of an iteration as one dictionary, from a trainer whose output is a dictionary, or a list of one."""
    output: Any = engine.state.output
    return output[0] if isinstance(output, list) else output


def raise_after_all(engine: Engine) -> None:
    """Have an error raised after all handlers of it; Ignite swallows an error that has a handler."""
    if engine.has_event_handler(_raise, Events.EXCEPTION_RAISED):
        engine.remove_event_handler(_raise, Events.EXCEPTION_RAISED)
    engine.add_event_handler(Events.EXCEPTION_RAISED, _raise)


def _raise(engine: Engine, error: BaseException) -> None:
    raise error
