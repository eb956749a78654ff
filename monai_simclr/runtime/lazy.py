"""Packages that import their parts on first use (PEP 562)."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
from collections.abc import Callable


def lazy_exports(package: str) -> Callable[[str], object]:
    """A package's ``__getattr__``, which imports a name's module when the name is first used.

    The package lists what it exports once, as ``from module import name as name`` below its ``if TYPE_CHECKING:``,
    where type checkers look for it too. No exported name may be that of a module of the package: importing the module
    would set the attribute first.

    Args:
        package: its ``__name__``.

    Example:
        >>> get = lazy_exports("monai_simclr.data")
        >>> get("ReaderSettings").__module__
        'monai_simclr.data.radiograph'
    """

    @functools.cache
    def exports() -> dict[str, str]:
        tree = ast.parse(inspect.getsource(sys.modules[package]))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        return {a.name: str(node.module) for node in imports for a in node.names if a.name == a.asname}

    def get(name: str) -> object:
        if name.startswith("_") or name not in exports():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(exports()[name]), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    return get
