"""Footprint: what a loop, its handles and its timers take, and what closing it costs.

Runs one measurement on one loop and prints a JSON object with its value: bytes of resident
anonymous memory for each of `--count` things, or seconds of CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

import loops
import process
from resident import resident_bytes
from stopwatch import Stopwatch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

FAR_AWAY = 3600.0
LOOPS_CLOSED = 50


def nothing() -> None:
    pass


def growth(make: Callable[[], object], count: int) -> float:
    """Return what each of the second `count` things adds to the memory, all of them alive."""
    made = [object() for _ in range(2 * count)]
    for index in range(count):
        made[index] = make()
    before = resident_bytes()
    for index in range(count, 2 * count):
        made[index] = make()
    return (resident_bytes() - before) / count


def handle_bytes(name: str, count: int) -> float:
    loop = loops.new_event_loop(name)
    return growth(lambda: loop.call_soon(nothing), count)


def timer_bytes(name: str, count: int) -> float:
    loop = loops.new_event_loop(name)
    deadline = loop.time() + FAR_AWAY

    def make() -> asyncio.TimerHandle:
        nonlocal deadline
        deadline += 0.001
        return loop.call_at(deadline, nothing)

    return growth(make, count)


def loop_bytes(name: str, count: int) -> float:
    """Make loops that have each run once, which some need to make what they work with."""
    make = loops.factory(name)

    def make_and_run() -> asyncio.AbstractEventLoop:
        loop = make()
        run_once(loop)
        return loop

    return growth(make_and_run, count)


def run_once(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def seconds_to_close(name: str, count: int) -> float:
    """Close a loop that has run, with `count` handles pending."""
    make = loops.factory(name)
    stopwatch = Stopwatch()
    seconds = 0.0
    # The first, which is not measured, imports what is imported late.
    for number in range(LOOPS_CLOSED + 1):
        loop = make()
        run_once(loop)
        for _ in range(count):
            loop.call_soon(nothing)
        with stopwatch:
            loop.close()
        seconds += stopwatch.seconds if number else 0.0
    return seconds / LOOPS_CLOSED


MEASUREMENTS: dict[str, Callable[[str, int], float]] = {
    "handle": handle_bytes,
    "timer": timer_bytes,
    "loop": loop_bytes,
    "close": seconds_to_close,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", required=True)
    parser.add_argument("--measurement", required=True, choices=MEASUREMENTS)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--core", type=int, help="run on this core")
    options = parser.parse_args()
    process.prepare(options.core)
    value = MEASUREMENTS[options.measurement](options.loop, options.count)
    print(json.dumps({"value": value}), flush=True)
    os._exit(0)  # not by freeing, one by one, all that is pending


if __name__ == "__main__":
    main()
