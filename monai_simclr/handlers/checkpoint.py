"""A run that is never lost: the same command goes on where it was, bit for bit, whatever stopped it.

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

from monai_simclr.handlers.progress import raise_after_all
from monai_simclr.runtime.artefacts import reading
from monai_simclr.runtime.checkpoints import newest_checkpoint, save_checkpoint
from monai_simclr.runtime.distributed import all_gather_int, is_main_process, world_size
from monai_simclr.runtime.files import lacks_space, writing
from monai_simclr.runtime.signals import StopSignals

logger = logging.getLogger("monai_simclr.training")

_FORMAT = 1
_PARTS = ("format", "iteration", "epoch_length", "identity", "objects", "scaler")
_REMEDY = "remove it, and the one before it is taken"
_SHOWN = 8
"""Differences between two runs that a message names."""


class Stateful(Protocol):
    """What a checkpoint can hold: anything with these two, of tensors, numbers, text, lists and dictionaries."""

    def state_dict(self) -> Any:
        """The state."""

    def load_state_dict(self, state: Any) -> Any:
        """Take the state up."""


def check_same(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse, before any work, to go on with the checkpoints of a folder when a run's settings are others.

    Args:
        folder: with checkpoints, or without.
        settings: what of the run's identity is known already; `Checkpoint` compares all of it when the trainer starts.

    Raises:
        FileExistsError: names each difference.
    """
    found = newest_checkpoint(folder)
    if found is None:
        return
    then = torch.load(io.BytesIO(found[1]), map_location="cpu", weights_only=True)["identity"]
    now = {name: str(value) for name, value in settings.items()}
    later = ("dataset", "world_size")
    differ = _differences({name: value for name, value in then.items() if name not in later}, now)
    if differ:
        raise _other_run(folder, differ)


def _differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = [*then, *(name for name in now if name not in then)]
    return [
        f"{name} was {then.get(name, 'not given')}, is {now.get(name, 'not given')}"
        for name in names
        if then.get(name) != now.get(name)
    ]


def _other_run(folder: Path, differ: list[str]) -> FileExistsError:
    more = f"; and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
    return FileExistsError(
        f"{folder} holds another run: {'; '.join(differ[:_SHOWN])}{more}; give the old values to go on with it, or "
        "another --output_dir for a new run"
    )


