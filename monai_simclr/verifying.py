"""Read a bundle as text, without running anything in it, and list what it would run that ours does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monai_simclr.bundles import CHEST_XRAY_SIMCLR

__all__ = ["Runnable", "verify_bundle"]

_CODE = {".py", ".pyc", ".so", ".sh", ".ipynb", ".pkl", ".joblib"}
_TARGET_KEYS = ("_target_", "_requires_")


@dataclass(frozen=True)
class Runnable:
    """Something that a bundle would run.

    Attributes:
        file: path in the bundle.
        where: id in the config, as MONAI writes it: ``train#handlers#0#_target_``; "" for a file.
        text: the callable's name, the expression, or what the file is.
        known: whether the bundle that this package ships has it too.
    """

    file: str
    where: str
    text: str
    known: bool


def verify_bundle(folder: str | Path) -> list[Runnable]:
    """Everything that a bundle's configs would call or evaluate, and every file of code beside them.

    MONAI imports and calls every `_target_` and passes every text that starts with ``$`` to Python's `eval`, with no
    list of what is allowed (GHSA-873f-pvrv-4x83). Here nothing is imported, parsed as Python or evaluated: the allowed
    list is exactly what the bundle of the installed package has.

    Args:
        folder: the bundle.

    Returns:
        One entry each, files in order of their names.

    Raises:
        FileNotFoundError: if the folder has no ``configs``.
        ValueError: if a config is no JSON or YAML (names it).

    Example:
        >>> all(found.known for found in verify_bundle(CHEST_XRAY_SIMCLR))
        True
    """
    folder = Path(folder)
    if not (folder / "configs").is_dir():
        raise FileNotFoundError(f"{folder} is no bundle: it has no folder configs")
    ours = {text for _, _, text in _texts(CHEST_XRAY_SIMCLR)}
    found = [Runnable(file, where, text, text in ours) for file, where, text in _texts(folder)]
    code = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _CODE]
    return found + [Runnable(str(path.relative_to(folder)), "", f"code ({path.suffix})", False) for path in code]


def _texts(folder: Path) -> Iterator[tuple[str, str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".yaml", ".yml") and path.parent.name == "configs":
            for where, text in _walk(_read(path), ""):
                yield str(path.relative_to(folder)), where, text
        elif path.suffix == ".conf":
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            for number, line in enumerate(lines, 1):  # logging.conf names classes and evaluates their arguments
                if line.strip().startswith(("class", "args")):
                    yield str(path.relative_to(folder)), f"line {number}", line.strip()


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _walk(content: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _walk(value, f"{where}#{key}" if where else str(key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _walk(value, f"{where}#{number}")
    elif isinstance(content, str) and _runs(content, where.rsplit("#", 1)[-1]):
        yield where, content


def _runs(text: str, key: str) -> bool:
    """Whether a text is called or evaluated: "$" is; "%" pulls in another file's text, which may be in turn."""
    return text.lstrip().startswith(("$", "%")) or key in _TARGET_KEYS
