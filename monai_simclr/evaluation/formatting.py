"""How a score is printed: never alone."""

from __future__ import annotations

import math


def format_score(
    value: float,
    low: float,
    high: float,
    majority: float | None,
    null: tuple[float, float] | None,
    name: str = "ACC",
    baseline: str = "majority",
) -> str:
    """A score as text, with its interval, the majority baseline and the 95 % band of the permutation null.

    Args:
        value: the score.
        low: of its interval.
        high: of its interval.
        majority: what answering the commonest training class always would score.
        null: the band of the same procedure under permuted labels.
        name: of the score.
        baseline: what the majority is called.

    Raises:
        ValueError: if the interval, the majority or the null is missing: a bare accuracy says nothing.

    Example:
        >>> format_score(0.67, 0.61, 0.72, 0.23, (0.15, 0.19))
        'ACC 0.67 [0.61, 0.72] (majority 0.23, null 0.15-0.19)'
    """
    beside = {"low": low, "high": high, "majority": majority, "null": None if null is None else sum(null)}
    missing = [key for key, number in beside.items() if number is None or not math.isfinite(number)]
    if missing or majority is None or null is None:
        raise ValueError(
            f"{name} {value:.2f} would stand without its {', '.join(missing)}; a bare score says nothing: "
            "compute them with evaluate_clusters() or knn()"
        )
    dash = "-" if null[0] >= 0 and null[1] >= 0 else " to "
    band = f"null {null[0]:.2f}{dash}{null[1]:.2f}"
    return f"{name} {value:.2f} [{low:.2f}, {high:.2f}] ({baseline} {majority:.2f}, {band})"
