"""What connections, handles, timers and loops take, and what a loop costs that does nothing.

    python benches/memory.py
    python benches/memory.py --quick --curves 'connection-*' --loops asyncio,uvloop,oxloop

- Memory is the growth of a process's anonymous resident memory from the first so many things to
  twice as many, divided by their number: what is allocated once, or for the first of them, is
  not in it. Connections have each had one message echoed and are then left alone.
- CPU time is that of the whole process with its threads.

`--json` writes what the docstring of curves.py describes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from curves import Curve
from experiments import Experiment, Point, parse_options, run, run_program
from idle import IdleConnections, allow_descriptors
from resident import resident_bytes
from rows import Row, Server
from stopwatch import cpu_clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measurement import Bench

CONNECTIONS = {"tcp": 1_000, "tls": 250}
QUICK_PART = 4
IDLE_CONNECTIONS = (0, 1_000)
IDLE_SECONDS = 2.0
SETTLING = 0.3
HANDLES = 100_000
LOOPS = 100
PENDING = (0, 1_000)
SERVERS = {
    "protocol-tcp-1k": Server("protocol", "tcp", 1, "bytes", 1024),
    "streams-read-tcp-1k": Server("streams-read", "tcp", 1, "bytes", 1024),
    "protocol-tls-1k": Server("protocol", "tls", 1, "bytes", 1024),
    "protocol-tls-100k": Server("protocol", "tls", 1, "bytes", 100 * 1024),
    "streams-read-tls-1k": Server("streams-read", "tls", 1, "bytes", 1024),
    "streams-read-tls-100k": Server("streams-read", "tls", 1, "bytes", 100 * 1024),
}


def connection_experiment(name: str, server: Server, count: int) -> Experiment:
    curve = Curve(
        f"connection-{name}", f"memory of an idle connection of {name}", "bytes", "connections"
    )

    def measure(bench: Bench, spec: str) -> Iterator[Point]:
        is_tls = server.transport == "tls"
        with (
            bench.serving(server, spec) as (pid, address, _),
            IdleConnections(address, is_tls=is_tls, size=server.size) as connections,
        ):
            connections.grow(count)
            time.sleep(SETTLING)
            before = resident_bytes(pid)
            connections.grow(2 * count)
            time.sleep(SETTLING)
            yield Point(curve, count, (resident_bytes(pid) - before) / count)

    return Experiment(measure, (curve,), is_tls=server.transport == "tls", has_floor=True)


def idle_experiment(counts: tuple[int, ...], seconds: float) -> Experiment:
    """Watch the CPU clock of a server that nothing asks anything."""
    curve = Curve(
        "idle-second", "CPU time of an idle server a second", "seconds", "idle connections"
    )

    def measure(bench: Bench, spec: str) -> Iterator[Point]:
        with (
            bench.serving(SERVERS["protocol-tcp-1k"], spec) as (pid, address, _),
            IdleConnections(address) as connections,
        ):
            for count in counts:
                connections.grow(count)
                time.sleep(SETTLING)
                before = time.clock_gettime(cpu_clock(pid))
                time.sleep(seconds)
                used = time.clock_gettime(cpu_clock(pid)) - before
                yield Point(curve, count, used / seconds)

    return Experiment(measure, (curve,), has_floor=True)


def import_experiment() -> Experiment:
    """Import a loop's package in a new interpreter, as the row of comparisons does."""
    curve = Curve("import", "CPU time of importing asyncio and the loop", "seconds", "imports")

    def measure(bench: Bench, spec: str) -> Iterator[Point]:
        sample = bench.measure_once(Row("import", is_standard=True), spec)
        yield Point(curve, 1, 1 / sample.rate)

    return Experiment(measure, (curve,))


def footprint_experiment(curve: Curve, measurement: str, *counts: int) -> Experiment:
    """Have footprint.py measure something, in a process for each count."""

    def measure(bench: Bench, spec: str) -> Iterator[Point]:
        for count in counts:
            arguments = ["--measurement", measurement, "--count", str(count)]
            result = run_program(bench, "footprint.py", spec, *arguments)
            yield Point(curve, count, result["value"])

    return Experiment(measure, (curve,))


def make_experiments(*, is_quick: bool) -> list[Experiment]:
    part = QUICK_PART if is_quick else 1
    handles = HANDLES // part
    return [
        *(
            connection_experiment(name, server, CONNECTIONS[server.transport] // part)
            for name, server in SERVERS.items()
        ),
        footprint_experiment(
            Curve("handle", "memory of a pending handle", "bytes", "handles"), "handle", handles
        ),
        footprint_experiment(
            Curve("timer", "memory of a pending timer", "bytes", "timers"), "timer", handles
        ),
        footprint_experiment(
            Curve("loop", "memory of a loop that has run", "bytes", "loops"), "loop", LOOPS
        ),
        footprint_experiment(
            Curve("loop-close", "CPU time of closing a loop", "seconds", "pending handles"),
            "close",
            *PENDING,
        ),
        import_experiment(),
        idle_experiment(IDLE_CONNECTIONS, IDLE_SECONDS / part),
    ]


def main() -> None:
    options = parse_options(__doc__, rounds=3, quick_rounds=1)
    allow_descriptors(2 * max(*CONNECTIONS.values(), *IDLE_CONNECTIONS))
    run(options, make_experiments(is_quick=options.quick))


if __name__ == "__main__":
    main()
