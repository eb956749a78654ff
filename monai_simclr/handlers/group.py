"""Several handlers as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ignite.engine import Engine


class HandlerGroup:
    """Handlers that are attached in their order.

    MONAI's check of a bundle's properties wants a mapping for every item of ``train#handlers``, and no references; so
    handlers that other parts of a config refer to are listed in one of these.

    Args:
        handlers: objects with `attach`.
    """

    def __init__(self, handlers: Sequence[Any]) -> None:
        self.handlers = list(handlers)

    def attach(self, engine: Engine) -> None:
        """Attach all of them."""
        for handler in self.handlers:
            handler.attach(engine)
