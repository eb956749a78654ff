"""Read a bundle as text, without running anything in it, and list what it would run that ours does not."""

from __future__ import annotations

import configparser
import itertools
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
from monai_simclr.workflows.bundle import PACKAGE

_CODE = (
    *(".py", ".pyc", ".pyo", ".pyw", ".pyd", ".pyx", ".so", ".dll", ".dylib", ".ipynb", ".whl", ".egg"),
    *(".sh", ".bash", ".bat", ".cmd", ".ps1", ".exe", ".jar"),
    *(".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".engine", ".plan", ".trt", ".keras", ".h5"),
)
"""Endings of files that are code, or whose readers run what is in them."""

_CONFIGS = (".json", ".yaml", ".yml")
"""What MONAI reads as a config, in capitals too, in whatever folder: by name, as an overlay, or as ``%file#id``."""

_LOGGING = (".conf", ".ini", ".cfg")
_TARGET_KEYS = ("_target_", "_requires_", "_mode_")


@dataclass(frozen=True)
class Runnable:
    """Something that a bundle would run.

    Attributes:
        file: path in the bundle.
        where: id in the config, as MONAI writes it: ``train#handlers#0#_target_``; "" for a file.
        text: the callable's name, the expression, or what the file is.
        known: whether the bundle that this package ships has it too, or it is a file of this package.
    """

    file: str
    where: str
    text: str
    known: bool


def verify_bundle(folder: str | Path) -> list[Runnable]:
    """List what a bundle's configs would call or evaluate, and every file that is code or would be unpickled.

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
        ValueError: if a config is not valid JSON or YAML (names it).

    Example:
        >>> all(entry.known for entry in verify_bundle(CHEST_XRAY_SIMCLR))
        True
    """
    folder = Path(folder)
    if not (folder / "configs").is_dir():
        raise FileNotFoundError(f"{folder} is not a bundle: it has no folder configs")
    ours = {text for path in _files(CHEST_XRAY_SIMCLR) for _, text in _texts(path)}
    entries, files = [], []
    for path in _files(folder):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            files.append(Runnable(name, "", "a link, whose target is not read", False))
            continue
        entries += [Runnable(name, where, text, text in ours) for where, text in _texts(path)]
        is_code = path.suffix.lower() in _CODE
        code = [f"code ({path.suffix})"] if is_code else pickled_code(path)
        known = is_code and _is_ours(path, path.relative_to(folder).parts)
        files += [Runnable(name, "", text, known) for text in code]
    return entries + files


def _is_ours(path: Path, parts: tuple[str, ...]) -> bool:
    """Whether a file of code is, byte for byte, one of the installed package, where `copy_bundle` puts it."""
    if parts[0] != PACKAGE.name:
        return False
    bundles = parts[1] == "bundles"  # which is not below the package in a checkout
    ours = CHEST_XRAY_SIMCLR.parent.joinpath(*parts[2:]) if bundles else PACKAGE.joinpath(*parts[1:])
    return ours.is_file() and ours.read_bytes() == path.read_bytes()


def _files(folder: Path) -> list[Path]:
    """All files, and links to files and folders, which may lead out of the bundle; links are not followed."""
    paths = []
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        paths += [Path(place) / name for name in [*names, *links]]
    return sorted(paths)


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of what a config or a logging file would run."""
    try:
        if path.suffix.lower() in _CONFIGS:
            text = path.read_text(encoding="utf-8-sig")
            yield from _walk(json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text), "")
        elif path.suffix.lower() in _LOGGING:  # logging.conf names classes and evaluates their arguments
            parser = configparser.RawConfigParser(strict=False)
            parser.read_string(path.read_text(encoding="utf-8", errors="replace"))
            for section, key in itertools.product(parser.sections(), ("class", "args", "kwargs")):
                if parser.has_option(section, key):
                    yield f"[{section}] {key}", f"{key}={parser.get(section, key, raw=True).strip()}"
    except (ValueError, RecursionError, yaml.YAMLError, configparser.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _walk(content: Any, where: str) -> Iterator[tuple[str, str]]:
    """Texts that are called or evaluated: "$" is; "%" inserts another file's text, which may be in turn."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _walk(value, f"{where}#{key}" if where else str(key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _walk(value, f"{where}#{number}")
    elif isinstance(content, str):
        key = re.split("#|::", where)[-1].lstrip("+")
        if content.lstrip().startswith(("$", "%")) or key in _TARGET_KEYS:
            yield where, content