class Checkpoint:
    """Resume when a trainer starts, save while it runs, save and stop when it is asked to.

    On SIGTERM, SIGUSR1 and SIGINT the iteration is finished, the state saved, and `Preempted` or `KeyboardInterrupt`
    raised; a second SIGINT stops at once. Several ranks stop after the same iteration; the first rank writes. A
    checkpoint is taken after all other handlers of an iteration or an epoch, wherever this one stands among them.

    Args:
        folder: where the checkpoints of the run are; on a disk that all ranks share.
        objects: what to save, by name: the network (also in DistributedDataParallel), optimizer, schedule, history.
        identity: what makes the run what it is (data set, batch size, seed, ...), by name, as plain values; the number
            of ranks is added. A run goes on with the same identity only.
        every_epochs: save after so many epochs, and after the last.
        every_minutes: save in the middle of an epoch when the last one was so long ago.
        every_iterations: save after so many iterations; 0 for not.
        n_saved: how many checkpoints are kept.

    Raises:
        FileExistsError: at the start, if the folder holds another run (names each difference).
        ValueError: at the start, if no checkpoint is whole or the newest is none of this run's, or ranks see different
            ones.
        OSError: if the disk is full; the last checkpoint stays.
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
        self.objects = {name: _bare(one) for name, one in objects.items()}
        self.identity = {name: str(value) for name, value in {**identity, "world_size": world_size()}.items()}
        self.every_epochs, self.every_minutes, self.every_iterations = every_epochs, every_minutes, every_iterations
        self._signals = StopSignals()
        self._saved, self._saved_at = -1, time.monotonic()
        self._buffers: list[Tensor] = []
        self._before: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.ITERATION_STARTED, self._remember_buffers)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._finish)
        raise_after_all(engine)

    def resume(self, engine: Engine) -> None:
        """Take up the newest whole checkpoint, if there is one."""
        found = newest_checkpoint(self.folder)
        done = 0
        if found is not None:
            path, content = found
            with reading(path, "a checkpoint of training", _REMEDY):
                state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                _check_parts(state, self.objects)
            self._check(state, engine)
            with reading(path, "a checkpoint of training", _REMEDY):
                self._take_up(state, engine)
            done = engine.state.iteration
            logger.info(f"going on from {path}: {_where(engine)}")
        everywhere = all_gather_int(done)
        if len(set(everywhere)) > 1:
            raise ValueError(
                f"the ranks would go on from different iterations, {everywhere}; is {self.folder} on a disk that all "
                "of them share?"
            )

    def save(self, engine: Engine, iteration: int | None = None) -> Path | None:
        """Save now, on the first rank; nothing happens when this iteration is saved already."""
        iteration = engine.state.iteration if iteration is None else iteration
        if iteration == self._saved or not is_main_process():
            return None
        state = {
            "format": _FORMAT,
            "iteration": iteration,
            "epoch_length": engine.state.epoch_length,
            "identity": self.identity,
            "objects": {name: one.state_dict() for name, one in self.objects.items()},
            "scaler": None if _scaler(engine) is None else _scaler(engine).state_dict(),
        }
        file = io.BytesIO()
        torch.save(state, file)
        path = save_checkpoint(self.folder, iteration, file.getvalue(), self.n_saved)
        self._saved, self._saved_at = iteration, time.monotonic()
        return path

    def save_before_step(self, engine: Engine) -> str:
        """Save the state as it was before the iteration that is going on, which must not have stepped; and say so.

        The batch statistics that the forward pass moved are put back. Nothing is written when a weight is not finite.
        """
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)
        networks = [one for one in self.objects.values() if isinstance(one, nn.Module)]
        tensors = [tensor for network in networks for tensor in network.state_dict().values()]
        if not all(bool(tensor.isfinite().all()) for tensor in tensors if isinstance(tensor, Tensor)):
            return f"; weights are not finite, so nothing was saved, and {self.folder} holds what was before"
        self.save(engine, engine.state.iteration - 1)
        return f"; the run until then is saved in {self.folder}"

    def _start(self, engine: Engine) -> None:
        self.resume(engine)
        self._saved, self._saved_at = engine.state.iteration, time.monotonic()
        networks = [one for one in self.objects.values() if isinstance(one, nn.Module)]
        self._buffers = [buffer for network in networks for buffer in network.buffers()]
        self._before = [buffer.clone() for buffer in self._buffers]
        # registered here, so that they stand behind everybody's
        if not engine.has_event_handler(self._after_step):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        self._signals.catch()

    def _remember_buffers(self, engine: Engine) -> None:
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    def _after_step(self, engine: Engine) -> None:
        if engine.state.iteration % engine.state.epoch_length == 0:  # type: ignore[operator]
            return  # the epoch's own handlers come first, then _after_epoch
        asked = self._asked_to_stop()
        minutes = (time.monotonic() - self._saved_at) / 60
        by_count = self.every_iterations and engine.state.iteration % self.every_iterations == 0
        if asked or by_count or minutes >= self.every_minutes:
            self.save(engine)
        if asked:
            self._stop(engine, asked)

    def _after_epoch(self, engine: Engine) -> None:
        asked = self._asked_to_stop()
        if asked or engine.state.epoch % self.every_epochs == 0 or engine.state.epoch == engine.state.max_epochs:
            self.save(engine)
        if asked:
            self._stop(engine, asked)

    def _asked_to_stop(self) -> int:
        """The signal that any rank got, 0 for none."""
        return max(all_gather_int(self._signals.received))

    def _stop(self, engine: Engine, asked: int) -> None:
        self._signals.leave(asked, f"saved in {self.folder} at {_where(engine)}; run the same command to go on")

    def _finish(self, engine: Engine, error: BaseException | None = None) -> None:
        self._signals.release()
        if isinstance(error, Exception) and lacks_space(error):
            with writing(self.folder.parent):  # a handler that writes there, as TensorBoard's, names no file
                raise error

    def _check(self, state: Mapping[str, Any], engine: Engine) -> None:
        if state["format"] != _FORMAT:
            raise _other_run(self.folder, [f"the format was {state['format']}, is {_FORMAT}"])
        now = {**self.identity, "iterations in an epoch": str(engine.state.epoch_length)}
        then = {**state["identity"], "iterations in an epoch": str(state["epoch_length"])}
        differ = _differences(then, now)
        if differ:
            raise _other_run(self.folder, differ)

    def _take_up(self, state: Mapping[str, Any], engine: Engine) -> None:
        for name, one in self.objects.items():
            one.load_state_dict(state["objects"][name])
        if _scaler(engine) is not None and state["scaler"] is not None:
            _scaler(engine).load_state_dict(state["scaler"])
        length = engine.state.epoch_length or 1
        engine.state.iteration = state["iteration"]
        engine.state.epoch, within = divmod(state["iteration"], length)
        if within:
            self._skip(engine.state.dataloader, engine.state.epoch + 1, within)

    def _skip(self, loader: Any, epoch: int, batches: int) -> None:
        start_at = getattr(getattr(loader, "sampler", None), "start_at", None)
        if start_at is None:
            raise ValueError(
                f"{self.folder} stopped within epoch {epoch}, where this loader cannot go on; give it a KeyedSampler"
            )
        start_at(epoch, batches * loader.batch_size)


def _check_parts(state: Any, objects: Mapping[str, Stateful]) -> None:
    """Raise `ValueError` unless a checkpoint has its parts, with values that a run can have."""
    if not isinstance(state, dict) or not set(_PARTS) <= set(state):
        raise ValueError(f"it lacks one of {', '.join(_PARTS)}")
    if isinstance(state["format"], int) and state["format"] != _FORMAT:
        return  # said with the differences of the run
    if not isinstance(state["iteration"], int) or state["iteration"] < 0:
        raise ValueError(f"its iteration is {state['iteration']!r}")
    if not isinstance(state["identity"], dict) or not all(isinstance(v, str) for v in state["identity"].values()):
        raise ValueError("its identity is not a mapping of text")
    if not isinstance(state["objects"], dict) or not isinstance(state["format"], int):
        raise ValueError("its objects are not a mapping, or its format is not a number")
    missing = sorted(set(objects) - set(state["objects"]))
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for name, one in objects.items():
        held = state["objects"][name] if isinstance(one, nn.Module) else {}
        if not all(bool(value.isfinite().all()) for value in held.values() if isinstance(value, Tensor)):
            raise ValueError(f"the weights of {name} are not finite")


def _bare(one: Any) -> Any:
    """A network without DistributedDataParallel and torch.compile around it."""
    one = getattr(one, "_orig_mod", one)
    return one.module if isinstance(one, nn.parallel.DistributedDataParallel) else one


def _scaler(engine: Engine) -> Any:
    return getattr(engine, "scaler", None)


def _where(engine: Engine) -> str:
    state = engine.state
    done, total = state.iteration, (state.epoch_length or 0) * (state.max_epochs or 0)
    if done >= total:
        return f"finished, all {state.max_epochs} epochs are done and nothing is left to train"
    return f"iteration {done} of {total} (epoch {done // (state.epoch_length or 1) + 1} of {state.max_epochs})"
