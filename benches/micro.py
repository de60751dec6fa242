"""Micro benchmarks: what one operation of the loop costs in CPU time.

Runs one benchmark on one loop, once for each line of its input, and prints a JSON object each
time with the number of operations and the CPU seconds of the process (all its threads). The
garbage collector runs as by default: an allocation that it must track is part of an operation's
price. A twentieth of the operations, or one, runs first, unmeasured, so that code is imported,
specialised and warm; then the program says `ready`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

import bulk
import lifecycle
import loops
import process
import system
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Benchmark = Callable[[int], Awaitable[float]]

FAR_AWAY = 3600.0
GATHERED = 1_000
WARMUP = 20  # a turn has that many times the operations that run before it


def nothing(*args: object) -> None:
    pass


async def nothing_async() -> None:
    pass


async def chain(schedule: Callable[[Callable[[], None]], object], count: int) -> float:
    """Time callbacks of which each schedules the next."""
    done = asyncio.get_running_loop().create_future()
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            schedule(step)
        else:
            done.set_result(None)

    with Stopwatch() as stopwatch:
        schedule(step)
        await done
    return stopwatch.seconds


async def call_soon_chain(count: int) -> float:
    return await chain(asyncio.get_running_loop().call_soon, count)


async def call_soon_chain_timer(count: int) -> float:
    """Chain while a timer is armed: it must not cost anything as long as it is not due."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(FAR_AWAY, nothing)
    try:
        return await chain(loop.call_soon, count)
    finally:
        timer.cancel()


async def call_soon_bulk(count: int, *args: object) -> float:
    """Schedule everything, then let it run."""
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon
    done = loop.create_future()
    with Stopwatch() as stopwatch:
        if args:
            first, second, third = args
            for _ in range(count):
                call_soon(nothing, first, second, third)
        else:
            for _ in range(count):
                call_soon(nothing)
        call_soon(done.set_result, None)
        await done
    return stopwatch.seconds


async def call_soon_bulk_3(count: int) -> float:
    return await call_soon_bulk(count, 1, "two", None)


async def call_soon_threadsafe(count: int) -> float:
    """Let another thread schedule while the loop runs; its time counts as well."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def produce() -> None:
        call_soon_threadsafe = loop.call_soon_threadsafe
        for _ in range(count):
            call_soon_threadsafe(nothing)
        call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=produce)
    with Stopwatch() as stopwatch:
        thread.start()
        await done
        thread.join()
    return stopwatch.seconds


async def timers_cancelled(count: int) -> float:
    """Make a timer and cancel it, then let the loop turn once, which may clean up."""
    call_later = asyncio.get_running_loop().call_later
    with Stopwatch() as stopwatch:
        for _ in range(count):
            call_later(30, nothing).cancel()
        await asyncio.sleep(0)
    return stopwatch.seconds


async def fire_timers(count: int, *, is_making_timed: bool) -> float:
    """Make timers with distinct deadlines, wait until all are due, then let them fire."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = count

    def fire() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    first = loop.time() + 0.02
    with Stopwatch() as making:
        for index in range(count):
            loop.call_at(first + index * 1e-7, fire)
    # Blocks the loop on purpose: none may fire before all are due.
    time.sleep(max(0.0, first + count * 1e-7 - loop.time()) + 0.05)  # noqa: ASYNC251
    with Stopwatch() as firing:
        await done
    return firing.seconds + (making.seconds if is_making_timed else 0.0)


async def timers_fired_batch(count: int) -> float:
    return await fire_timers(count, is_making_timed=False)


async def timers_made_fired(count: int) -> float:
    return await fire_timers(count, is_making_timed=True)


async def timers_fired_chain(count: int) -> float:
    call_later = asyncio.get_running_loop().call_later
    return await chain(lambda step: call_later(0, step), count)


async def sleep_0(count: int) -> float:
    sleep = asyncio.sleep
    with Stopwatch() as stopwatch:
        for _ in range(count):
            await sleep(0)
    return stopwatch.seconds


