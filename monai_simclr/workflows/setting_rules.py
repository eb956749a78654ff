"""The values that settings of bundle commands can have: one rule per key, and the message when a value breaks it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from monai_simclr.data.findings import check_finding_names
from monai_simclr.data.partners import SecondView
from monai_simclr.evaluation.clusterers import METHODS
from monai_simclr.inference import OutputOptions
from monai_simclr.networks import ENCODERS
from monai_simclr.recipes import Strength

Kind = Literal["whole", "number", "bool", "path", "paths", "choice", "list", "words", "device", "findings", "outputs"]


@dataclass(frozen=True)
class Rule:
    """The possible values of a setting.

    Attributes:
        kind: of the value.
        low: smallest number.
        high: largest number.
        above: the number must be greater than `low`, not equal to it.
        choices: the words of a choice, of a list, or of words (which may be none); a list of other words than the
            splits may also hold whole numbers from `low` on.
        optional: null is possible.
    """

    kind: Kind
    low: float = 0
    high: float = math.inf
    above: bool = False
    choices: tuple[str, ...] = ()
    optional: bool = False


_PATH, _BOOL = Rule("path"), Rule("bool")
_COUNT, _ONE_OR_MORE = Rule("whole"), Rule("whole", 1)
_POSITIVE, _FACTOR = Rule("number", above=True), Rule("number", 0, 1, above=True)
_SPLITS = ("train", "val", "test", "")


def _choice(*words: str) -> Rule:
    return Rule("choice", choices=words)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("bundle_root", "output_dir", "encoder_path", "ckpt_path", "store_dir"), _PATH),
    **dict.fromkeys(
        ("compile", "pretrained", "freeze_encoder", "allow_seen_patients", "allow_missing_findings"), _BOOL
    ),
    **dict.fromkeys(("num_workers", "chunk_size", "probe_interval", "draw", "patience", "local_rank"), _COUNT),
    **dict.fromkeys(("max_epochs", "batch_size", "val_interval", "n_seeds", "inference_batch"), _ONE_OR_MORE),
    **dict.fromkeys(("learning_rate", "temperature", "_meta_::encoder::width"), _POSITIVE),
    **dict.fromkeys(("max_grad_norm", "checkpoint_minutes", "watch", "_meta_::defaults::weight_decay"), Rule("number")),
    "dataset_dir": Rule("paths"),
    "max_unreadable": Rule("number", 0, 1),
    "label_fraction": _FACTOR,
    "layer_decay": _FACTOR,
    "seed": Rule("whole", 0, 2**32 - 1),
    "size": Rule("whole", 32),
    "n_bootstrap": Rule("whole", 1),
    "n_trainable_stages": Rule("whole", optional=True),
    "scaling": _choice("none", "sqrt", "linear"),
    "optimizer_name": _choice("adamw", "lars", "sgd"),
    "strength": _choice(*get_args(Strength)),
    "views_on": _choice("workers", "device"),
    "second_view": _choice(*get_args(SecondView)),
    "strata": Rule("words", choices=("source", "manufacturer", "view_position", "sex")),
    "precision": _choice("bfloat16", "float32", "float16"),
    "norm": _choice("batch", "group"),
    "balance": _choice("none", "class_weights", "balanced_sampling"),
    "method": _choice(*METHODS),
    "evaluation_split": _choice(*_SPLITS[:3]),
    "_meta_::encoder::name": _choice(*ENCODERS),
    "_meta_::encoder::norm": _choice("batch", "group"),
    "splits": Rule("list", choices=_SPLITS),
    "n_clusters": Rule("list", 2, choices=("auto",)),
    "findings": Rule("findings"),
    "device": Rule("device"),
    "n_saved": _ONE_OR_MORE,
    "outputs": Rule("outputs"),
}
"""The rule of every setting at the top of a config, and of what configs take from metadata.json."""


def describe_problem(value: Any, rule: Rule) -> str:
    """What is wrong with a value, as "must be ..."; "" when nothing is.

    Example:
        >>> describe_problem("eight", Rule("whole", 1))
        'must be a whole number of at least 1'
        >>> describe_problem(0.1, Rule("number", 0, 1, above=True))
        ''
    """
    if value is None and rule.optional:
        return ""
    return _CHECKS[rule.kind](value, rule)


def _number(value: Any, rule: Rule) -> str:
    kind = "a whole number" if rule.kind == "whole" else "a number"
    types = int if rule.kind == "whole" else int | float
    fits = isinstance(value, types) and not isinstance(value, bool) and math.isfinite(value)
    if fits and (rule.low < value if rule.above else rule.low <= value) and value <= rule.high:
        return ""
    low = f" above {rule.low:g}" if rule.above else "" if rule.low == -math.inf else f" of at least {rule.low:g}"
    high = "" if rule.high == math.inf else f" and at most {rule.high:g}"
    return f"must be {kind}{low}{high}{', or null' if rule.optional else ''}"


def _bool(value: Any, rule: Rule) -> str:
    return "" if isinstance(value, bool) else "must be True or False"


def _path(value: Any, rule: Rule) -> str:
    if isinstance(value, str) and value and "\0" not in value:
        return ""
    quoted = f"; a folder of that name is ./{value}" if isinstance(value, int | float) else ""
    return f"must be a path, as text{quoted}"


def _paths(value: Any, rule: Rule) -> str:
    if isinstance(value, list | tuple):
        return "" if all(not _path(item, rule) for item in value) else "must be a path, or a list of paths, as text"
    return _path(value, rule)


def _one_of(value: Any, rule: Rule) -> str:
    return "" if isinstance(value, str) and value in rule.choices else f"must be one of {', '.join(rule.choices)}"


def _list(value: Any, rule: Rule) -> str:
    numbers = rule.choices != _SPLITS
    whole = Rule("whole", rule.low)
    words = ", ".join(repr(word) for word in rule.choices)
    problem = f"must be a list of {f'whole numbers of at least {rule.low:g} and ' if numbers else ''}{words}"
    if not isinstance(value, list | tuple):
        return f'{problem}, with its brackets: "[{value!r}]"'
    fits = [item in rule.choices if isinstance(item, str) else numbers and not _number(item, whole) for item in value]
    unique = len({repr(item) for item in value}) == len(value)
    return "" if value and all(fits) and unique else f"{problem}, each once"


def _words(value: Any, rule: Rule) -> str:
    fits = isinstance(value, list | tuple) and all(word in rule.choices for word in value)
    return "" if fits and len(set(value)) == len(value) else f"must be a list of {', '.join(rule.choices)}, each once"


def _device(value: Any, rule: Rule) -> str:
    try:
        device = torch.device(value if isinstance(value, str | torch.device) else "")
    except RuntimeError:
        return "must be a device's name, such as cpu or cuda:0"
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = f"torch sees {count} GPUs here" if count else "torch sees no GPU here"
        return "" if (device.index or 0) < count else f"must be an available device: {gpus}; pass --device cpu"
    if device.type == "mps" and not torch.backends.mps.is_available():
        return "must be an available device: torch sees no mps here; pass --device cpu"
    return ""


def _findings(value: Any, rule: Rule) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return f"must be a list of names, with its brackets: \"['{value}']\""
    try:
        check_finding_names(value)
    except ValueError as error:
        return f"must be names of findings: {error}"
    return ""


def _outputs(value: Any, rule: Rule) -> str:
    if not isinstance(value, OutputOptions):
        return "has parts, each True or False: --outputs#overlays True"
    wrong = [name for name, option in vars(value).items() if not isinstance(option, bool)]
    return f"must be True or False for {', '.join(wrong)}" if wrong else ""


_CHECKS = {
    "whole": _number,
    "number": _number,
    "bool": _bool,
    "path": _path,
    "paths": _paths,
    "choice": _one_of,
    "list": _list,
    "words": _words,
    "device": _device,
    "findings": _findings,
    "outputs": _outputs,
}
