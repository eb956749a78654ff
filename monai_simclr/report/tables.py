"""Metrics as tables: whatever nesting a command wrote, every record becomes a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from monai_simclr.report.html import Table, cell


def results_tables(metrics: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Tables of the values, and of the baselines beside them, of every command.

    Records (mappings without nesting) that have the same keys share a table, their place in the nesting as the name of
    the row; single numbers share another.

    Args:
        metrics: by command, what `read_metrics` gave.

    Example:
        >>> values = {"auroc": {"value": 0.7, "low": 0.6, "high": 0.8}}
        >>> [table] = results_tables({"evaluate": {"values": values, "split": "test"}})
        >>> table.title, table.columns, table.rows
        ('evaluate (test): values', ['', 'value', 'low', 'high'], [['auroc', '0.700', '0.600', '0.800']])
    """
    tables = []
    for command, content in metrics.items():
        split = f" ({content['split']})" if content.get("split") else ""
        for part in ("values", "baselines"):
            groups: dict[tuple[str, ...], list[list[str]]] = {}
            for name, record in _records(content.get(part, {}), ""):
                groups.setdefault(tuple(record), []).append([name, *(cell(value) for value in record.values())])
            tables += [Table(f"{command}{split}: {part}", ["", *keys], rows) for keys, rows in groups.items()]
    return tables


def version_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """Seed, time and versions of every command that recorded them."""
    facts = ("split", "seed", "n", "seconds", "created", "versions", "python", "platform")
    rows = []
    for command, content in metrics.items():
        for fact in facts:
            if content.get(fact) not in (None, "", {}):
                rows.append([command, fact, cell(content[fact])])
    return Table("how the results were made", ["command", "fact", "value"], rows)


def _records(values: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    items: list[tuple[str, Any]]
    if isinstance(values, Mapping):
        items = [(str(key), value) for key, value in values.items()]
        flat = {key: value for key, value in items if not isinstance(value, Mapping | list | tuple)}
        if flat and len(flat) == len(items) and name:
            yield name, flat
            return
        for key, value in flat.items():
            yield _join(name, key), {"value": value}
    else:
        items = [(str(i + 1), value) for i, value in enumerate(values)]
    for key, value in items:
        if isinstance(value, Mapping | list | tuple):
            plain = isinstance(value, list | tuple) and not any(isinstance(item, Mapping) for item in value)
            yield from [(_join(name, key), {"value": value})] if plain else _records(value, _join(name, key))


def _join(name: str, key: str) -> str:
    return f"{name} {key}".strip()
