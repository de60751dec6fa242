"""Ratio: how fast one loop is beside another, judged by the rounds that both were measured in.

The rates of one round share what disturbed the machine in that round, so each round gives a
ratio of its own. The ratio is the median of those; its interval says how far that median
would move if other rounds had been drawn, by the bootstrap.
"""

from __future__ import annotations

import functools
import math
import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONFIDENCE = 0.95
RESAMPLES = 4000
SEED = 1
# Two rounds tell nothing of a third.
ROUNDS_LEAST = 3


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios and its interval, if there are rounds enough for one."""

    value: float
    interval: tuple[float, float] | None

    def verdict(self, target: float = 1.0) -> str:
        """Say on which side of the target the interval lies: lead, even or behind."""
        if self.interval is None:
            return "-"
        low, high = self.interval
        if low >= target:
            return "lead"
        return "behind" if high < target else "even"

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.value:.2f}"
        low, high = self.interval
        return f"{self.value:.2f} ({low:.2f}-{high:.2f})"


@functools.cache
def median_interval(values: tuple[float, ...]) -> tuple[float, float]:
    """Return the percentile interval of the median of values, drawn anew with replacement."""
    draw = random.Random(SEED)
    count = len(values)
    medians = sorted(statistics.median(draw.choices(values, k=count)) for _ in range(RESAMPLES))
    outside = int((1 - CONFIDENCE) / 2 * RESAMPLES)
    return medians[outside], medians[-1 - outside]


def of_rounds(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Ratio | None:
    """Return the ratio of two loops whose rates are given by round, if they share a round."""
    ratios = tuple(ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys()))
    if not ratios:
        return None
    interval = median_interval(ratios) if len(ratios) >= ROUNDS_LEAST else None
    return Ratio(statistics.median(ratios), interval)


def geometric_mean(values: Iterable[float]) -> float | None:
    """Return the mean in which twice and half as fast cancel out; nothing for no values."""
    logarithms = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logarithms)) if logarithms else None
