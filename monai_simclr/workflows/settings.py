"""Does every key of a bundle command exist, and is its value possible? Checked before any work."""

from __future__ import annotations

import difflib
import inspect
import os
import pydoc
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from monai.bundle import ConfigComponent, ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from monai.utils import BundlePropertyConfig

from monai_simclr.runtime.exit_codes import SettingError, root_cause
from monai_simclr.workflows.calling import given_files
from monai_simclr.workflows.setting_rules import RULES, Rule, boolean, choice, number

SEP = ReferenceResolver.sep

_PROPERTIES = frozenset(
    str(item[BundlePropertyConfig.ID])
    for group in (TrainProperties, InferProperties, MetaProperties)
    for item in group.values()
)
"""Ids that MONAI and its apps ask a bundle for."""

_TRACKING = frozenset(map(str, DEFAULT_MLFLOW_SETTINGS["configs"]))  # type: ignore[call-overload]
"""Top-level keys that ``--tracking`` adds."""

_FOR_OVERLAYS = frozenset({"before_distributed"})
"""Keys that only the overlay ``multi_gpu_train.json`` reads."""

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


def check_settings(workflow: ConfigWorkflow) -> None:
    """Refuse a config with a key that nothing reads, at any depth, or with a value that its reader cannot take.

    A key has a meaning when another part of the config refers to it (``@strength``), when it is an argument of the
    callable it belongs to (``train#loss#temperature``), when MONAI asks a bundle for it, or when metadata.json has it.
    A key of the bundle's files stays known when an override removes its reader. Values are checked by `RULES`, and
    plain arguments of our own callables by their annotations.

    Args:
        workflow: with its overrides.

    Raises:
        SettingError: names every such key with the nearest known one, or every such value with what is possible.
    """
    parser = workflow.parser
    if not parser.ref_resolver.items:
        parser.parse()
    config = parser.config
    assert isinstance(config, dict)
    if workflow.run_id not in parser:
        raise SettingError(
            f"run_id is {workflow.run_id!r}, which the config does not have; a word without a name before it counts as "
            "run_id, so write lists with brackets: --splits \"['train','val']\""
        )
    if "LOCAL_RANK" in str(parser.get("local_rank")) and "LOCAL_RANK" not in os.environ:
        raise SettingError(
            "multi_gpu_train.json is for processes that torchrun starts: torchrun --nproc_per_node=N -m monai.bundle "
            "run ...; leave it out for one process"
        )
    known = {*references(config), *_TRACKING, *_FOR_OVERLAYS, workflow.run_id, workflow.init_id, workflow.final_id}
    files = given_files()
    for path in [Path(name) for name in files] or sorted(workflow.config_root_path.glob("*.json")):
        content = ConfigParser.load_config_file(str(path))
        if files or set(content) <= set(config):  # a workflow built by hand: those of the bundle that fit
            known |= {*references(content), *(key for key in _PROPERTIES if key.split(SEP)[0] in content)}
    written = None if workflow.meta_file is None else ConfigParser.load_config_files(workflow.meta_file)
    components = [*_components(config, "", parser)]
    slips = [*_unread(config, "", known), *_unwritten(config.get(ConfigParser.meta_key), written, "")]
    slips += _dangling(config, parser)
    slips += [slip for component in components for slip in _unknown_arguments(*component)]
    if slips:
        raise SettingError("; ".join(slips))
    wrong = [*_wrong_values(parser), *(problem for part in components for problem in _wrong_arguments(*part))]
    if wrong:
        raise SettingError("; ".join(wrong))


def references(content: Any) -> set[str]:
    """Ids that the texts of a config refer to, at any depth, with MONAI's separator ``::``."""
    if isinstance(content, Mapping):
        return {name for key, value in content.items() if key != "_desc_" for name in references(value)}
    if isinstance(content, list | tuple):
        return {name for value in content for name in references(value)}
    if isinstance(content, str):
        return set(ReferenceResolver.match_refs_pattern(ReferenceResolver.normalize_id(content)))
    return set()


def shown(key: str) -> str:
    """An id as it is typed: ``train#loss#temperature``."""
    return key.replace(SEP, "#")


def _components(node: Any, where: str, parser: ConfigParser) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Every part with a ``_target_``: its id, its config, and its callable, None where there is none."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            target = node["_target_"]
            if isinstance(target, str):
                name = ConfigComponent(config=dict(node), id="", locator=parser.locator).resolve_module_name()
                try:
                    target = pydoc.locate(str(name))
                except pydoc.ErrorDuringImport:  # MONAI reports it when the part is built
                    target = None
            yield where, node, target
        for key, value in node.items():
            if key != ConfigParser.meta_key:
                yield from _components(value, _join(where, key), parser)
    elif isinstance(node, list | tuple):
        for place, value in enumerate(node):
            yield from _components(value, _join(where, place), parser)


