"""Compare event loops: rows x loops x rounds, interleaved, a fresh process each.

Prints medians of operations per CPU-second, and oxloop's ratios to the best peer and to the
floor with their confidence intervals. See README.md beside this file for the method and for
how to read the table.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import loops
import machine
import peers
import report
import rows
from budget import Budget
from comparison import Comparison
from measurement import FLOOR, Bench, build_programs

if TYPE_CHECKING:
    from line import Line

THOROUGH = {"seconds": 1.0, "warmup": 0.3}
HURRIED = {"seconds": 0.3, "warmup": 0.15}  # what is left of the time goes into further rounds
QUICK = {"seconds": 0.3, "warmup": 0.1}
ROUNDS, QUICK_ROUNDS = 5, 3


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", default="standard", help="standard, all, main, micro or shell patterns"
    )
    parser.add_argument(
        "--loops",
        default=",".join([*loops.NAMES, f"{loops.SUBJECT}+memorybio"]),
        help="names; NAME@DIRECTORY imports that loop's package from DIRECTORY; "
        "oxloop+direct and oxloop+memorybio force a data path of TLS, for TLS rows only",
    )
    parser.add_argument("--rounds", type=int, help="default: 5; --minutes then says nothing")
    parser.add_argument(
        "--minutes",
        type=float,
        help="as many rounds as fit, but at least 3; slow peers take part in the first only",
    )
    parser.add_argument(
        "--seconds", type=float, help="window of a server row, default: 1, with --minutes 0.3"
    )
    parser.add_argument(
        "--warmup", type=float, help="before the window, default: 0.3, with --minutes 0.15"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="other defaults: 3 rounds, 0.3 s windows, 0.1 s warm-up; a look, not a result",
    )
    parser.add_argument("--json", type=Path, help="write all samples to this file, as they come")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument("--server-core", type=int, help="default: the first allowed core")
    parser.add_argument("--client-core", type=int, help="default: the second allowed core")
    parser.add_argument("--programs", type=Path, help="directory of built floor and load")
    parser.add_argument("--venv", type=Path, default=peers.VENV)
    parser.add_argument("--setup", action="store_true", help="make the venv first")
    parser.add_argument("--python", default=peers.default_python(), help="for --setup")
    parser.add_argument("--oxloop", type=Path, help="for --setup: wheel or source tree")
    options = parser.parse_args()
    defaults = QUICK if options.quick else HURRIED if options.minutes else THOROUGH
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for spec in options.loops.split(","):
        if (mistake := loops.mistake(spec)) is not None:
            parser.error(mistake)
    try:
        options.rows = rows.select(options.rows)
    except ValueError as error:
        parser.error(str(error))
    return options


def make_bench(options: argparse.Namespace) -> Bench:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("compare: one core only: client and server disturb each other", file=sys.stderr)
    python = peers.interpreter(options.venv)
    if not python.exists():
        sys.exit(f"compare: no environment at {options.venv}: add --setup")
    return Bench(
        python=python,
        programs=options.programs or build_programs(peers.ROOT),
        warmup=options.warmup,
        seconds=options.seconds,
        server_core=cores[0] if options.server_core is None else options.server_core,
        client_core=cores[-1 if len(cores) < 2 else 1]
        if options.client_core is None
        else options.client_core,
    )


def budget_of(options: argparse.Namespace) -> Budget:
    if options.minutes is not None and options.rounds is None:
        return Budget(seconds=options.minutes * 60)
    return Budget(options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS))


def print_report(lines: list[Line], specs: list[str], about: dict[str, Any]) -> None:
    print(
        f"CPython {about['python']}, {about['openssl']}, Linux {about['kernel']}, "
        f"{about['cores']} cores, load average {about['load_average']:.1f} before; "
        f"{about['rounds']} rounds, windows of {about['seconds']} s.\n"
        "Medians of operations or requests per CPU-second; ratios are medians of each round's, "
        "with 95 % intervals.\n"
    )
    print(report.rates_table(lines, specs))
    timed = [line for line in lines if line.is_timed]
    if timed:
        print(f"\n{report.latency_table(timed, specs)}")
    for note in report.notes(lines):
        print(f"\n- {note}", end="")
    print("\n\n" + "\n".join(report.summary(lines)))


def end_as_interrupted() -> None:
    """Have a SIGTERM end what runs and print what there is, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def main() -> None:
    options = parse_options()
    if options.list:
        print("\n".join(row.name for row in options.rows))
        return
    if options.setup:
        peers.setup(options.venv, options.python, options.oxloop)
    bench = make_bench(options)
    about = {"command": machine.command_line(sys.argv[0], sys.argv[1:])} | machine.describe(
        bench.python
    )
    comparison = Comparison(
        bench,
        options.rows,
        [*options.loops.split(","), FLOOR],
        budget_of(options),
        about,
        options.json,
    )
    end_as_interrupted()
    try:
        comparison.run()
    except KeyboardInterrupt:
        print("\ncompare: interrupted; what there is:", file=sys.stderr)
    print_report(comparison.lines, comparison.specs, about)


if __name__ == "__main__":
    main()
