"""Micro benchmarks of what a program pays once: importing a loop's package, a loop's life.

Each takes the loop's name and returns CPU seconds; no loop runs meanwhile but the one measured.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import loops
from stopwatch import Stopwatch
from system import OPEN_MOST, open_descriptors

if TYPE_CHECKING:
    from collections.abc import Callable

# What the interpreter itself needs to start is not part of it; asyncio is, for every package
# imports it.
IMPORTING = """
import sys, time
start = time.process_time()
import asyncio
for name in sys.argv[1:]:
    __import__(name)
print(time.process_time() - start)
"""


def require_closed() -> None:
    """Refuse the figure of a loop that leaves its descriptors to a later garbage collection."""
    if open_descriptors() > OPEN_MOST:
        raise NotImplementedError("close() leaves descriptors open")


async def nothing() -> None:
    pass


def make_and_close(name: str, count: int) -> float:
    """Make a loop, run a coroutine that does nothing, and close the loop."""
    make = loops.factory(name)
    with Stopwatch() as stopwatch:
        for _ in range(count):
            loop = make()
            loop.run_until_complete(nothing())
            loop.close()
    require_closed()
    return stopwatch.seconds


def close(name: str, count: int) -> float:
    """Close a loop that has run; only that is timed, and what is left to do as it is freed."""
    make = loops.factory(name)
    seconds = 0.0
    for _ in range(count):
        loop = make()
        loop.run_until_complete(nothing())
        with Stopwatch() as stopwatch:
            loop.close()
            del loop
        seconds += stopwatch.seconds
    require_closed()
    return seconds


def import_packages(name: str, count: int) -> float:
    """Import asyncio and then what the loop is made of, each time in a new interpreter."""
    loops.factory(name)  # which says what is wrong if one of them cannot be imported
    packages = [part for part in name.split("-") if part != "asyncio"]
    command = [sys.executable, "-c", IMPORTING, *packages]
    seconds = 0.0
    for _ in range(count):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds += float(done.stdout)
    return seconds


# Operations a turn.
BENCHMARKS: dict[str, tuple[Callable[[str, int], float], int]] = {
    "loop-make-close": (make_and_close, 700),
    "loop-close": (close, 700),
    "import": (import_packages, 4),
}
