"""A temperature that moves during training."""

from __future__ import annotations

import math


class CosineTemperature:
    """Temperature that swings between two values as a cosine of the step, from `high` to `low` and back in a period.

    A low temperature spreads single images apart, a high one groups them; going back and forth helps on long-tailed
    collections, which archives of radiographs are. It is a function of the step alone, so a resumed run continues it.

    Args:
        low: lowest temperature, above 0.
        high: highest temperature, at least `low`.
        period: steps from high to high, above 0.

    Raises:
        ValueError: if a setting is out of range.

    Source:
        Kukleva et al. 2023, "Temperature schedules for self-supervised contrastive methods on long-tail data",
        equation 3 (0.1 to 1.0).

    Example:
        >>> temperature = CosineTemperature(0.1, 1.0, period=100)
        >>> [round(temperature(step), 2) for step in (0, 25, 50, 100)]
        [1.0, 0.55, 0.1, 1.0]
    """

    def __init__(self, low: float, high: float, period: int) -> None:
        if not 0 < low <= high < math.inf:
            raise ValueError(f"temperatures must be above 0, the low one not above the high one, got {low} and {high}")
        if period <= 0:
            raise ValueError(f"period must be above 0 steps, got {period}")
        self.low, self.high, self.period = float(low), float(high), int(period)

    def __call__(self, step: int) -> float:
        """The temperature of a step."""
        share = (1 + math.cos(2 * math.pi * step / self.period)) / 2
        return self.low + (self.high - self.low) * share

    def __repr__(self) -> str:
        return f"CosineTemperature(low={self.low}, high={self.high}, period={self.period})"
