"""Experiments: measurements that give points of curves, run in turns on all loops.

The command line of `memory.py` and `scale.py`: which experiments on which loops, how often, and
where the samples go.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compare
import curves
import loops
import machine
import peers
from budget import Budget
from comparison import progress, write_whole
from curves import Plot, Series
from disturbance import Watch
from measurement import (
    FLOOR,
    HERE,
    STOLEN_MOST,
    TRIES,
    MeasurementError,
    environment,
    reasons,
    run_to_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from curves import Curve
    from measurement import Bench


@dataclass(frozen=True)
class Point:
    """One value that a measurement gives."""

    curve: Curve
    count: int
    value: float


@dataclass(frozen=True)
class Experiment:
    """A measurement on one loop, in processes of its own."""

    measure: Callable[[Bench, str], Iterator[Point]]
    curves: tuple[Curve, ...]
    is_tls: bool = False
    has_floor: bool = False

    def is_on(self, spec: str) -> bool:
        """Tell whether it is measured on a loop: variants of TLS are in TLS only."""
        if spec == FLOOR:
            return self.has_floor
        return self.is_tls or not loops.variant(spec)

    @property
    def is_timed(self) -> bool:
        return any(curve.unit == "seconds" for curve in self.curves)

    def is_named(self, patterns: str) -> bool:
        """Tell whether one of comma-separated shell patterns names one of its curves."""
        return any(
            fnmatchcase(curve.name, pattern)
            for curve in self.curves
            for pattern in patterns.split(",")
        )


def run_program(bench: Bench, program: str, spec: str, *arguments: str) -> dict[str, float]:
    """Run a program beside this file on a loop, and return the JSON object that it prints."""
    command: list[str | Path] = [bench.python, HERE / program, *arguments]
    command += ["--loop", loops.base_name(spec), "--core", str(bench.server_core)]
    return run_to_json(command, environment(spec))


def measure(
    bench: Bench,
    experiments: list[Experiment],
    specs: list[str],
    budget: Budget,
    keep: Callable[[list[Plot], int], None] = lambda plots, rounds: None,
) -> list[Plot]:
    """Measure all curves, by rounds; the first experiments take part in the last if not all fit.

    What there is, and of how many rounds, is given to `keep` after each experiment.
    """
    plots = {
        curve.name: Plot(curve, {spec: Series() for spec in specs if experiment.is_on(spec)})
        for experiment in experiments
        for curve in experiment.curves
    }
    found = list(plots.values())
    costs: dict[Experiment, float] = {}  # seconds of the last round
    started = time.monotonic()
    try:
        for number in itertools.count():
            is_over = True
            for experiment in experiments:
                elapsed = time.monotonic() - started
                if budget.has_round(number, elapsed, costs.get(experiment, 0.0)):
                    is_over = False
                    measure_round(bench, experiment, specs, number, plots)
                    costs[experiment] = time.monotonic() - started - elapsed
                    keep(found, number + 1)
            if is_over:
                break
            progress(f"round {number + 1}: {time.monotonic() - started:.0f} s so far\n")
    except KeyboardInterrupt:
        progress("interrupted; what there is:\n")
    return found


def measure_round(
    bench: Bench, experiment: Experiment, specs: list[str], number: int, plots: dict[str, Plot]
) -> None:
    """Measure an experiment on all loops, of which each round begins with another."""
    measured = [spec for spec in specs if experiment.is_on(spec)]
    first = number % max(len(measured), 1)
    for spec in measured[first:] + measured[:first]:
        progress(f"round {number + 1} {experiment.curves[0].name} {spec}")
        measure_once(bench, experiment, spec, number, plots)


def measure_once(
    bench: Bench, experiment: Experiment, spec: str, number: int, plots: dict[str, Plot]
) -> None:
    """Add the points of one measurement; what came before a failure is kept."""
    found = [plots[curve.name].series[spec] for curve in experiment.curves]
    if any(series.is_given_up for series in found):
        return
    points, error = least_disturbed(bench, experiment, spec)
    for point in points:
        values = plots[point.curve.name].series[spec].values.setdefault(point.count, {})
        values[number] = point.value
    if error is not None:
        for series in found:
            series.failure = str(error)
            series.is_given_up = error.is_permanent


def least_disturbed(
    bench: Bench, experiment: Experiment, spec: str
) -> tuple[list[Point], MeasurementError | None]:
    """Measure again while too much CPU time is stolen; return the points of the best try."""
    best: list[Point] = []
    least = math.inf
    for _ in range(TRIES if experiment.is_timed else 1):
        points: list[Point] = []
        try:
            with Watch(bench.server_core, bench.client_core) as watch, reasons():
                points.extend(experiment.measure(bench, spec))
        except MeasurementError as error:
            return points, error
        if watch.stolen < least:
            best, least = points, watch.stolen
        if least <= STOLEN_MOST:
            break
    return best, None


def parse_options(doc: str | None, rounds: int, quick_rounds: int) -> argparse.Namespace:
    """Read the command line; the attributes are those that compare.make_bench reads, and more."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", default="*", help="shell patterns of the curves' names")
    parser.add_argument(
        "--loops",
        default=",".join([*loops.NAMES, f"{loops.SUBJECT}+memorybio"]),
        help="as for compare.py",
    )
    parser.add_argument(
        "--rounds", type=int, help=f"default: {rounds}, with --quick {quick_rounds}"
    )
    parser.add_argument(
        "--minutes", type=float, help="as many rounds as fit, but one at least, if no --rounds"
    )
    parser.add_argument("--quick", action="store_true", help="a look, not a result")
    parser.add_argument("--json", type=Path, help="write all samples to this file, as they come")
    parser.add_argument("--server-core", type=int, help="default: the first allowed core")
    parser.add_argument("--client-core", type=int, help="default: the second allowed core")
    parser.add_argument("--programs", type=Path, help="directory of built floor and load")
    parser.add_argument("--venv", type=Path, default=peers.VENV)
    options = parser.parse_args()
    if options.rounds is None and options.minutes is None:
        options.rounds = quick_rounds if options.quick else rounds
    defaults = compare.QUICK if options.quick else compare.THOROUGH
    options.warmup, options.seconds = defaults["warmup"], defaults["seconds"]
    for spec in options.loops.split(","):
        if (mistake := loops.mistake(spec)) is not None:
            parser.error(mistake)
    return options