def _unread(node: Mapping[str, Any], where: str, known: Iterable[str]) -> Iterator[str]:
    """Keys below plain dictionaries that neither are read nor hold anything that is."""

    def is_read(name: str) -> bool:
        return any(key == name or key.startswith(name + SEP) or name.startswith(key + SEP) for key in known)

    siblings = [key for key in node if is_read(_join(where, key))]
    if not where:  # settings, not what they are read by
        siblings = [key for key in siblings if key in RULES] or siblings
    for key, value in node.items():
        name = _join(where, key)
        if key in (ConfigParser.meta_key, "_desc_") or "_target_" in node:
            continue
        if not is_read(name):
            yield f"there is no setting {shown(name)!r}{_nearest(key, siblings, where)}"
        elif isinstance(value, Mapping) and "_target_" not in value and name not in known:
            yield from _unread(value, name, known)


def _unwritten(node: Any, written: Any, where: str) -> Iterator[str]:
    """Keys of the metadata in use that metadata.json does not have."""
    if not (isinstance(node, Mapping) and isinstance(written, Mapping)):
        return
    for key, value in node.items():
        name = _join(where, key)
        if key in written:
            yield from _unwritten(value, written[key], name)
        else:
            place = _join(ConfigParser.meta_key, name)
            yield f"metadata.json has no {shown(place)!r}{_nearest(key, list(written), place.rpartition(SEP)[0])}"


def _dangling(config: Mapping[str, Any], parser: ConfigParser) -> Iterator[str]:
    """References to keys that the config does not have."""
    for name in sorted(references(config)):
        if name not in parser:
            where, _, key = name.rpartition(SEP)
            near = parser.get(where, {}) if where else config
            candidates = list(map(str, near)) if isinstance(near, Mapping) else []
            yield f"the config has no {shown(name)!r}, which @{shown(name)} refers to{_nearest(key, candidates, where)}"


def _unknown_arguments(where: str, node: Mapping[str, Any], target: Any) -> Iterator[str]:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # no callable, or one of C without a signature
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in node:
        if key not in parameters and key not in ConfigComponent.non_arg_keys:
            near = _nearest(str(key), list(parameters), where)
            yield f"{node['_target_']} has no {shown(_join(where, key))!r}{near}{_OUT_OF_DATE}"


def _wrong_values(parser: ConfigParser) -> Iterator[str]:
    for key, rule in RULES.items():
        if key not in parser:
            continue
        try:
            value = parser.get_parsed_content(key)
        except Exception as error:
            raise SettingError(f"{shown(key)} is {parser[key]!r}, which fails: {root_cause(error)}") from error
        if problem := rule(value):
            yield f"{shown(key)} {problem}, got {value!r}"


def _wrong_arguments(where: str, node: Mapping[str, Any], target: Any) -> Iterator[str]:
    """Plain values that arguments of our own callables cannot have, by their annotations."""
    if not str(node["_target_"]).startswith("monai_simclr."):
        return
    try:
        annotations = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        return
    for name, value in node.items():
        rule = _rule(annotations.get(name))
        if rule is None or (isinstance(value, str) and value[:1] in ("@", "$")):
            continue
        if isinstance(value, bool | int | float | str) and (problem := rule(value)):
            yield f"{shown(where)}#{name} {problem}, got {value!r}"


def _rule(annotation: Any) -> Rule | None:
    """The rule of a plain annotation; None for one that says more than type and choice."""
    if get_origin(annotation) is Literal and all(isinstance(word, str) for word in get_args(annotation)):
        return choice(*get_args(annotation))
    if get_origin(annotation) in (Union, type(int | None)):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return _rule(kinds[0]) if len(kinds) == 1 else None
    low = float("-inf")
    return {int: number(low, whole=True), float: number(low), bool: boolean}.get(annotation)


def _nearest(key: str, candidates: list[str], where: str) -> str:
    lower = {name.lower(): name for name in candidates if not name.startswith("_")}
    now = "outputs" if key == "keep" and "outputs" in candidates else RENAMED.get(str(key), "")
    if now in candidates:
        return f"; it is called {shown(_join(where, now))!r} since version 0.2"
    close = difflib.get_close_matches(str(key).lower(), list(lower), 1, 0.6)
    if close:
        return f"; the nearest is {shown(_join(where, lower[close[0]]))!r}"
    return f"; there are {', '.join(sorted(lower.values()))}" if lower else ""


def _join(where: str, key: Any) -> str:
    return f"{where}{SEP}{key}" if where else str(key)
