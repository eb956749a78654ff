"""Exact resume: the same command continues an interrupted run bit for bit, wherever it was stopped.

Everything random in training has a key, (seed, epoch, image, view) or (seed, iteration, rank), and no history; so the
state of a run is its weights, its optimizer, schedule and scaler, and one number: how many iterations are done.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from monai_simclr.handlers.base import raise_after_all
from monai_simclr.runtime.artefacts import reading
from monai_simclr.runtime.checkpoints import newest_checkpoint, save_checkpoint
from monai_simclr.runtime.distributed import all_gather_int, is_main_process, world_size
from monai_simclr.runtime.files import lacks_space, writing
from monai_simclr.runtime.signals import StopSignals

logger = logging.getLogger("monai_simclr.training")

_FORMAT = 1
_PARTS = ("format", "iteration", "epoch_length", "identity", "objects", "scaler")
_REMEDY = "remove it, and the one before it is used"
_MAX_DIFFERENCES = 8
_REASONS = {
    "precision": " (auto takes what the device computes natively; pass the former --precision to resume on another one)"
}
"""Why a setting can differ although nobody changed it."""
_STEP, _RANKS = "images in a step of all ranks", "world_size"


class Stateful(Protocol):
    """What a checkpoint can hold: state made of tensors, numbers, text, lists and dictionaries."""

    def state_dict(self) -> Any:
        """The state."""

    def load_state_dict(self, state: Any) -> Any:
        """Restore the state."""


def check_same(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse, before any work, to resume from the checkpoints of a folder with other settings.

    Args:
        folder: with checkpoints, or without.
        settings: the known part of the run's identity; `Checkpoint` compares all of it when the trainer starts.

    Raises:
        FileExistsError: names each difference.
    """
    newest = newest_checkpoint(folder)
    if newest is not None:
        then = torch.load(io.BytesIO(newest[1]), map_location="cpu", weights_only=True)["identity"]
        then = {name: value for name, value in then.items() if name not in ("dataset", _STEP, _RANKS)}
        _refuse_other_run(folder, then, {name: str(value) for name, value in settings.items()})


