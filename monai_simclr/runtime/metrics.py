"""The form of ``metrics.json``: one writer, one reader; and the closing line and tables of every run."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_simclr.runtime.artefacts import DamagedFileError, read_json, write_sealed_json
from monai_simclr.runtime.names import shown

if TYPE_CHECKING:
    import pandas as pd

METRICS_FILE = "metrics.json"

_PACKAGES = ("monai", "torch", "numpy", "scikit-learn")


def write_metrics(
    output_dir: str | Path,
    values: Mapping[str, Any],
    *,
    command: str,
    split: str,
    seed: int,
    n: Mapping[str, int],
    baselines: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> Path:
    """Write ``metrics.json``, atomically.

    Args:
        output_dir: the run's folder.
        values: the numbers, nested by name (`nest_rows`), never keyed by joined names; one with an interval is
            ``{"value", "low", "high"}`` or has ``as_dict()``; a table becomes a list of rows.
        command: that computed them ("pretrain", "cluster", ...).
        split: that was scored.
        seed: of the run.
        n: counts: ``{"images": 500, "patients": 320}``.
        baselines: what the values are compared with (majority, null, raw pixels, random encoder).
        seconds: duration of the run.

    Returns:
        The file's path.

    Raises:
        TypeError: if a value is neither number, text, list, mapping, table, NumPy scalar or array, nor None.
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = write_metrics(tempfile.mkdtemp(), {"auroc": {"value": 0.7, "low": 0.6, "high": float("nan")}},
        ...                      command="evaluate", split="test", seed=0, n={"images": 10})
        >>> read_metrics(path)["values"]
        {'auroc': {'value': 0.7, 'low': 0.6, 'high': None}}
    """
    content = {
        "command": command,
        "values": values,
        "baselines": baselines or {},
        "n": n,
        "split": split,
        "seed": seed,
        "seconds": seconds,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    path = Path(output_dir) / METRICS_FILE
    write_sealed_json(path, plain(content))
    return path


def read_metrics(path: str | Path) -> dict[str, Any]:
    """Read what `write_metrics` wrote; `path` is the file or its folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is not one of ours, or was altered.
    """
    path = Path(path)
    path = path / METRICS_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no metrics at {path}; run the bundle command that writes them first")
    remedy = "run the command that writes it again"
    content: dict[str, Any] = read_json(path, "a metrics file of ours", remedy, ("command", "values", "split"))
    if not isinstance(content["command"], str) or not isinstance(content["values"], dict):
        raise DamagedFileError(path, "has a command that is not text, or values that are not a mapping", remedy)
    return content


def package_versions() -> dict[str, str]:
    """Versions of this package and of what its numbers depend on, read without importing them; "" if not installed."""
    return {"monai_simclr": "", **dict.fromkeys(_PACKAGES, ""), **installed_versions("monai_simclr", *_PACKAGES)}


def installed_versions(*names: str) -> dict[str, str]:
    """Versions of those packages that are installed, by name, read without importing them."""
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


@cache
def check_versions(expected: tuple[tuple[str, str], ...]) -> None:
    """Check, in a worker, that it computes with the packages of the process that it works for.

    Args:
        expected: pairs of a package and its version; "" for one that must not be installed.

    Raises:
        OSError: if one is another here.
    """
    found = installed_versions(*dict(expected))
    for name, version in expected:
        if found.get(name, "") != version:
            here, there = (text or "not installed" for text in (found.get(name, ""), version))
            raise OSError(
                f"{name} is {here} on {socket.gethostname()}, and {there} where the command runs; results may differ: "
                "install the same versions on all workers"
            )


def closing_line(files: Sequence[str | Path], next_command: str) -> str:
    """The last line of a run: the files it wrote, and what to run next.

    Example:
        >>> closing_line(["models/model.pt", "metrics.json"], "monai-simclr evaluate")
        'made models/model.pt, metrics.json; next: monai-simclr evaluate'
        >>> closing_line(["report.html"], "")
        'made report.html'
    """
    if not files:
        raise ValueError("a run that made nothing has no closing line; name what it made")
    line = "made " + ", ".join(shown(path) for path in files)
    return f"{line}; next: {next_command}" if next_command else line


def table_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as dicts, names of columns as text."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def nest_rows(table: pd.DataFrame, *keys: str) -> dict[str, Any]:
    """Rows of a table by the values of columns, as text, one level for each: the nesting of ``metrics.json``.

    Example:
        >>> import pandas as pd
        >>> nest_rows(pd.DataFrame({"finding": ["Mass"], "n_clusters": [6], "auroc": [0.5]}), "finding", "n_clusters")
        {'Mass': {'6': {'auroc': 0.5}}}
    """
    nested: dict[str, Any] = {}
    for row in table_rows(table):
        inner = nested
        for key in keys:
            inner = inner.setdefault(str(row.pop(key)), {})
        inner.update(row)
    return nested


def print_table(rows: Sequence[Mapping[str, Any]] | pd.DataFrame, title: str) -> None:
    """Print rows as a table on stdout; the columns are the first row's keys, numbers get three decimals."""
    from rich.console import Console  # only runs that print a table pay for rich
    from rich.table import Table
    from rich.text import Text

    def cell(value: Any) -> str:
        value = plain(value)
        if value is None:
            return "-"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    records = rows if isinstance(rows, Sequence) else table_rows(rows)
    table = Table(title=Text(title))
    for name in records[0] if records else ():
        table.add_column(Text(str(name)))
    for row in records:
        table.add_row(*(Text(cell(row.get(name))) for name in records[0]))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140).print(table)


def plain(value: Any) -> Any:
    """Only JSON's types: NumPy becomes Python, a table a list of rows, a number that is not finite None."""
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    if hasattr(value, "columns"):
        value = table_rows(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"metrics hold numbers, text, lists and mappings; {value!r} is a {type(value).__name__}")
