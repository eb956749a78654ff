"""Progress of training: a bar with the loss on a terminal, one line per epoch in a log; and the history."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys

from monai_simclr.handlers.base import batch_output, raise_after_all
from monai_simclr.runtime.distributed import is_main_process, world_size
from monai_simclr.runtime.progress import make_bar

if TYPE_CHECKING:
    import rich.progress

logger = logging.getLogger("monai_simclr.training")

_STARVED = 0.3
"""Share of the time spent waiting for data from which a warning is logged."""

_REFRESH_SECONDS = 0.5
"""Reading the loss for the bar waits for the device, so it is not done after every step."""


class Progress:
    """Show a trainer's progress and keep one record per epoch.

    Args:
        name: what is running, for the bar and the lines.

    Attributes:
        history: one dict per epoch: `epoch`, `loss` (mean over its iterations), `images_per_second` (images, not views,
            on all ranks), `data_share` (of the time, spent waiting for data), `seconds`. They also go to
            ``engine.state.metrics``, where MONAI's TensorBoard and MLflow handlers find them.
    """

    def __init__(self, name: str = "training") -> None:
        self.name = name
        self.history: list[dict[str, float]] = []
        self._clear()
        self._resumed = False
        self._bar: rich.progress.Progress | None = None
        self._refreshed, self._warned = 0.0, False

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start_waiting)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._stop_waiting)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)
        engine.add_event_handler(Events.COMPLETED, self._stop)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._stop)
        raise_after_all(engine)

    def state_dict(self) -> dict[str, Any]:
        """The history, and the sums of the current epoch: plain numbers."""
        seconds = self._seconds + time.perf_counter() - self._started
        sums = {"images": self._images, "seconds": seconds, "waited": self._waited}
        return {"history": self.history, "losses": [float(loss) for loss in self._losses], **sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`, also in the middle of an epoch."""
        self.history = list(state["history"])
        self._losses[:] = [torch.tensor(loss) for loss in state["losses"]]
        self._images, self._seconds, self._waited = state["images"], state["seconds"], state["waited"]
        self._resumed = True

    def _clear(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._images, self._seconds, self._waited = 0, 0.0, 0.0
        self._started = self._asked = time.perf_counter()

    def _start(self, engine: Engine) -> None:
        if sys.stderr.isatty() and is_main_process():
            self._bar = make_bar("loss {task.fields[loss]}")
            total = (engine.state.max_epochs or 1) * (engine.state.epoch_length or 1)
            self._task = self._bar.add_task(self.name, total=total, loss="-")
            self._bar.start()

    def _start_epoch(self, engine: Engine) -> None:
        if not self._resumed:
            self._clear()
        self._resumed = False
        self._started = time.perf_counter()

    def _start_waiting(self, engine: Engine) -> None:
        self._asked = time.perf_counter()

    def _stop_waiting(self, engine: Engine) -> None:
        self._waited += time.perf_counter() - self._asked

    def _step(self, engine: Engine) -> None:
        output, batch = batch_output(engine), engine.state.batch
        self._losses.append(output[CommonKeys.LOSS].detach())
        images = batch["row"] if isinstance(batch, dict) and "row" in batch else output[CommonKeys.IMAGE]
        self._images += world_size() * len(images)
        if self._bar is not None and time.perf_counter() - self._refreshed > _REFRESH_SECONDS:
            self._refreshed = time.perf_counter()
            self._bar.update(self._task, completed=engine.state.iteration, loss=f"{float(self._losses[-1]):.3f}")

    def _finish_epoch(self, engine: Engine) -> None:
        seconds, metrics = self._seconds + time.perf_counter() - self._started, engine.state.metrics
        record = {
            "epoch": engine.state.epoch,
            "loss": float(torch.tensor([float(loss) for loss in self._losses]).mean()),
            "images_per_second": self._images / seconds,
            "data_share": self._waited / seconds,
            "seconds": seconds,
        }
        self.history.append(record)
        self._clear()
        metrics.update({name: value for name, value in record.items() if name != "epoch"})
        if self._bar is None:
            line = f"{self.name}: epoch {engine.state.epoch}/{engine.state.max_epochs}, loss {record['loss']:.4f}"
            if "chance_loss" in metrics:
                line += (
                    f" (chance {metrics['chance_loss']:.2f}), partner found {metrics['top1']:.0%} "
                    f"(chance {metrics['chance']:.2%}), effective rank {metrics['effective_rank']:.0f}"
                )
            logger.info(
                f"{line}, {record['images_per_second']:.0f} images/s, {record['data_share']:.0%} waiting for data"
            )
        if record["data_share"] > _STARVED and not self._warned:
            self._warned = True
            logger.warning(
                f"epoch {engine.state.epoch}: {record['data_share']:.0%} of the time went into waiting for data; raise "
                "--num_workers, or make the views on the device"
            )

    def _stop(self, engine: Engine, error: BaseException | None = None) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=engine.state.iteration)
            self._bar.stop()
            self._bar = None