def _refuse_other_run(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differences = [
        f"{name} was {then.get(name, 'not given')}, is {now.get(name, 'not given')}{_REASONS.get(name, '')}"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]
    if differences:
        more = f"; and {len(differences) - _MAX_DIFFERENCES} more" if len(differences) > _MAX_DIFFERENCES else ""
        raise FileExistsError(
            f"{folder} holds another run: {'; '.join(differences[:_MAX_DIFFERENCES])}{more}; use the old values to "
            "resume it, or another --output_dir for a new run"
        )


class Checkpoint:
    """Resume when a trainer starts, save while it runs, save and stop when asked to.

    On SIGTERM, SIGUSR1 and SIGINT the iteration is finished, the state saved, and `Preempted` or `KeyboardInterrupt`
    raised; a second SIGINT stops at once. Several ranks stop after the same iteration; the first rank writes. A
    checkpoint is saved after all other handlers of an iteration or an epoch, in whatever order they are attached.

    Args:
        folder: of the run's checkpoints, on a disk that all ranks share.
        objects: what to save, by name: the network (also in DistributedDataParallel), optimizer, schedule, history.
        identity: what defines the run (data set, batch size, seed, ...), by name, as plain values. Only a run of the
            same identity, and of as many images in a step of all ranks, is resumed; the number of ranks may change.
        every_epochs: epochs between two checkpoints; the last epoch is always saved.
        every_minutes: minutes after which a checkpoint is saved within an epoch.
        every_iterations: iterations between two checkpoints; 0 for none.
        n_saved: number of checkpoints to keep.

    Raises:
        FileExistsError: at the start, if the folder holds another run (names each difference).
        ValueError: at the start, if no checkpoint is whole, the newest is not of this run, or ranks see different ones.
        OSError: if the disk is full; the last checkpoint is kept.
    """

    def __init__(
        self,
        folder: str | Path,
        objects: Mapping[str, Stateful],
        identity: Mapping[str, Any],
        every_epochs: int = 1,
        every_minutes: float = 10.0,
        every_iterations: int = 0,
        n_saved: int = 3,
    ) -> None:
        self.folder, self.n_saved = Path(folder), n_saved
        self.objects: dict[str, Any] = {name: _unwrapped(item) for name, item in objects.items()}
        self.identity = {name: str(value) for name, value in identity.items()}
        self.every_epochs, self.every_minutes, self.every_iterations = every_epochs, every_minutes, every_iterations
        self._networks = [item for item in self.objects.values() if isinstance(item, nn.Module)]
        self._signals = StopSignals()
        self._saved, self._saved_at = -1, time.monotonic()
        self._buffers: list[Tensor] = []
        self._buffers_before: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.ITERATION_STARTED, self._remember_buffers)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._finish)
        raise_after_all(engine)

    def resume(self, engine: Engine) -> None:
        """Restore the newest whole checkpoint, if there is one."""
        newest, iteration = newest_checkpoint(self.folder), 0
        if newest is not None:
            path, content = newest
            with reading(path, "a checkpoint of training", _REMEDY):
                state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                _check_parts(state, self.objects)
            if state["format"] != _FORMAT:
                _refuse_other_run(self.folder, {"format": state["format"]}, {"format": _FORMAT})
            now = {**self._identity(engine), "iterations in an epoch": engine.state.epoch_length}
            then = {**state["identity"], "iterations in an epoch": state["epoch_length"]}
            then.setdefault(_STEP, now[_STEP])  # of a checkpoint that does not say it
            ranks, here = then.pop(_RANKS, "1"), str(world_size())
            _refuse_other_run(self.folder, then, now)
            with reading(path, "a checkpoint of training", _REMEDY):
                self._restore(state, engine)
            iteration = engine.state.iteration
            text = f"resuming from {path}: {_position(engine)}"
            if ranks != here:
                text += f"; on {here} instead of {ranks} ranks, so no longer bit for bit"
            logger.info(text)
        iterations = all_gather_int(iteration)
        if len(set(iterations)) > 1:
            raise ValueError(
                f"the ranks would resume from different iterations, {iterations}; is {self.folder} on a disk that all "
                "of them share?"
            )

    def _identity(self, engine: Engine) -> dict[str, str]:
        images: Any = getattr(engine.state.dataloader, "batch_size", None)
        return {**self.identity, _STEP: str(images and images * world_size())}

    def _restore(self, state: Mapping[str, Any], engine: Engine) -> None:
        for name, item in self.objects.items():
            item.load_state_dict(state["objects"][name])
        scaler: Any = getattr(engine, "scaler", None)
        if scaler is not None and state["scaler"] is not None:
            scaler.load_state_dict(state["scaler"])
        engine.state.iteration = state["iteration"]
        engine.state.epoch, batches = divmod(state["iteration"], engine.state.epoch_length or 1)
        if batches:
            loader: Any = engine.state.dataloader
            if not hasattr(getattr(loader, "sampler", None), "start_at"):
                raise ValueError(
                    f"{self.folder} stopped within epoch {engine.state.epoch + 1}, where this loader cannot resume; "
                    "give it a KeyedSampler"
                )
            loader.sampler.start_at(engine.state.epoch + 1, batches * loader.batch_size)

    def save(self, engine: Engine, iteration: int | None = None) -> Path | None:
        """Save now, on the first rank, unless this iteration is saved already."""
        iteration = engine.state.iteration if iteration is None else iteration
        if iteration == self._saved or not is_main_process():
            return None
        scaler: Any = getattr(engine, "scaler", None)
        state = {
            "format": _FORMAT,
            "iteration": iteration,
            "epoch_length": engine.state.epoch_length,
            "identity": {**self._identity(engine), _RANKS: str(world_size())},
            "objects": {name: item.state_dict() for name, item in self.objects.items()},
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        file = io.BytesIO()
        torch.save(state, file)
        path = save_checkpoint(self.folder, iteration, file.getvalue(), self.n_saved)
        self._saved, self._saved_at = iteration, time.monotonic()
        return path

    def save_before_step(self, engine: Engine) -> str:
        """Save the state from before the current iteration, whose optimizer step must not have run.

        The batch statistics that the forward pass moved are put back. Nothing is written when a weight is not finite.

        Returns:
            What was saved, for an error message.
        """
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._buffers_before)
        tensors = [tensor for network in self._networks for tensor in network.state_dict().values()]
        if not all(bool(tensor.isfinite().all()) for tensor in tensors if isinstance(tensor, Tensor)):
            return f"; weights are not finite, so nothing was saved, and {self.folder} holds the checkpoint before"
        self.save(engine, engine.state.iteration - 1)
        return f"; the run until then is saved in {self.folder}"

    def _start(self, engine: Engine) -> None:
        self.resume(engine)
        self._saved, self._saved_at = engine.state.iteration, time.monotonic()
        self._buffers = [buffer for network in self._networks for buffer in network.buffers()]
        self._buffers_before = [buffer.clone() for buffer in self._buffers]
        # registered here, so that they come after all other handlers
        if not engine.has_event_handler(self._after_step):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        self._signals.catch()

    def _remember_buffers(self, engine: Engine) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers_before, self._buffers)

    def _after_step(self, engine: Engine) -> None:
        if engine.state.iteration % (engine.state.epoch_length or 1):  # else the epoch's handlers come first
            by_count = self.every_iterations and engine.state.iteration % self.every_iterations == 0
            by_time = (time.monotonic() - self._saved_at) / 60 >= self.every_minutes
            self._save_or_stop(engine, bool(by_count or by_time))

    def _after_epoch(self, engine: Engine) -> None:
        state = engine.state
        self._save_or_stop(engine, state.epoch % self.every_epochs == 0 or state.epoch == state.max_epochs)

    def _save_or_stop(self, engine: Engine, due: bool) -> None:
        signal = max(all_gather_int(self._signals.received))  # of any rank
        if due or signal:
            self.save(engine)
        if signal:
            saved = f"saved in {self.folder} at {_position(engine)}; run the same command to resume"
            self._signals.leave(signal, saved)

    def _finish(self, engine: Engine, error: BaseException | None = None) -> None:
        self._signals.release()
        if isinstance(error, Exception) and lacks_space(error):
            with writing(self.folder.parent):  # a handler that writes there, as TensorBoard's, names no file
                raise error


