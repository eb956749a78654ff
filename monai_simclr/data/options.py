"""What a source may be told, from Python and as text from a command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class SourceOptions:
    """What a source may be told; an option that the archive's source does not know is an error, never ignored.

    Attributes:
        uncertain: what uncertain labels become (CheXpert, MIMIC, VinDr): "ignore", "zeros", "ones", "smoothed".
        blank: what findings that a report does not mention become (CheXpert, MIMIC): "zeros", "ignore".
        labeler: whose labels: "chexpert" or "negbio" (MIMIC), "all" or "physician" (PadChest).
        min_votes: how many readers must agree (VinDr).
        findings: what to label (PadChest, a table with `columns`).
        columns: from our columns to those of a CSV file (a table).
        patient_pattern: regular expression whose first group is the patient in a file's name (archives without ids).
        views: keep only these view positions (every source), as ("PA", "AP").
    """

    uncertain: str | None = None
    blank: str | None = None
    labeler: str | None = None
    min_votes: int | None = None
    findings: tuple[str, ...] | None = None
    columns: Mapping[str, str] | None = None
    patient_pattern: str | None = None
    views: tuple[str, ...] = field(default=())

    def of(self, read: Callable[..., pd.DataFrame], name: str) -> dict[str, Any]:
        """The options that were given, for a function that reads a source; `views` is everybody's.

        Raises:
            ValueError: if the function does not know one of them.
        """
        given = {option.name: getattr(self, option.name) for option in fields(self) if option.name != "views"}
        given = {option: value for option, value in given.items() if value is not None}
        known = set(inspect.signature(read).parameters)
        unknown = sorted(set(given) - known)
        if unknown:
            takes = sorted((known & {option.name for option in fields(self)}) | {"views"})
            raise ValueError(f"the archive was read as {name}, which has no option {unknown}; it takes {takes}")
        return given


def source_options(options: Mapping[str, Any]) -> SourceOptions:
    """The options by their names.

    Raises:
        ValueError: if a name is unknown (lists the known ones).
    """
    known = {option.name for option in fields(SourceOptions)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"there is no option {unknown} of a source; known are {sorted(known)}")
    lists = {name: tuple(options[name]) for name in ("findings", "views") if options.get(name) is not None}
    return SourceOptions(**{**options, **lists})


def options_from_text(texts: Sequence[str]) -> dict[str, Any]:
    """Options from ``NAME=VALUE`` texts: lists are joined by commas, columns are ``ours:theirs`` joined by commas.

    Raises:
        ValueError: if a text is not of that form (shows it).

    Example:
        >>> options_from_text(["uncertain=ones", "views=PA,AP", "columns=image:file,patient_id:pid", "min_votes=3"])
        {'uncertain': 'ones', 'views': ('PA', 'AP'), 'columns': {'image': 'file', 'patient_id': 'pid'}, 'min_votes': 3}
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise ValueError(f"an option is NAME=VALUE, as uncertain=ones; got {text!r}")
        options[name] = _value(name, value)
    source_options(options)
    return options


def _value(name: str, value: str) -> Any:
    if name in ("findings", "views"):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if name == "columns":
        pairs = [part.partition(":") for part in value.split(",")]
        if not all(ours and colon and theirs for ours, colon, theirs in pairs):
            raise ValueError(f"columns are ours:theirs joined by commas, as image:file,patient_id:pid; got {value!r}")
        return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    if name == "min_votes":
        if not value.isdigit():
            raise ValueError(f"min_votes must be a whole number, got {value!r}")
        return int(value)
    return value
