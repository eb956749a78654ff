"""Which keys a bundle command has: what is in its config and nothing reads is a slip, and is refused."""

from __future__ import annotations

import difflib
import inspect
import pydoc
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from monai.utils import BundlePropertyConfig

from monai_simclr.runtime.exit_codes import SettingError
from monai_simclr.workflows.setting_rules import RULES

SEP = ReferenceResolver.sep

_PROPERTIES = frozenset(
    str(found[BundlePropertyConfig.ID])
    for group in (TrainProperties, InferProperties, MetaProperties)
    for found in group.values()
)
"""Ids that MONAI and its apps ask a bundle for."""

_TRACKING = frozenset(map(str, DEFAULT_MLFLOW_SETTINGS["configs"]))  # type: ignore[call-overload]
"""Top-level keys that ``--tracking`` adds."""

_FOR_OVERLAYS = frozenset({"before_distributed"})
"""Keys that only an overlay (``multi_gpu.json``) reads."""

RENAMED = {
    "before_ranks_meet": "before_distributed",
    "frozen": "freeze_encoder",
    "gradient_length": "max_grad_norm",
    "k": "n_clusters",
    "keep": "n_saved",
    "max_damaged": "max_unreadable",
    "probe_every": "probe_interval",
    "save_minutes": "checkpoint_minutes",
    "seeds": "n_seeds",
    "trained_stages": "n_trainable_stages",
}
"""Settings of 0.1 that have another name since 0.2 (inference's `keep` is `outputs`)."""

_OUT_OF_DATE = (
    "; if the bundle was copied from another version, make a new one with monai-simclr bundle and move the old one's "
    "models there"
)


def check_keys(workflow: ConfigWorkflow) -> None:
    """Refuse a config with a key that nothing reads, at any depth: an override's typo, or one in a file.

    A key has a meaning when another part of the config refers to it (``@strength``), when it is an argument of the
    callable that it stands in (``train#loss#temperature``), when MONAI asks a bundle for it, or when metadata.json has
    it. A key of the bundle's files stays known when an override takes its reader away.

    Args:
        workflow: with its overrides, parsed.

    Raises:
        SettingError: names every such key, and the nearest one that has a meaning.
    """
    config = workflow.parser.config
    assert isinstance(config, dict)
    known = {*references(config), *_TRACKING, *_FOR_OVERLAYS, workflow.run_id, workflow.init_id, workflow.final_id}
    for content in _files(workflow):
        known |= {*references(content), *(key for key in _PROPERTIES if key.split(SEP)[0] in content)}
    slips = [*_unread(config, "", known), *_unwritten(config.get(ConfigParser.meta_key), _metadata(workflow), "")]
    slips += _pointing_nowhere(config, workflow.parser)
    slips += [slip for key, value in config.items() for slip in _wrong_arguments(value, str(key), workflow.parser)]
    if slips:
        raise SettingError("; ".join(slips))


def references(content: Any) -> set[str]:
    """Ids that the texts of a config refer to, at any depth, with MONAI's separator ``::``."""
    if isinstance(content, Mapping):
        return {found for key, value in content.items() if key != "_desc_" for found in references(value)}
    if isinstance(content, list | tuple):
        return {found for value in content for found in references(value)}
    if isinstance(content, str):
        return set(ReferenceResolver.match_refs_pattern(ReferenceResolver.normalize_id(content)))
    return set()


def shown(key: str) -> str:
    """An id as one types it: ``train#loss#temperature``."""
    return key.replace(SEP, "#")


def resolve_target(node: Mapping[str, Any], parser: ConfigParser) -> Callable[..., Any] | None:
    """The callable of a component; None where it is not there, which MONAI says when it is built."""
    if not isinstance(node["_target_"], str):
        return node["_target_"]
    name = ConfigComponent(config=dict(node), id="", locator=parser.locator).resolve_module_name()
    try:
        return pydoc.locate(str(name))  # type: ignore[return-value]
    except pydoc.ErrorDuringImport:
        return None


def _files(workflow: ConfigWorkflow) -> Iterator[Mapping[str, Any]]:
    """What the config files say without overrides.

    Which files were given stands in the frame of MONAI's `create_workflow`, behind every command line. Who builds a
    `ConfigWorkflow` by hand gets those of the bundle that fit: all of their keys are in the config.
    """
    given, config = _given_files(), workflow.parser.config
    assert isinstance(config, dict)
    paths = [Path(name) for name in given] or sorted(workflow.config_root_path.glob("*.json"))
    for path in paths:
        content = ConfigParser.load_config_file(str(path))
        if given or set(content) <= set(config):
            yield content


