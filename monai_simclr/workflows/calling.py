"""Which workflow, parser and config files a function that a config calls belongs to.

MONAI gives neither ``_target_`` callables nor ``$`` expressions a way to the config that calls them, and has no hook
before a workflow's first step. But checking settings, recording the executed config and a run's identity need all of
it, overrides included. So it is looked up in the frames of the calls that lead here: the `self` of a `ConfigWorkflow`
or `ConfigParser` method, and the arguments of MONAI's `create_workflow`, which is behind every command line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow


def calling_workflow() -> ConfigWorkflow | None:
    """The workflow whose config is calling; None outside of one, as when an app builds single parts of a config."""
    return _calling(ConfigWorkflow)


def calling_parser() -> ConfigParser | None:
    """The parser whose config is calling."""
    return _calling(ConfigParser)


def given_files() -> tuple[str, ...]:
    """The config files of the calling command; empty where a `ConfigWorkflow` was built by hand."""
    for frame in _frames():
        if frame.f_code.co_name == "create_workflow" and frame.f_globals.get("__name__") == "monai.bundle.scripts":
            files = frame.f_locals.get("config_file") or ()
            return (files,) if isinstance(files, str) else tuple(map(str, files))
    return ()


def _calling(kind: type) -> Any:
    return next((frame.f_locals["self"] for frame in _frames() if isinstance(frame.f_locals.get("self"), kind)), None)


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
