"""What the handlers share: groups, histories, a trainer's output, files of ranks, errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from monai_simclr.runtime.distributed import is_main_process, rank


class HandlerGroup:
    """Several handlers as one, attached in their order.

    MONAI's check of a bundle's properties requires a mapping for every item of ``train#handlers``, no references; so
    handlers that other parts of a config refer to are listed in a group.

    Args:
        handlers: objects with `attach`.
    """

    def __init__(self, handlers: Sequence[Any]) -> None:
        self.handlers = list(handlers)

    def attach(self, engine: Engine) -> None:
        """Attach all of them."""
        for handler in self.handlers:
            handler.attach(engine)


class History:
    """A history of plain numbers, as a checkpoint saves it."""

    history: list[dict[str, float]]

    def state_dict(self) -> dict[str, Any]:
        """The history."""
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the history."""
        self.history = list(state["history"])


def rank_path(path: str | Path) -> Path:
    """A file of this rank: the path itself on the first one, ``name.rankN.csv`` for ``name.csv`` on the others."""
    path = Path(path)
    return path if is_main_process() else path.with_suffix(f".rank{rank()}{path.suffix}")


def batch_output(engine: Engine) -> dict[str, Any]:
    """The output of an iteration as one dictionary, from a trainer whose output is a dictionary, or a list of one."""
    output: Any = engine.state.output
    return output[0] if isinstance(output, list) else output


def raise_after_all(engine: Engine) -> None:
    """Raise an error after all handlers of it have run; Ignite swallows an error that has a handler."""
    if engine.has_event_handler(_raise, Events.EXCEPTION_RAISED):
        engine.remove_event_handler(_raise, Events.EXCEPTION_RAISED)
    engine.add_event_handler(Events.EXCEPTION_RAISED, _raise)


def _raise(engine: Engine, error: BaseException) -> None:
    raise error
