"""How costs grow: with idle connections, pending timers, waiting tasks, lookups and children.

    python benches/scale.py
    python benches/scale.py --quick --curves 'request,timer-*' --loops asyncio,uvloop,oxloop

Costs are CPU time of the whole measured process with its threads. A request must cost the same
beside 10,000 idle connections as beside 10, within 3%. A timer of n may cost as much more
as the logarithm of n grows, or as a timer in a plain heap (`floor`) costs more in the same run: the
machine's caches hold a thousand timers and not a million.

`--json` writes what the docstring of curves.py describes. The curves:

- request: echo of 1 KiB on 20 connections of a server by protocol, beside idle connections. The
  servers of all counts live at once and have their windows in turns, so that a change of the
  machine's speed meets all of them; a value is the median of five windows.
- timer-made, timer-fired: timers made in the order of their deadlines; -shuffled: in random
  order; timer-cancelled: made in one random order and cancelled in another.
- queue-item: an item that one of so many tasks gets from the queue that all of them wait for.
- lookup, lookup-elapsed: a getaddrinfo of "localhost", so many at once; the second is wall time.
- child: a child process started and waited for, so many alive at once.
- connections-*-peak: memory beyond that before, while 2,000 connections are open and have echoed
  64 KiB each, the first, second and third time; -kept: after all have closed; -held: after a
  garbage collection, and after the C library has returned what is free.
- handles-*, timers-*: the same for a million callbacks that wait, and after all have run.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import curves
import tls_files
from curves import Curve, Limit
from experiments import Experiment, Point, parse_options, run, run_program
from idle import IdleConnections, allow_descriptors
from measurement import FLOOR, run_to_json, sample_of
from rows import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measurement import Bench

IDLE_CONNECTIONS = (10, 100, 1_000, 10_000)
TIMERS = (1_000, 10_000, 100_000, 1_000_000)
TASKS = (10, 100, 1_000, 10_000)
LOOKUPS = (10, 100, 1_000)
CHILDREN = (10, 100, 500)
LOAD_CONNECTIONS = 2_000
BURST = 1_000_000
TIMER_FLOOR = "timer_floor.py"
QUICK_PART = 10  # bursts and loads are so much smaller, and the largest count is left out
WINDOWS = 5
TIMER_LIMIT = Limit("within log n or a plain heap's growth", curves.logarithm, or_floor=True)
BUSY = Server("protocol", "tcp", 20, "bytes", 1024)


def request_experiment(counts: tuple[int, ...]) -> Experiment:
    curve = Curve(
        "request",
        "CPU time of an echo server a request",
        "seconds",
        "idle connections",
        curves.flat(0.03),
    )

    def measure(bench: Bench, spec: str) -> Iterator[Point]:
        costs: dict[int, list[float]] = {count: [] for count in counts}
        with contextlib.ExitStack() as stack:
            servers = {count: stack.enter_context(bench.serving(BUSY, spec)) for count in counts}
            for count, (_, address, _) in servers.items():
                stack.enter_context(IdleConnections(address)).grow(count)
            for _ in range(WINDOWS):
                for count, (pid, address, _) in servers.items():
                    costs[count].append(seconds_a_request(bench, pid, address))
        for count, values in costs.items():
            yield Point(curve, count, statistics.median(values))

    return Experiment(measure, (curve,), has_floor=True)


def seconds_a_request(bench: Bench, pid: int, address: str) -> float:
    """Have the load generator measure a server that already runs, for a part of the window."""
    result = run_to_json(
        [
            *(bench.programs / "load", "--core", str(bench.client_core)),
            *("--connections", str(BUSY.connections), "--size", str(BUSY.size)),
            *("--warmup", str(bench.warmup / WINDOWS), "--seconds", str(bench.seconds / WINDOWS)),
            *("--server-pid", str(pid), address),
        ],
        None,
    )
    return 1.0 / sample_of(result).rate


def many_experiment(
    measurement: str, counts: tuple[int, ...], by_value: dict[str, Curve], *, floor: str = ""
) -> Experiment:
    """Have many.py measure something, in a process for each count; `floor` is another program."""

    def measure(bench: Bench, spec: str) -> Iterator[Point]:
        for count in counts:
            arguments = ["--measurement", measurement, "--count", str(count)]
            program = floor if spec == FLOOR else "many.py"
            result = run_program(bench, program, spec, *arguments)
            for name, curve in by_value.items():
                yield Point(curve, count, result[name])

    return Experiment(measure, tuple(by_value.values()), has_floor=bool(floor))


def timer_curve(name: str, what: str) -> Curve:
    what = f"CPU time a timer {what}"
    return Curve(name, what, "seconds", "timers", TIMER_LIMIT)


def timer_experiments(counts: tuple[int, ...]) -> list[Experiment]:
    in_order = {
        "made": timer_curve("timer-made", "made, in order of deadlines"),
        "fired": timer_curve("timer-fired", "fired, made in order of deadlines"),
    }
    shuffled = {
        "made": timer_curve("timer-made-shuffled", "made, in random order"),
        "fired": timer_curve("timer-fired-shuffled", "fired, made in random order"),
    }
    cancelled = {"cancelled": timer_curve("timer-cancelled", "cancelled, in random order")}
    return [
        many_experiment("timers-in-order", counts, in_order, floor=TIMER_FLOOR),
        many_experiment("timers-shuffled", counts, shuffled, floor=TIMER_FLOOR),
        many_experiment("timers-cancelled", counts, cancelled, floor=TIMER_FLOOR),
    ]


def crowd_experiments(
    tasks: tuple[int, ...], lookups: tuple[int, ...], children: tuple[int, ...]
) -> list[Experiment]:
    item = Curve("queue-item", "CPU time an item of a queue", "seconds", "waiting tasks")
    lookup = Curve("lookup", "CPU time a lookup", "seconds", "lookups at once")
    elapsed = Curve("lookup-elapsed", "wall time a lookup", "seconds", "lookups at once")
    child = Curve("child", "CPU time of the parent a child", "seconds", "children at once")
    return [
        many_experiment("queue", tasks, {"item": item}),
        many_experiment("lookups", lookups, {"cpu": lookup, "elapsed": elapsed}),
        many_experiment("children", children, {"child": child}),
    ]


def return_experiment(
    name: str, what: str, measurement: str, count: int, *, is_tls: bool = False
) -> Experiment:
    """Have returned.py measure the memory of loads or bursts; the counts are their numbers."""

    def curve(part: str, what: str) -> Curve:
        is_growth_shown = part == "held"
        unit, counted = "bytes", "turns"
        return Curve(f"{name}-{part}", what, unit, counted, is_growth_shown=is_growth_shown)

    by_part = {
        "peak": curve("peak", f"memory while {count:,} {what}"),
        "kept": curve("kept", "memory after that"),
        "held": curve("held", "memory after that, free memory returned"),
    }

    def measure(bench: Bench, spec: str) -> Iterator[Point]:
        arguments = ["--measurement", measurement, "--count", str(count)]
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            if is_tls:
                tls_files.make_certificate(bench.programs, Path(directory))
                arguments += ["--tls", directory]
            result = run_program(bench, "returned.py", spec, *arguments)
        for value_name, value in result.items():
            part, _, number = value_name.partition("-")
            yield Point(by_part[part], int(number), value)

    return Experiment(measure, tuple(by_part.values()), is_tls=is_tls)


def return_experiments(part: int) -> list[Experiment]:
    count = LOAD_CONNECTIONS // part
    waiting = BURST // part
    open_ones = "connections are open"
    return [
        return_experiment("connections-protocol-tcp", open_ones, "protocol", count),
        return_experiment("connections-streams-tcp", open_ones, "streams-read", count),
        return_experiment("connections-protocol-tls", open_ones, "protocol", count, is_tls=True),
        return_experiment("handles", "handles wait", "handles", waiting),
        return_experiment("timers", "timers wait", "timers", waiting),
    ]


def make_experiments(*, is_quick: bool) -> list[Experiment]:
    counts = [IDLE_CONNECTIONS, TIMERS, TASKS, LOOKUPS, CHILDREN]
    if is_quick:
        counts = [each[:-1] for each in counts]
    connections, timers, tasks, lookups, children = counts
    return [
        request_experiment(connections),
        *timer_experiments(timers),
        *crowd_experiments(tasks, lookups, children),
        *return_experiments(QUICK_PART if is_quick else 1),
    ]


def main() -> None:
    options = parse_options(__doc__, rounds=3, quick_rounds=1)
    allow_descriptors(max(sum(IDLE_CONNECTIONS), LOAD_CONNECTIONS, *CHILDREN))
    run(options, make_experiments(is_quick=options.quick))


if __name__ == "__main__":
    main()
