"""The first step of every bundle command: are its keys known and its values possible? Before any work."""

from __future__ import annotations

import inspect
import os
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from monai.bundle import ConfigParser, ConfigWorkflow

from monai_simclr.runtime.exit_codes import SettingError, root_cause
from monai_simclr.workflows.keys import SEP, check_keys, resolve_target, shown
from monai_simclr.workflows.setting_rules import RULES, Rule, describe_problem


def check_settings() -> None:
    """Refuse settings that do not exist or cannot be: a config's first step after `install_excepthook`.

    Without a bundle run around it, as when an app takes single parts of a config, nothing is checked.

    Raises:
        SettingError: names the settings, what came and what is possible.
    """
    workflow = running_workflow()
    if workflow is not None:
        check_workflow(workflow)


def check_workflow(workflow: ConfigWorkflow) -> None:
    """`check_settings` of a given workflow."""
    parser = workflow.parser
    if not parser.ref_resolver.items:
        parser.parse()
    _check_run(workflow)
    check_keys(workflow)
    wrong = [*_wrong_values(parser), *_wrong_arguments(parser)]
    if wrong:
        raise SettingError("; ".join(wrong))


def running_workflow() -> ConfigWorkflow | None:
    """The workflow whose config is calling us. MONAI gives expressions no way to it, so it is taken from the frames."""
    return _from_frames(ConfigWorkflow)


def running_parser() -> ConfigParser | None:
    """The parser whose config is calling us; apps build parts of a config without a workflow."""
    return _from_frames(ConfigParser)


def _from_frames(kind: type) -> Any:
    frame = sys._getframe()
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, kind):
            return found
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _check_run(workflow: ConfigWorkflow) -> None:
    if workflow.run_id not in workflow.parser:
        raise SettingError(
            f"run_id is {workflow.run_id!r}, which the config does not have; a word without a name before it counts as "
            "run_id, so write lists with brackets: --splits \"['train','val']\""
        )
    if "LOCAL_RANK" in str(workflow.parser.get("local_rank")) and "LOCAL_RANK" not in os.environ:
        raise SettingError(
            "multi_gpu.json is for processes that torchrun starts: torchrun --nproc_per_node=N -m monai.bundle run "
            "...; leave it out for one process"
        )


def _wrong_values(parser: ConfigParser) -> Iterator[str]:
    for key, rule in RULES.items():
        if key not in parser:
            continue
        given = parser[key]
        try:
            value = parser.get_parsed_content(key)
        except Exception as error:
            raise SettingError(f"{shown(key)} is {given!r}, which fails: {root_cause(error)}") from error
        problem = describe_problem(value, rule)
        if problem:
            yield f"{shown(key)} {problem}, got {value!r}"


def _wrong_arguments(parser: ConfigParser) -> Iterator[str]:
    """Plain values that arguments of our own callables cannot have, by their annotations."""
    for where, node in _components(parser.config, ""):
        if not str(node["_target_"]).startswith("monai_simclr."):
            continue
        kinds = _annotations(resolve_target(node, parser))
        for name, value in node.items():
            rule = _rule_of(kinds.get(name))
            if rule is None or (isinstance(value, str) and value[:1] in ("@", "$")):
                continue
            if isinstance(value, bool | int | float | str) and (problem := describe_problem(value, rule)):
                yield f"{shown(where)}#{name} {problem}, got {value!r}"


def _components(node: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield where, node
        for key, value in node.items():
            if key != ConfigParser.meta_key:
                yield from _components(value, f"{where}{SEP}{key}" if where else str(key))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _components(value, f"{where}{SEP}{number}")


def _annotations(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


def _rule_of(annotation: Any) -> Rule | None:
    """The rule of a plain annotation; None where there is more to it than kind and choice."""
    if get_origin(annotation) is Literal and all(isinstance(word, str) for word in get_args(annotation)):
        return Rule("choice", choices=get_args(annotation))
    if get_origin(annotation) in (Union, type(int | None)):
        rest = [one for one in get_args(annotation) if one is not type(None)]
        return _rule_of(rest[0]) if len(rest) == 1 else None
    low = float("-inf")
    kinds = {int: Rule("whole", low), float: Rule("number", low), bool: Rule("truth")}
    return kinds.get(annotation)
