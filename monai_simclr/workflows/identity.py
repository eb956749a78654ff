"""What makes a run the run it is: everything that its executed config computes with, less what cannot matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from monai.bundle import ConfigParser

from monai_simclr.data import StoreDataset
from monai_simclr.workflows.keys import SEP, references, shown
from monai_simclr.workflows.setting_rules import RULES
from monai_simclr.workflows.settings import running_parser

CANNOT_MATTER = frozenset(
    {
        *("bundle_root", "dataset_dir", "output_dir", "store_dir", "encoder_path", "ckpt_path"),  # where things are
        *("folder", "report", "path", "log_dir"),
        *("device", "local_rank", "num_workers", "workers", "inference_batch", "watch"),  # what computes, and how
        *("checkpoint_minutes", "n_saved", "every_minutes", "every_epochs", "every_iterations"),  # checkpoints
        *("probe_interval", "max_unreadable"),  # what is looked at meanwhile, and when a run gives up
        "_desc_",
    }
)
"""Names of keys, at any depth, that a run may change when it goes on: they change nothing that is computed.

`dataset_dir` is a place; what is in it counts, by the data set's fingerprint (`run_identity`) or the model's checksum.
"""

OBSERVERS = frozenset(
    {
        "MLFlowHandler",
        "monai.handlers.MLFlowHandler",
        "monai.handlers.StatsHandler",
        "monai.handlers.TensorBoardStatsHandler",
        "monai_simclr.workflows.check_store",
        "monai_simclr.workflows.probe",
    }
)
"""Parts that look on; with or without them, a run is the same."""


def run_identity(dataset: StoreDataset) -> dict[str, Any]:
    """What a checkpoint must agree on with a run that goes on from it: the data, and `config_identity`.

    Args:
        dataset: what the run learns from.
    """
    parser = running_parser()
    return {"dataset": dataset.fingerprint, **({} if parser is None else config_identity(parser))}


def config_identity(parser: ConfigParser, roots: tuple[str, ...] = ("initialize", "run")) -> dict[str, Any]:
    """Every plain value that a config computes with, by its id as one types it.

    From the roots all references are followed, so what only another command reads does not count. A setting counts
    with its value, whatever expression gave it (``temperature`` of 0.5 and ``$1 / 2`` are one run); below the settings
    texts count as they stand.

    Args:
        parser: of the executed config, overrides included.
        roots: where to begin.

    Returns:
        id -> value, sorted by the id; without `CANNOT_MATTER` and `OBSERVERS`.

    Example:
        >>> config = {"run": ["$print(@loss)"], "loss": {"power": "@power"}, "power": "$1 + 1", "num_workers": 3}
        >>> config_identity(ConfigParser(config))
        {'loss#power': '@power', 'power': '$1 + 1', 'run#0': '$print(@loss)'}
    """
    found: dict[str, Any] = {}
    waiting, done = list(roots), set()
    while waiting:
        name = waiting.pop()
        if name in done or name not in parser or not CANNOT_MATTER.isdisjoint(name.split(SEP)):
            continue
        done.add(name)
        if name in RULES and not isinstance(parser[name], dict):
            found[shown(name)] = _plain(parser.get_parsed_content(name), name)
            continue
        for leaf, value in _leaves(parser[name], name):
            found[shown(leaf)] = value
            waiting += references(value)
    return dict(sorted(found.items()))


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


def _plain(value: Any, name: str) -> Any:
    """A setting's value: lists as lists, and numbers of any size as floats where fractions are possible."""
    if isinstance(value, list | tuple):
        return list(value)
    return float(value) if RULES[name].kind == "number" else value
