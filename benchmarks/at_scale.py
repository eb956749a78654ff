"""Core-hours, hours and price for millions of radiographs, from the measured images per second and a stated price.

    python benchmarks/at_scale.py [--price 0.05] [--cores 100]

Prints a Markdown table. `price` is of one core for one hour, in any currency: look up your own. One process a core, the
time of starting (about ten seconds a process) and of waiting for the network file system left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent / "results" / "inference.json"
COUNTS = (1, 10, 100)
HEAD = "| work, files | images/s a core | millions | core-hours | hours on {cores} cores | price, {price} a core-hour |"


def table(result: dict[str, Any], price: float, cores: int) -> list[str]:
    """Lines of the table.

    Args:
        result: content of ``inference.json``.
        price: of a core-hour.
        cores: that work at the same time.

    Example:
        >>> table({"workflow": {"PNG": {"images_per_second": 10.0}}, "store": {}}, 0.05, 100)[2]
        '| inference, PNG | 10 | 1 | 28 | 0.28 | 1.4 |'
    """
    rates = [(f"inference, {kind}", one["images_per_second"]) for kind, one in result["workflow"].items()]
    rates += [(f"store, {kind}", one["images_per_cpu_second"]) for kind, one in result["store"].items()]
    lines = [HEAD.format(cores=cores, price=f"{price:g}"), "|---" * 6 + "|"]
    for name, rate in rates:
        for millions in COUNTS:
            hours = millions * 1e6 / rate / 3600
            cells = [_short(rate), str(millions), _short(hours), _short(hours / cores), _short(hours * price)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _short(number: float) -> str:
    """Two digits that count."""
    return f"{float(f'{number:.2g}'):,g}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--price", type=float, default=0.05)
    parser.add_argument("--cores", type=int, default=100)
    options = parser.parse_args()
    print("\n".join(table(json.loads(RESULT.read_text()), options.price, options.cores)))
