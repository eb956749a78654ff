"""The identity of a run: everything that its executed config computes with, except what cannot matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from monai.bundle import ConfigParser

from monai_simclr.data import StoreDataset
from monai_simclr.engines.precision import resolve_precision
from monai_simclr.workflows.calling import calling_parser
from monai_simclr.workflows.setting_rules import RULES
from monai_simclr.workflows.settings import SEP, references, shown

CANNOT_MATTER = frozenset(
    {
        *("bundle_root", "dataset_dir", "output_dir", "store_dir", "encoder_path", "ckpt_path"),  # where things are
        *("folder", "report", "path", "log_dir"),
        *("device", "engine", "local_rank", "num_workers", "workers", "inference_batch", "watch"),  # where it runs
        *("checkpoint_minutes", "n_saved", "every_minutes", "every_epochs", "every_iterations"),  # checkpoints
        *("probe_interval", "max_unreadable"),  # what is watched, and when a run gives up
        "_desc_",
    }
)
"""Names of keys, at any depth, that may change when a run resumes, because they change nothing that is computed.

`dataset_dir` is a place; its content counts, by the data set's fingerprint (`run_identity`) or the model's checksum.
"""

OBSERVERS = frozenset(
    {
        "MLFlowHandler",
        "monai.handlers.MLFlowHandler",
        "monai.handlers.StatsHandler",
        "monai.handlers.TensorBoardStatsHandler",
        "monai_simclr.runtime.distributed.init_distributed",
        "monai_simclr.workflows.check_store",
        "monai_simclr.workflows.probe",
    }
)
"""Parts that only observe, or let ranks meet; a run is the same with or without them."""


def run_identity(dataset: StoreDataset) -> dict[str, Any]:
    """What a checkpoint and the run that resumes from it must agree on: the data, and `config_identity`.

    Args:
        dataset: the images that the run learns from.
    """
    parser = calling_parser()
    return {"dataset": dataset.fingerprint, **({} if parser is None else config_identity(parser))}


def config_identity(parser: ConfigParser, roots: tuple[str, ...] = ("initialize", "run")) -> dict[str, Any]:
    """Every plain value that a config computes with, by its id as it is typed.

    All references are followed from the roots, so what only another command reads does not count. A setting counts
    with its value, whatever expression gave it (``temperature`` of 0.5 and ``$1 / 2`` are one run); below the settings
    texts count as they are written.

    Args:
        parser: of the executed config, overrides included.
        roots: ids to start from.

    Returns:
        id -> value, sorted by the id; without `CANNOT_MATTER` and `OBSERVERS`.

    Example:
        >>> config = {"run": ["$print(@loss)"], "loss": {"power": "@power"}, "power": "$1 + 1", "num_workers": 3}
        >>> config_identity(ConfigParser(config))
        {'loss#power': '@power', 'power': '$1 + 1', 'run#0': '$print(@loss)'}
    """
    values: dict[str, Any] = {}
    waiting, done = list(roots), set()
    while waiting:
        name = waiting.pop()
        if name in done or name not in parser or not CANNOT_MATTER.isdisjoint(name.split(SEP)):
            continue
        done.add(name)
        if name in RULES and not isinstance(parser[name], dict):
            value = parser.get_parsed_content(name)
            if name == "precision" and "device" in parser:
                value = resolve_precision(value, parser.get_parsed_content("device"))  # auto differs between machines
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # 1 and 1.0 are one setting
            values[shown(name)] = list(value) if isinstance(value, tuple) else value
            continue
        for leaf, value in _leaves(parser[name], name):
            values[shown(leaf)] = value
            waiting += references(value)
    return dict(sorted(values.items()))


def _leaves(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        if node.get("_target_") in OBSERVERS:
            return
        for key, value in node.items():
            if key not in CANNOT_MATTER:
                yield from _leaves(value, f"{where}{SEP}{key}")
    elif isinstance(node, list | tuple) and node:
        for number, value in enumerate(node):
            yield from _leaves(value, f"{where}{SEP}{number}")
    else:
        yield where, node if isinstance(node, str | int | float | bool | None) else f"a {type(node).__name__}"
