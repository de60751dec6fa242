"""Timers without a loop: a heap of the standard library, which is known to cost log n a timer.

Shows what the logarithm of n comes to on this machine, whose caches hold a thousand timers and
not a million. Runs one of the measurements of timers in many.py, and prints the same JSON.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from typing import TYPE_CHECKING

import process
from many import FAR_AWAY, TIMERS_LEAST, deadlines, turns
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

    Values = dict[str, float]


class Timer:
    """A callback that can be cancelled."""

    __slots__ = ("callback", "is_cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.is_cancelled = False


class Timers:
    """Timers by their deadlines; equal ones in the order of making."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, int, Timer]] = []
        self.made = 0

    def call_at(self, deadline: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self.made += 1
        heapq.heappush(self.entries, (deadline, self.made, timer))
        return timer

    def run(self) -> None:
        """Call all that are not cancelled, the earliest first."""
        entries = self.entries
        while entries:
            timer = heapq.heappop(entries)[2]
            if not timer.is_cancelled:
                timer.callback()


def nothing() -> None:
    pass


def fire(count: int, *, is_shuffled: bool) -> Values:
    repeated = turns(TIMERS_LEAST, count)
    making, firing = Stopwatch(), Stopwatch()
    made = fired = 0.0
    for _ in range(repeated):
        timers = Timers()
        times = deadlines(0.0, count, is_shuffled=is_shuffled)
        with making:
            for each in times:
                timers.call_at(each, nothing)
        with firing:
            timers.run()
        made += making.seconds
        fired += firing.seconds
    return {"made": made / (count * repeated), "fired": fired / (count * repeated)}


def cancel(count: int) -> Values:
    repeated = turns(TIMERS_LEAST, count)
    stopwatch = Stopwatch()
    seconds = 0.0
    for _ in range(repeated):
        timers = Timers()
        times = deadlines(FAR_AWAY, count, is_shuffled=True)
        made = [timers.call_at(each, nothing) for each in times]
        random.Random(0).shuffle(made)
        with stopwatch:
            for each in made:
                each.is_cancelled = True
            timers.entries.clear()
        seconds += stopwatch.seconds
    return {"cancelled": seconds / (count * repeated)}


MEASUREMENTS: dict[str, Callable[[int], Values]] = {
    "timers-in-order": lambda count: fire(count, is_shuffled=False),
    "timers-shuffled": lambda count: fire(count, is_shuffled=True),
    "timers-cancelled": cancel,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", required=True, choices=["floor"])
    parser.add_argument("--measurement", required=True, choices=MEASUREMENTS)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--core", type=int, help="run on this core")
    options = parser.parse_args()
    process.prepare(options.core)
    print(json.dumps(MEASUREMENTS[options.measurement](options.count)))


if __name__ == "__main__":
    main()