def _given_files() -> tuple[str, ...]:
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "create_workflow" and frame.f_globals.get("__name__") == "monai.bundle.scripts":
            files = frame.f_locals.get("config_file") or ()
            return (files,) if isinstance(files, str) else tuple(map(str, files))
        frame = frame.f_back
    return ()


def _metadata(workflow: ConfigWorkflow) -> Any:
    return None if workflow.meta_file is None else ConfigParser.load_config_files(workflow.meta_file)


def _unread(node: Mapping[str, Any], where: str, known: Iterable[str]) -> Iterator[str]:
    """Keys below plain dictionaries that neither are read nor hold anything that is."""
    siblings = [key for key in node if _is_read(_join(where, key), known)]
    if not where:  # settings, not what they are read by
        siblings = [key for key in siblings if key in RULES] or siblings
    for key, value in node.items():
        name = _join(where, key)
        if key in (ConfigParser.meta_key, "_desc_") or "_target_" in node:
            continue
        if not _is_read(name, known):
            yield f"there is no setting {shown(name)!r}{_nearest(key, siblings, where)}"
        elif isinstance(value, Mapping) and "_target_" not in value and name not in known:
            yield from _unread(value, name, known)


def _pointing_nowhere(config: Mapping[str, Any], parser: ConfigParser) -> Iterator[str]:
    """References to what is not there."""
    for name in sorted(references(config)):
        if name not in parser:
            where, _, key = name.rpartition(SEP)
            near = parser.get(where, {}) if where else config
            candidates = list(map(str, near)) if isinstance(near, Mapping) else []
            yield f"the config has no {shown(name)!r}, which @{shown(name)} refers to{_nearest(key, candidates, where)}"


def _is_read(name: str, known: Iterable[str]) -> bool:
    return any(one == name or one.startswith(name + SEP) or name.startswith(one + SEP) for one in known)


def _unwritten(node: Any, written: Any, where: str) -> Iterator[str]:
    """Keys of the metadata in use that the file of metadata does not have."""
    if not (isinstance(node, Mapping) and isinstance(written, Mapping)):
        return
    for key, value in node.items():
        name = _join(where, key)
        if key not in written:
            place = _join(ConfigParser.meta_key, name)
            yield f"metadata.json has no {shown(place)!r}{_nearest(key, list(written), place.rpartition(SEP)[0])}"
        else:
            yield from _unwritten(value, written[key], name)


def _wrong_arguments(node: Any, where: str, parser: ConfigParser) -> Iterator[str]:
    """Keys of components that their callables do not take."""
    if isinstance(node, Mapping):
        if "_target_" in node and where.split(SEP)[0] != ConfigParser.meta_key:
            yield from _not_taken(node, where, parser)
        for key, value in node.items():
            yield from _wrong_arguments(value, _join(where, key), parser)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _wrong_arguments(value, _join(where, str(number)), parser)


def _not_taken(node: Mapping[str, Any], where: str, parser: ConfigParser) -> Iterator[str]:
    target = resolve_target(node, parser)
    try:
        taken = inspect.signature(target).parameters if target is not None else None
    except (TypeError, ValueError):  # some of C have none
        taken = None
    if taken is None or any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        return
    for key in node:
        if key not in taken and key not in ConfigComponent.non_arg_keys:
            near = _nearest(str(key), list(taken), where)
            yield f"{node['_target_']} has no {shown(_join(where, key))!r}{near}{_OUT_OF_DATE}"


def _nearest(key: str, candidates: list[str], where: str) -> str:
    lower = {name.lower(): name for name in candidates if not name.startswith("_")}
    now = RENAMED.get(str(key), "")
    now = "outputs" if key == "keep" and "outputs" in candidates else now
    if now in candidates:
        return f"; it is called {shown(_join(where, now))!r} since version 0.2"
    found = difflib.get_close_matches(str(key).lower(), list(lower), 1, 0.6)
    if found:
        return f"; the nearest is {shown(_join(where, lower[found[0]]))!r}"
    return f"; there are {', '.join(sorted(lower.values()))}" if lower else ""


def _join(where: str, key: Any) -> str:
    return f"{where}{SEP}{key}" if where else str(key)