def _check_parts(state: Any, objects: Mapping[str, Stateful]) -> None:
    """Raise `ValueError` unless a checkpoint has its parts, with possible values."""
    if not isinstance(state, dict) or not set(_PARTS) <= set(state):
        raise ValueError(f"it lacks one of {', '.join(_PARTS)}")
    if isinstance(state["format"], int) and state["format"] != _FORMAT:
        return  # reported as a difference of the run
    if not isinstance(state["iteration"], int) or state["iteration"] < 0:
        raise ValueError(f"its iteration is {state['iteration']!r}")
    if not isinstance(state["identity"], dict) or not all(isinstance(v, str) for v in state["identity"].values()):
        raise ValueError("its identity is not a mapping of text")
    if not isinstance(state["objects"], dict) or not isinstance(state["format"], int):
        raise ValueError("its objects are not a mapping, or its format is not a number")
    missing = sorted(set(objects) - set(state["objects"]))
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for name, item in objects.items():
        weights = state["objects"][name] if isinstance(item, nn.Module) else {}
        if not all(bool(value.isfinite().all()) for value in weights.values() if isinstance(value, Tensor)):
            raise ValueError(f"the weights of {name} are not finite")


def _unwrapped(item: Any) -> Any:
    """A network without DistributedDataParallel and torch.compile around it."""
    item = getattr(item, "_orig_mod", item)
    return item.module if isinstance(item, nn.parallel.DistributedDataParallel) else item


def _position(engine: Engine) -> str:
    state = engine.state
    done, total = state.iteration, (state.epoch_length or 0) * (state.max_epochs or 0)
    if done >= total:
        return f"finished, all {state.max_epochs} epochs are done and nothing is left to train"
    return f"iteration {done} of {total} (epoch {done // (state.epoch_length or 1) + 1} of {state.max_epochs})"
