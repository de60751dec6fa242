"""Curves: what a cost is at several counts of something, on each loop; their tables and JSON.

A curve of one count is a single figure. `memory.py` and `scale.py` measure curves and write the
same JSON:

    {"about": {...},                         as in the JSON of compare.py
     "curves": [
       {"curve": "request",                  its name
        "what": "CPU time of an echo server a request",
        "unit": "seconds",                   of the values: seconds or bytes
        "counted": "idle connections",       what the counts are of: the other axis of a plot
        "growth_most": 1.03,                 how many times its first value oxloop's last may be
       "limit": "flat within 3%",           the same in words; both null if nothing is said of it
        "verdict": "pass",                   pass, short, open (the interval decides nothing), -
        "loops": {
          "oxloop": {
            "failure": null,                 why values are missing, if any are
            "growth": {                      last value / first of the same round, or null
              "value": 1.01,                 the median of the rounds
              "interval": [0.99, 1.02]},     95 %, by the bootstrap; null below three rounds
            "points": [
              {"count": 10,
               "median": 9.1e-06,
               "samples": [9.1e-06, ...]},   one a round, null where a round gave none
              ...]},
          "floor": ...}},                    for requests a server without a loop, for timers a heap
       ...]}
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import loops
import ratio
import report
from measurement import FLOOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratio import Ratio

SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


@dataclass(frozen=True)
class Limit:
    """How many times the value at one count that at another may be, and what that is called.

    With `or_floor` a cost may also grow as that of the floor does.
    """

    words: str
    most: Callable[[int, int], float]
    or_floor: bool = False


@dataclass(frozen=True)
class Curve:
    """What is measured, and how it may grow."""

    name: str
    what: str
    unit: str
    counted: str
    limit: Limit | None = None
    is_growth_shown: bool = True


@dataclass
class Series:
    """One curve on one loop: its values by count, each by round, or why there are none."""

    values: dict[int, dict[int, float]] = field(default_factory=dict)
    failure: str | None = None
    is_given_up: bool = False

    def median(self, count: int) -> float | None:
        values = self.values.get(count)
        return statistics.median(values.values()) if values else None

    def growth(self, first: int, last: int) -> Ratio | None:
        """Return how many times the value at one count the value at another is, by rounds."""
        before, after = self.values.get(first, {}), self.values.get(last, {})
        return ratio.of_rounds(after, {each: value for each, value in before.items() if value})

    def to_json(self, rounds: int) -> dict[str, Any]:
        points = [
            {
                "count": count,
                "median": self.median(count),
                "samples": [values.get(each) for each in range(rounds)],
            }
            for count, values in sorted(self.values.items())
        ]
        return {"failure": self.failure, "points": points}


@dataclass
class Plot:
    """A curve with its series by loop."""

    curve: Curve
    series: dict[str, Series]

    @property
    def counts(self) -> list[int]:
        return sorted({count for series in self.series.values() for count in series.values})

    def growth(self, spec: str) -> Ratio | None:
        """Return how much a loop's value at the last count is of that at the first."""
        counts = self.counts
        if len(counts) < 2 or spec not in self.series:
            return None
        return self.series[spec].growth(counts[0], counts[-1])

    @property
    def subject(self) -> str | None:
        """The first of the builds of the project that are measured."""
        return next((spec for spec in self.series if loops.is_subject(spec)), None)

    @property
    def growth_most(self) -> float | None:
        counts, limit = self.counts, self.curve.limit
        if limit is None or len(counts) < 2:
            return None
        most = limit.most(counts[0], counts[-1])
        floor = self.growth(FLOOR) if limit.or_floor else None
        return most if floor is None else max(most, floor.value)

    @property
    def verdict(self) -> str:
        """Say whether the project's loop keeps to the growth that is allowed."""
        growth = None if self.subject is None else self.growth(self.subject)
        most = self.growth_most
        if growth is None or most is None:
            return "-"
        low, high = growth.interval or (growth.value, growth.value)
        if high <= most:
            return "pass"
        return "short" if low > most else "open"

    def to_json(self, rounds: int) -> dict[str, Any]:
        return {
            "curve": self.curve.name,
            "what": self.curve.what,
            "unit": self.curve.unit,
            "counted": self.curve.counted,
            "growth_most": self.growth_most,
            "limit": None if self.curve.limit is None else self.curve.limit.words,
            "verdict": self.verdict,
            "loops": {
                spec: {"growth": growth_to_json(self.growth(spec)), **series.to_json(rounds)}
                for spec, series in self.series.items()
            },
        }


def growth_to_json(growth: Ratio | None) -> dict[str, Any] | None:
    return None if growth is None else {"value": growth.value, "interval": growth.interval}


def flat(part: float) -> Limit:
    """Allow a cost to grow by a part of it."""
    return Limit(f"flat within {part:.0%}", lambda first, last: 1.0 + part)


def logarithm(first: int, last: int) -> float:
    """Return how many times the logarithm of the first count that of the last is."""
    return math.log(last) / math.log(first)


def value_text(value: float | None, unit: str) -> str:
    """Write a value for the eye: bytes with commas, seconds in their own scale."""
    if value is None:
        return "-"
    if unit == "bytes":
        return f"{value:,.0f}"
    if value == 0:
        return "0"
    scale, name = next((each for each in SCALES if abs(value) >= each[0]), SCALES[-1])
    return f"{value / scale:.3g} {name}"


def table(plots: list[Plot], specs: list[str]) -> str:
    """Return the medians, a line for each curve and count."""
    body = []
    for plot in plots:
        for count in plot.counts:
            texts = [
                value_text(plot.series[spec].median(count), plot.curve.unit)
                if spec in plot.series
                else ""
                for spec in specs
            ]
            body.append([plot.curve.name, f"{count:,}", *texts])
    return report.table(["curve", "count", *specs], body)


def growth_table(plots: list[Plot], specs: list[str]) -> str:
    """Return how much the last value of each curve of several counts is of the first."""
    body = []
    for plot in plots:
        counts = plot.counts
        if len(counts) < 2 or not plot.curve.is_growth_shown:
            continue
        growths = {spec: plot.growth(spec) for spec in specs}
        texts = [
            "" if spec not in plot.series else "-" if growth is None else str(growth)
            for spec, growth in growths.items()
        ]
        most = "-" if plot.growth_most is None else f"{plot.growth_most:.2f}"
        span = f"{counts[0]:,} to {counts[-1]:,}"
        body.append([plot.curve.name, span, *texts, most, plot.verdict])
    if not body:
        return ""
    return report.table(["growth", "from, to", *specs, "at most", "verdict"], body)


def legend(plots: list[Plot]) -> list[str]:
    """Return what each curve is."""
    return [
        f"{plot.curve.name}: {plot.curve.what}; counted: {plot.curve.counted}" for plot in plots
    ]


def notes(plots: list[Plot]) -> list[str]:
    """Return why values are missing."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for plot in plots:
        for spec, series in plot.series.items():
            if series.failure is not None:
                reasons.setdefault((spec, series.failure), []).append(plot.curve.name)
    return [f"{spec}: {reason} - {', '.join(names)}" for (spec, reason), names in reasons.items()]
