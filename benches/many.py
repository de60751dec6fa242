"""Many of something on one loop: timers, tasks, lookups, or children.

Runs one measurement on one loop and prints a JSON object with its values: seconds of CPU time of
this process for one thing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import time
from typing import TYPE_CHECKING

import loops
import process
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Values = dict[str, float]

# So many things are measured at least, in several turns if they are few at once.
TIMERS_LEAST = 30_000
ITEMS_LEAST = 50_000
LOOKUPS_LEAST = 1_000
CHILDREN_LEAST = 200
# Deadlines lie this far apart, and the first is as far away as making all timers may take.
DEADLINE_STEP = 1e-7
SECONDS_TO_MAKE = 4e-6
SECONDS_TO_BEGIN = 0.01
FAR_AWAY = 3600.0
HOST = "localhost"


def nothing() -> None:
    pass


def turns(least: int, count: int) -> int:
    return max(1, least // count)


def deadlines(first: float, count: int, *, is_shuffled: bool) -> list[float]:
    times = [first + index * DEADLINE_STEP for index in range(count)]
    if is_shuffled:
        random.Random(count).shuffle(times)
    return times


async def fire(count: int, *, is_shuffled: bool) -> tuple[float, float]:
    """Make timers, wait until all are due, let them fire; return the seconds of both parts."""
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    done = loop.create_future()
    left = count

    def fired() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    first = loop.time() + count * SECONDS_TO_MAKE + SECONDS_TO_BEGIN
    times = deadlines(first, count, is_shuffled=is_shuffled)
    with Stopwatch() as making:
        for each in times:
            call_at(each, fired)
    # Blocks the loop on purpose: none may fire before all are due.
    time.sleep(max(0.0, first + count * DEADLINE_STEP - loop.time()) + 0.002)  # noqa: ASYNC251
    with Stopwatch() as firing:
        await done
    return making.seconds, firing.seconds


async def timers(count: int, *, is_shuffled: bool) -> Values:
    repeated = turns(TIMERS_LEAST, count)
    parts = [await fire(count, is_shuffled=is_shuffled) for _ in range(repeated)]
    made, fired = (sum(part) / (count * repeated) for part in zip(*parts, strict=True))
    return {"made": made, "fired": fired}


async def timers_in_order(count: int) -> Values:
    return await timers(count, is_shuffled=False)


async def timers_shuffled(count: int) -> Values:
    return await timers(count, is_shuffled=True)


async def timers_cancelled(count: int) -> Values:
    """Cancel all timers in another random order than they were made in, and turn once."""
    loop = asyncio.get_running_loop()
    repeated = turns(TIMERS_LEAST, count)
    seconds = 0.0
    for _ in range(repeated):
        times = deadlines(loop.time() + FAR_AWAY, count, is_shuffled=True)
        made = [loop.call_at(each, nothing) for each in times]
        random.Random(0).shuffle(made)
        with Stopwatch() as stopwatch:
            for each in made:
                each.cancel()
            await asyncio.sleep(0)
        seconds += stopwatch.seconds
    return {"cancelled": seconds / (count * repeated)}


async def queue(count: int) -> Values:
    """Pass items to so many tasks that all wait for the same queue, one item each at a time."""
    items: asyncio.Queue[int] = asyncio.Queue()
    received = 0

    async def receive() -> None:
        nonlocal received
        while True:
            received += await items.get()
            items.task_done()

    tasks = [asyncio.create_task(receive()) for _ in range(count)]
    repeated = turns(ITEMS_LEAST, count)

    async def pass_on(batches: int) -> None:
        for _ in range(batches):
            for _ in range(count):
                items.put_nowait(1)
            await items.join()

    await pass_on(1)
    with Stopwatch() as stopwatch:
        await pass_on(repeated)
    assert received == count * (repeated + 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"item": stopwatch.seconds / (count * repeated)}


async def lookups(count: int) -> Values:
    """Look up the name of this machine so many times at once."""
    loop = asyncio.get_running_loop()

    async def look_up() -> None:
        found = await loop.getaddrinfo(HOST, 80, type=socket.SOCK_STREAM)
        assert any(address[0] in {"127.0.0.1", "::1"} for *_, address in found)

    await look_up()
    repeated = turns(LOOKUPS_LEAST, count)
    started = time.monotonic()
    with Stopwatch() as stopwatch:
        for _ in range(repeated):
            await asyncio.gather(*[look_up() for _ in range(count)])
    elapsed = time.monotonic() - started
    total = count * repeated
    return {"cpu": stopwatch.seconds / total, "elapsed": elapsed / total}


async def spawn_and_wait(count: int) -> None:
    """Start children that all live until the last has been started, then wait for all."""
    reading, writing = os.pipe()
    try:
        children = await asyncio.gather(
            *[asyncio.create_subprocess_exec("cat", stdin=reading) for _ in range(count)]
        )
        assert all(child.returncode is None for child in children)
    finally:
        os.close(writing)
        os.close(reading)
    statuses = await asyncio.gather(*[child.wait() for child in children])
    assert statuses == [0] * count


async def children(count: int) -> Values:
    await spawn_and_wait(1)
    repeated = turns(CHILDREN_LEAST, count)
    with Stopwatch() as stopwatch:
        for _ in range(repeated):
            await spawn_and_wait(count)
    return {"child": stopwatch.seconds / (count * repeated)}


MEASUREMENTS: dict[str, Callable[[int], Awaitable[Values]]] = {
    "timers-in-order": timers_in_order,
    "timers-shuffled": timers_shuffled,
    "timers-cancelled": timers_cancelled,
    "queue": queue,
    "lookups": lookups,
    "children": children,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", required=True, choices=loops.NAMES)
    parser.add_argument("--measurement", required=True, choices=MEASUREMENTS)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--core", type=int, help="run on this core")
    options = parser.parse_args()
    process.prepare(options.core)
    loop = loops.new_event_loop(options.loop)
    values = loop.run_until_complete(MEASUREMENTS[options.measurement](options.count))
    print(json.dumps(values))


if __name__ == "__main__":
    main()
