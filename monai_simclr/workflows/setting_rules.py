"""The values that settings of bundle commands can have: one rule per key, which gives the message when it is broken."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch

from monai_simclr.data.findings import check_finding_names
from monai_simclr.data.partners import SecondView
from monai_simclr.engines.precision import Precision
from monai_simclr.inference import OutputOptions, Runtime
from monai_simclr.networks import ENCODERS
from monai_simclr.recipes import Strength
from monai_simclr.runtime.cluster import check_engine
from monai_simclr.runtime.exit_codes import SettingError

Rule = Callable[[Any], str]
"""From a value to what is wrong with it, as "must be ..."; "" when nothing is."""


def number(
    low: float = 0, high: float = math.inf, whole: bool = False, above: bool = False, optional: bool = False
) -> Rule:
    """A number from `low` (or `above` it) to `high`; a `whole` one; or null, if `optional`.

    Example:
        >>> number(1, whole=True)("eight"), number(0, 1, above=True)(0.1)
        ('must be a whole number of at least 1', '')
    """
    at_least = f" above {low:g}" if above else "" if low == -math.inf else f" of at least {low:g}"
    at_most = "" if high == math.inf else f" and at most {high:g}"
    problem = f"must be {'a whole number' if whole else 'a number'}{at_least}{at_most}{', or null' if optional else ''}"

    def check(value: Any) -> str:
        if value is None and optional:
            return ""
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and math.isfinite(value)
        return "" if fits and (low < value if above else low <= value) and value <= high else problem

    return check


def choice(*words: str) -> Rule:
    """One of some words."""
    return lambda value: "" if isinstance(value, str) and value in words else f"must be one of {', '.join(words)}"


def boolean(value: Any) -> str:
    """True or False."""
    return "" if isinstance(value, bool) else "must be True or False"


def _list(*words: str, numbers_from: int | None = None) -> Rule:
    """A list of words, and of whole numbers from `numbers_from` on; not empty, each item once."""
    numbers = "" if numbers_from is None else f"whole numbers of at least {numbers_from} and "
    problem = f"must be a list of {numbers}{', '.join(map(repr, words))}"
    is_wrong = number(numbers_from or 0, whole=True)

    def check(value: Any) -> str:
        if not isinstance(value, list | tuple):
            return f'{problem}, with its brackets: "[{value!r}]"'
        fits = [item in words if isinstance(item, str) else bool(numbers) and not is_wrong(item) for item in value]
        unique = len({repr(item) for item in value}) == len(value)
        return "" if value and all(fits) and unique else f"{problem}, each once"

    return check


def _encoder(value: Any) -> str:
    known = choice(*ENCODERS, "timm/NAME")
    return "" if isinstance(value, str) and re.fullmatch(r"timm/[\w.]+", value) else known(value)


def _strata(value: Any) -> str:
    words = ("source", "manufacturer", "view_position", "sex")
    fits = isinstance(value, list | tuple) and all(word in words for word in value) and len(set(value)) == len(value)
    return "" if fits else f"must be a list of {', '.join(words)}, each once"


def _size_schedule(value: Any) -> str:
    problem = "must be pairs of a size and its share of the epochs, which sum to 1, as in [[64, 0.4], [128, 0.6]]"
    if not isinstance(value, list | tuple) or not all(isinstance(pair, list | tuple) for pair in value):
        return problem
    size, share = number(32, whole=True), number(0, 1, above=True)
    fits = all(len(pair) == 2 and not size(pair[0]) and not share(pair[1]) for pair in value)
    return "" if not value or (fits and abs(sum(share for _, share in value) - 1) <= 1e-6) else problem


def _path(value: Any) -> str:
    if isinstance(value, str) and value and "\0" not in value:
        return ""
    number_name = f"; a folder of that name is ./{value}" if isinstance(value, int | float) else ""
    return f"must be a path, as text{number_name}"


def _paths(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "must be a path, or a list of paths, as text" if any(map(_path, value)) else ""
    return _path(value)


def _device(value: Any) -> str:
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


def _findings(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return f"must be a list of names, with its brackets: \"['{value}']\""
    try:
        check_finding_names(value)
    except ValueError as error:
        return f"must be names of findings: {error}"
    return ""


def _outputs(value: Any) -> str:
    if not isinstance(value, OutputOptions):
        return "has parts, each True or False: --outputs#overlays True"
    wrong = [name for name, option in vars(value).items() if boolean(option)]
    return f"must be True or False for {', '.join(wrong)}" if wrong else ""


_COUNT, _ONE_OR_MORE, _POSITIVE = number(whole=True), number(1, whole=True), number(above=True)


def _engine(value: Any) -> str:
    try:
        check_engine(str(value))
    except SettingError as error:
        return f"must be an engine: {error}"
    return ""


def _method(value: Any) -> str:
    from monai_simclr.evaluation.clusterers import AUTO, METHODS  # seconds of imports, for one command

    return choice(AUTO, *METHODS)(value)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("bundle_root", "output_dir", "encoder_path", "ckpt_path", "store_dir"), _path),
    **dict.fromkeys(
        ("compile", "pretrained", "freeze_encoder", "allow_seen_patients", "allow_missing_findings", "join_sides"),
        boolean,
    ),
    **dict.fromkeys(
        ("num_workers", "chunk_size", "probe_interval", "draw", "patience", "local_rank", "freeze_batch_norm_below"),
        _COUNT,
    ),
    **dict.fromkeys(
        (
            "max_epochs",
            "batch_size",
            "val_interval",
            "n_seeds",
            "n_bootstrap",
            "n_saved",
            "inference_batch",
            "head_views",
        ),
        _ONE_OR_MORE,
    ),
    **dict.fromkeys(("learning_rate", "temperature", "_meta_::encoder::width"), _POSITIVE),
    **dict.fromkeys(("max_grad_norm", "checkpoint_minutes", "watch", "_meta_::defaults::weight_decay"), number()),
    **dict.fromkeys(("label_fraction", "layer_decay"), number(0, 1, above=True)),
    "dataset_dir": _paths,
    "start_from": lambda value: "" if value is None else _path(value),
    "max_unreadable": number(0, 1),
    "seed": number(0, 2**32 - 1, whole=True),
    "size": number(32, whole=True),
    "n_trainable_stages": number(whole=True, optional=True),
    "scaling": choice("none", "sqrt", "linear"),
    "optimizer_name": choice("adamw", "lars", "sgd"),
    "strength": choice(*get_args(Strength)),
    "views_on": choice("workers", "device"),
    "second_view": choice(*get_args(SecondView)),
    **dict.fromkeys(("strata", "remove"), _strata),
    "size_schedule": _size_schedule,
    "precision": choice(*get_args(Precision)),
    "head_start": choice("probe", "random"),
    "balance": choice("none", "class_weights", "balanced_sampling"),
    "method": _method,
    "evaluation_split": choice("train", "val", "test"),
    "_meta_::encoder::name": _encoder,
    **dict.fromkeys(("norm", "_meta_::encoder::norm"), choice("batch", "group")),
    "splits": _list("train", "val", "test", ""),
    "n_clusters": _list("auto", numbers_from=2),
    "findings": _findings,
    "device": _device,
    "engine": _engine,
    "outputs": _outputs,
    "runtime": choice(*get_args(Runtime)),
}
"""The rule of every setting at the top of a config, and of what configs take from metadata.json."""
