"""Steps that must not be taken, and steps that must not be too long."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys, IterationEvents
from torch import Tensor

from monai_simclr.handlers.progress import batch_output
from monai_simclr.runtime.distributed import all_gather_int, is_main_process, rank
from monai_simclr.runtime.files import write_json

_NAMED = 20


class TerminateOnNonFinite:
    """Stop before the optimizer steps when projections, loss or gradients are not finite, so that no weight is spoilt.

    Every rank stops, whichever has the bad batch. With a gradient scaler (float16) gradients are left to the scaler,
    which skips such steps.

    Args:
        report: JSON file for the iteration, the learning rate and the rows of the batch; none when left out.
        save: called with the trainer before the error is raised, `Checkpoint.save_before_step` for one; what it
            returns, a sentence, is added to the error.

    Raises:
        FloatingPointError: names the iteration, the learning rate and the rows of the batch.
    """

    def __init__(self, report: str | Path | None = None, save: Callable[[Engine], str] | None = None) -> None:
        self.report, self.save = report, save

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._check_outputs)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._check_gradients)

    def _check_outputs(self, engine: Engine) -> None:
        sound = all_gather_int(int(torch.isfinite(batch_output(engine)[CommonKeys.PRED].detach()).all()))
        if not all(sound):
            ranks = [number for number, fine in enumerate(sound) if not fine]
            self._stop(engine, "the projections are not finite" + (f" on the ranks {ranks}" if len(sound) > 1 else ""))

    def _check_gradients(self, engine: Engine) -> None:
        loss = batch_output(engine)[CommonKeys.LOSS].detach().float().mean()
        scaled = getattr(engine, "scaler", None) is not None
        length = loss if scaled else grad_norm(engine.network)  # type: ignore[attr-defined]
        value, slope = torch.stack([loss, length.to(loss.device)]).tolist()  # one wait for the device, not two
        if not math.isfinite(value):
            self._stop(engine, f"the loss is {value}")
        if not math.isfinite(slope):
            self._stop(engine, "the gradients are not finite")

    def _stop(self, engine: Engine, what: str) -> None:
        state, rows = engine.state, _rows(engine)
        rate = engine.optimizer.param_groups[0]["lr"]  # type: ignore[attr-defined]
        if self.report is not None:
            name = Path(self.report) if is_main_process() else Path(self.report).with_suffix(f".rank{rank()}.json")
            write_json(name, {"what": what, "iteration": state.iteration, "learning_rate": rate, "rows": rows})
        saved = self.save(engine) if self.save is not None else ""
        which = "" if rows is None else f" of the rows {rows[:_NAMED]}" + (" and more" if len(rows) > _NAMED else "")
        raise FloatingPointError(
            f"{what} at iteration {state.iteration} (epoch {state.epoch}), at the learning rate {rate:g}, on a "
            f"batch{which}; no step was taken{saved}; look at these images, or lower the learning rate"
        )


class ClipGradNorm:
    """Clip the norm of the gradient of all parameters together (Pascanu et al. 2013).

    Args:
        max_norm: norms up to this one are left alone; above 0.

    Raises:
        ValueError: if `max_norm` is not above 0.
    """

    def __init__(self, max_norm: float) -> None:
        if not max_norm > 0:
            raise ValueError(f"max_norm must be above 0, got {max_norm}; leave the handler out to disable clipping")
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        scaler: Any = getattr(engine, "scaler", None)
        if scaler is not None:
            scaler.unscale_(engine.optimizer)  # type: ignore[attr-defined]
        torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_norm)  # type: ignore[attr-defined]


class SeedEachStep:
    """Seed torch before every step with (seed, iteration, rank): dropout and the like do not depend on what was before.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        torch.manual_seed(step_seed(self.seed, engine.state.iteration, rank()))


def step_seed(seed: int, iteration: int, of_rank: int) -> int:
    """One number for three, different for different ones: SplitMix64 over them.

    Example:
        >>> len({step_seed(seed, step, of) for seed in range(9) for step in range(99) for of in range(8)})
        7128
    """
    mixed = 0
    for number in (seed, iteration, of_rank):
        mixed = (mixed + number + 0x9E3779B97F4A7C15) % 2**64
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        mixed ^= mixed >> 31
    return mixed


def grad_norm(network: torch.nn.Module) -> Tensor:
    """Length of the gradient of all parameters together, on their device; 0 when there is none."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())


def _rows(engine: Engine) -> list[int] | None:
    batch = engine.state.batch
    rows = batch.get("row") if isinstance(batch, dict) else None
    return None if rows is None else [int(row) for row in rows]
