"""What happens before a step: a check that numbers are finite, gradient clipping, a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys, IterationEvents
from torch import Tensor

from monai_simclr.handlers.base import batch_output, rank_path
from monai_simclr.runtime.distributed import all_gather_int, rank
from monai_simclr.runtime.files import write_json

_MAX_ROWS = 20


class TerminateOnNonFinite:
    """Stop before the optimizer's step when projections, loss or gradients are not finite.

    So no weight becomes NaN (Ignite's `TerminateOnNan` looks after the step). All ranks stop, whichever has the bad
    batch. With a gradient scaler (float16) gradients are left to the scaler, which skips such steps.

    Args:
        report: JSON file for the iteration, the learning rate and the rows of the batch; None for no file.
        save: called with the trainer before the error is raised, as `Checkpoint.save_before_step`; the text that it
            returns is added to the error.

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
        finite = all_gather_int(int(torch.isfinite(batch_output(engine)[CommonKeys.PRED].detach()).all()))
        if not all(finite):
            ranks = [number for number, is_finite in enumerate(finite) if not is_finite]
            where = f" on the ranks {ranks}" if len(finite) > 1 else ""
            self._stop(engine, f"the projections are not finite{where}")

    def _check_gradients(self, engine: Engine) -> None:
        loss = batch_output(engine)[CommonKeys.LOSS].detach().float().mean()
        scaled = getattr(engine, "scaler", None) is not None
        norm = loss if scaled else grad_norm(engine.network)  # type: ignore[attr-defined]
        loss_value, norm_value = torch.stack([loss, norm.to(loss.device)]).tolist()  # waits for the device once
        if not math.isfinite(loss_value):
            self._stop(engine, f"the loss is {loss_value}")
        if not math.isfinite(norm_value):
            self._stop(engine, "the gradients are not finite")

    def _stop(self, engine: Engine, what: str) -> None:
        state, batch = engine.state, engine.state.batch
        rows = [int(row) for row in batch["row"]] if isinstance(batch, dict) and "row" in batch else None
        rate = engine.optimizer.param_groups[0]["lr"]  # type: ignore[attr-defined]
        if self.report is not None:
            report = {"what": what, "iteration": state.iteration, "learning_rate": rate, "rows": rows}
            write_json(rank_path(self.report), report)
        saved = self.save(engine) if self.save is not None else ""
        which = "" if rows is None else f" of the rows {rows[:_MAX_ROWS]}" + " and more" * (len(rows) > _MAX_ROWS)
        raise FloatingPointError(
            f"{what} at iteration {state.iteration} (epoch {state.epoch}), at the learning rate {rate:g}, on a "
            f"batch{which}; no step was taken{saved}; look at these images, or lower the learning rate"
        )


class ClipGradNorm:
    """Clip the norm of the gradient of all parameters together (Pascanu et al. 2013).

    Args:
        max_norm: maximum norm, above 0.

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
    """Seed torch before every step with (seed, iteration, rank), so that dropout does not depend on earlier steps.

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
    """One seed from three numbers, by SplitMix64 over them.

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
    """Norm of the gradient of all parameters together, on their device; 0 without gradients."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