async def tasks_gathered(count: int) -> float:
    with Stopwatch() as stopwatch:
        for _ in range(max(1, count // GATHERED)):
            await asyncio.gather(*[nothing_async() for _ in range(GATHERED)])
    return stopwatch.seconds


async def queue(count: int) -> float:
    """Pass items to another task and back; one operation is one put and its get."""
    there: asyncio.Queue[int] = asyncio.Queue()
    back: asyncio.Queue[int] = asyncio.Queue()
    rounds = count // 2

    async def answer() -> None:
        for _ in range(rounds):
            await back.put(await there.get())

    task = asyncio.create_task(answer())
    with Stopwatch() as stopwatch:
        for number in range(rounds):
            await there.put(number)
            await back.get()
    await task
    return stopwatch.seconds


async def future(count: int) -> float:
    """Await a new future that a callback resolves."""
    loop = asyncio.get_running_loop()
    with Stopwatch() as stopwatch:
        for _ in range(count):
            waited = loop.create_future()
            loop.call_soon(waited.set_result, None)
            await waited
    return stopwatch.seconds


def beside_a_connection(benchmark: Benchmark) -> Benchmark:
    """Run `benchmark` while the loop watches a connection that is silent: each batch polls."""

    async def run(count: int) -> float:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        try:
            return await benchmark(count)
        finally:
            transport.close()
            theirs.close()
            await asyncio.sleep(0)

    return run


# Operations a turn. Each batch size is part of what its benchmark measures.
BENCHMARKS: dict[str, tuple[Benchmark, int]] = {
    "call_soon-chain": (call_soon_chain, 150_000),
    "call_soon-chain-timer": (call_soon_chain_timer, 150_000),
    "call_soon-bulk-0": (call_soon_bulk, 100_000),
    "call_soon-bulk-3": (call_soon_bulk_3, 100_000),
    "call_soon_threadsafe": (call_soon_threadsafe, 70_000),
    "timers-cancelled": (timers_cancelled, 70_000),
    "timers-fired-batch": (timers_fired_batch, 70_000),
    "timers-made-fired": (timers_made_fired, 70_000),
    "timers-fired-chain": (timers_fired_chain, 70_000),
    "sleep-0": (sleep_0, 100_000),
    "tasks-gathered": (tasks_gathered, 40_000),
    "queue": (queue, 40_000),
    "future": (future, 70_000),
    "call_soon-chain-beside-1": (beside_a_connection(call_soon_chain), 150_000),
    "sleep-0-beside-1": (beside_a_connection(sleep_0), 100_000),
    "tasks-gathered-beside-1": (beside_a_connection(tasks_gathered), 40_000),
    "queue-beside-1": (beside_a_connection(queue), 40_000),
    **system.BENCHMARKS,
    **bulk.BENCHMARKS,
}


NAMES = (*BENCHMARKS, *lifecycle.BENCHMARKS)


def prepared(benchmark: str, loop_name: str) -> tuple[Callable[[int], float], int]:
    """Return what times so many operations of a benchmark, and how many a sample has."""
    if benchmark in lifecycle.BENCHMARKS:
        run, count = lifecycle.BENCHMARKS[benchmark]
        return lambda count: run(loop_name, count), count
    measure, count = BENCHMARKS[benchmark]
    loop = loops.new_event_loop(loop_name)
    return lambda count: loop.run_until_complete(measure(count)), count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", required=True, choices=loops.NAMES)
    parser.add_argument("--benchmark", required=True, choices=NAMES)
    parser.add_argument("--core", type=int, help="run on this core")
    options = parser.parse_args()
    process.prepare(options.core)
    run, count = prepared(options.benchmark, options.loop)
    run(max(1, count // WARMUP))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps({"operations": count, "cpu_seconds": run(count)}), flush=True)


if __name__ == "__main__":
    main()
