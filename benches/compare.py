"""Compare event loops: rows x loops x rounds, interleaved, a fresh process each.

Prints medians of operations per CPU-second, and oxloop's ratios to the best peer and to the
floor with their confidence intervals. See README.md beside this file for the method and for
how to read the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import loops
import peers
import report
import rows
from line import Cell, Line
from measurement import FLOOR, Bench, MeasurementError, build_programs

THOROUGH = {"rounds": 5, "seconds": 1.0, "warmup": 0.3}
QUICK = {"rounds": 3, "seconds": 0.3, "warmup": 0.1}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="standard", help="standard, all, micro or shell patterns")
    parser.add_argument(
        "--loops",
        default=",".join([*loops.NAMES, f"{loops.SUBJECT}+memorybio"]),
        help="names; NAME@DIRECTORY imports that loop's package from DIRECTORY; "
        "oxloop+direct and oxloop+memorybio force a data path of TLS, for TLS rows only",
    )
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--seconds", type=float, help="window of a server row, default: 1")
    parser.add_argument("--warmup", type=float, help="before the window, default: 0.3")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="other defaults: 3 rounds, 0.3 s windows, 0.1 s warm-up; a look, not a result",
    )
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument("--server-core", type=int, help="default: the first allowed core")
    parser.add_argument("--client-core", type=int, help="default: the second allowed core")
    parser.add_argument("--programs", type=Path, help="directory of built floor and load")
    parser.add_argument("--venv", type=Path, default=peers.VENV)
    parser.add_argument("--setup", action="store_true", help="make the venv first")
    parser.add_argument("--python", default=peers.default_python(), help="for --setup")
    parser.add_argument("--oxloop", type=Path, help="for --setup: wheel or source tree")
    options = parser.parse_args()
    defaults = QUICK if options.quick else THOROUGH
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


def cells_of(row: rows.Row, specs: list[str]) -> dict[str, Cell]:
    """Return the empty cells of a row; only server rows have a floor, and TLS rows variants."""
    return {
        spec: Cell()
        for spec in specs
        if (row.server is not None if spec == FLOOR else row.is_tls or not loops.variant(spec))
    }


def run_rounds(bench: Bench, table: list[tuple[rows.Row, Line]], rounds: int) -> None:
    """Fill the cells. Loops take turns within a row, and each round begins with another."""
    for number in range(rounds):
        started = time.monotonic()
        for row, line in table:
            progress(f"round {number + 1}/{rounds} {row.name}")
            cells = list(line.cells.items())
            first = number % max(len(cells), 1)
            for spec, cell in cells[first:] + cells[:first]:
                if cell.is_given_up:
                    continue
                try:
                    cell.samples[number] = bench.measure(row, spec)
                except MeasurementError as error:
                    cell.failure = str(error)
                    cell.is_given_up = error.is_permanent
        progress(f"round {number + 1}/{rounds} took {time.monotonic() - started:.0f} s\n")


def progress(text: str) -> None:
    """Say where the comparison is: on a terminal row by row, else round by round."""
    is_terminal = sys.stderr.isatty()
    if is_terminal or text.endswith("\n"):
        print("\r\x1b[K" * is_terminal + text, end="", file=sys.stderr, flush=True)


def describe(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Return what a reader needs to judge the numbers: machine, versions, method."""
    versions = subprocess.run(
        [bench.python, "-m", "pip", "list", "--format", "json"],
        check=True,
        capture_output=True,
    )
    python = subprocess.run(
        [bench.python, "-c", "import ssl, sys; print(sys.version.split()[0], ssl.OPENSSL_VERSION)"],
        check=True,
        capture_output=True,
        text=True,
    )
    version, _, openssl = python.stdout.strip().partition(" ")
    return {
        "python": version,
        "openssl": openssl,
        "packages": {each["name"]: each["version"] for each in json.loads(versions.stdout)},
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "rounds": options.rounds,
        "warmup": options.warmup,
        "seconds": options.seconds,
    }


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


def main() -> None:
    options = parse_options()
    if options.list:
        print("\n".join(row.name for row in options.rows))
        return
    if options.setup:
        peers.setup(options.venv, options.python, options.oxloop)
    bench = make_bench(options)
    about = describe(bench, options)
    specs = [*options.loops.split(","), FLOOR]
    lines = [Line(row.name, cells_of(row, specs), row.floor_target) for row in options.rows]
    started = time.monotonic()
    try:
        run_rounds(bench, list(zip(options.rows, lines, strict=True)), options.rounds)
    except KeyboardInterrupt:
        print("\ncompare: interrupted; what there is:", file=sys.stderr)
    about["elapsed_seconds"] = round(time.monotonic() - started)
    print_report(lines, specs, about)
    if options.json is not None:
        result = {"about": about, "rows": [line.to_json() for line in lines]}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