def budget_of(options: argparse.Namespace) -> Budget:
    if options.rounds is not None:
        return Budget(options.rounds)
    return Budget(seconds=options.minutes * 60, least=1)


def to_text(about: dict[str, Any], plots: list[Plot], rounds: int) -> str:
    """Return the JSON of curves, see curves.py."""
    found = {"about": about, "curves": [plot.to_json(rounds) for plot in plots]}
    return json.dumps(found, indent=1) + "\n"


def run(options: argparse.Namespace, experiments: list[Experiment]) -> None:
    """Measure what the options name, write the samples as they come, and print the tables."""
    chosen = [each for each in experiments if each.is_named(options.curves)]
    bench = compare.make_bench(options)
    about = {
        "command": machine.command_line(sys.argv[0], sys.argv[1:]),
        **machine.describe(bench.python),
        "rounds": 0,
        "seconds": options.seconds,
    }
    specs = [*options.loops.split(","), FLOOR]
    started = time.monotonic()

    def keep(plots: list[Plot], rounds: int) -> None:
        about.update(rounds=rounds, elapsed_seconds=round(time.monotonic() - started))
        if options.json is not None:
            write_whole(options.json, to_text(about, plots, rounds))

    compare.end_as_interrupted()
    print_report(measure(bench, chosen, specs, budget_of(options), keep), specs, about)


def print_report(plots: list[Plot], specs: list[str], about: dict[str, Any]) -> None:
    specs = [spec for spec in specs if any(spec in plot.series for plot in plots)]
    print(
        f"CPython {about['python']}, {about['openssl']}, Linux {about['kernel']}, "
        f"{about['cores']} cores; medians of {about['rounds']} rounds.\n"
    )
    texts = [curves.table(plots, specs), curves.growth_table(plots, specs)]
    texts += ["\n".join(f"- {text}" for text in [*curves.legend(plots), *curves.notes(plots)])]
    print("\n\n".join(text for text in texts if text))
