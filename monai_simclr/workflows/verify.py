"""Read a bundle as text, without running anything in it, and list what it would run that ours does not."""

from __future__ import annotations

import configparser
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monai_simclr.bundles import CHEST_XRAY_SIMCLR
from monai_simclr.runtime.pickles import pickled_code

_CODE = frozenset(
    {
        *(".py", ".pyc", ".pyo", ".pyw", ".pyd", ".pyx", ".so", ".dll", ".dylib", ".ipynb", ".whl", ".egg"),
        *(
            ".sh",
            ".bash",
            ".bat",
            ".cmd",
            ".ps1",
            ".exe",
            ".jar",
            ".pkl",
            ".pickle",
            ".joblib",
            ".dill",
            ".cloudpickle",
        ),
        *(".engine", ".plan", ".trt", ".keras", ".h5"),
    }
)
"""Endings of files that are code, or that their readers run whatever is in them."""

_CONFIGS = (".json", ".yaml", ".yml")
"""What MONAI reads as a config, in capitals too, in whatever folder: by name, as an overlay, or as ``%file#id``."""

_LOGGING = (".conf", ".ini", ".cfg")
_TARGET_KEYS = ("_target_", "_requires_", "_mode_")
_SEPARATORS = re.compile(r"#|::")


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
    """Everything that a bundle's configs would call or evaluate, and every file that is code or would be unpickled.

    MONAI imports and calls every `_target_` and passes every text that starts with ``$`` to Python's `eval`, with no
    list of what is allowed (GHSA-873f-pvrv-4x83); it reads any JSON or YAML file of the bundle that it is pointed at;
    a pickle calls what it names when it is loaded, and so does a TorchScript program. Here nothing is imported, parsed
    as Python, evaluated or unpickled: the allowed list is exactly what the bundle of the installed package has, and
    for weights what tensors are rebuilt with.

    Args:
        folder: the bundle.

    Returns:
        One entry each, configs first, files in order of their names.

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
    ours = {text for path in _files(CHEST_XRAY_SIMCLR) for _, text in _texts(path)}
    paths = _files(folder)
    found = [
        Runnable(str(path.relative_to(folder)), where, text, text in ours)
        for path in paths
        for where, text in ([] if path.is_symlink() else _texts(path))
    ]
    return found + [Runnable(str(path.relative_to(folder)), "", text, False) for path in paths for text in _code(path)]


def _files(folder: Path) -> list[Path]:
    """All files, and links to files and folders, which may lead out of the bundle; links are not followed."""
    found = []
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        found += [Path(place) / name for name in [*names, *links]]
    return sorted(found)


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of what a config or a logging file would run."""
    if path.suffix.lower() in _CONFIGS:
        yield from _walk(_read(path), "")
    elif path.suffix.lower() in _LOGGING:
        yield from _logging(path)


def _code(path: Path) -> Iterator[str]:
    if path.is_symlink():
        yield "a link, whose target is not read"
    elif path.suffix.lower() in _CODE:
        yield f"code ({path.suffix})"
    else:
        yield from pickled_code(path)


def _logging(path: Path) -> Iterator[tuple[str, str]]:
    """logging.conf names classes and evaluates their arguments."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8", errors="replace"))
    except configparser.Error as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for section in parser.sections():
        for key in ("class", "args", "kwargs"):
            if parser.has_option(section, key):
                yield f"[{section}] {key}", f"{key}={parser.get(section, key, raw=True).strip()}"


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _walk(content: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _walk(value, f"{where}#{key}" if where else str(key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _walk(value, f"{where}#{number}")
    elif isinstance(content, str) and _runs(content, _SEPARATORS.split(where)[-1]):
        yield where, content


def _runs(text: str, key: str) -> bool:
    """Whether a text is called or evaluated: "$" is; "%" pulls in another file's text, which may be in turn."""
    return text.lstrip().startswith(("$", "%")) or key.lstrip("+") in _TARGET_KEYS
