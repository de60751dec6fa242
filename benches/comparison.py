"""Comparison: the rounds, in which every row is measured on every loop, by turns."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import loops
import ratio
import turns
from line import Cell, Line
from measurement import FLOOR
from rows import TARGETS_PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from budget import Budget
    from measurement import Bench, Outcome
    from rows import Row

# In a run of limited time a peer that reached less than the first of these parts of the best rate
# is measured in no further round. If a round would take too long, it is the second or third.
CONTENDING = (0.75, 0.85, 0.9)


def cells_of(row: Row, specs: list[str]) -> dict[str, Cell]:
    """Return the empty cells of a row."""
    return {spec: Cell() for spec in specs if has_cell(row, spec)}


def has_cell(row: Row, spec: str) -> bool:
    """Tell whether a row is measured on a loop: not what another loop's cell shows already."""
    if spec == FLOOR:
        return row.has_floor
    if loops.is_wrapper(spec):
        return row.has_transports
    return row.is_tls or not loops.variant(spec)


def contenders(line: Line, part: float) -> list[str]:
    """Return the loops that the verdict may depend on: peers with that part of the best rate.

    One that was measured again is measured until it has rounds enough for an interval.
    """
    best = line.cells[line.best_peer].rate if line.best_peer else None
    least = part * (best or 0.0)
    return [
        spec
        for spec, cell in line.cells.items()
        if not cell.is_given_up
        and (
            spec == FLOOR
            or loops.is_subject(spec)
            or cell.rate is None
            or cell.rate >= least
            or 1 < len(cell.samples) < ratio.ROUNDS_LEAST
        )
    ]


@dataclass
class Comparison:
    """Rows, what was measured of them, and how that is told and kept."""

    bench: Bench
    rows: list[Row]
    specs: list[str]
    budget: Budget
    about: dict[str, Any]
    file: Path | None = None  # takes all samples, anew after each row
    lines: list[Line] = field(init=False)
    costs: dict[tuple[str, str], float] = field(default_factory=dict)  # seconds by row and loop
    contending: float = CONTENDING[0]

    def __post_init__(self) -> None:
        has_targets = self.about.get("python", "").startswith(f"{TARGETS_PYTHON}.")
        self.lines = [
            Line(row.name, cells_of(row, self.specs), row.floor_target if has_targets else None)
            for row in self.rows
        ]

    def run(self) -> None:
        """Measure rounds until the budget is spent."""
        started = time.monotonic()
        number = 0
        while True:
            elapsed = time.monotonic() - started
            expected = self.choose(self.budget.share(number, elapsed))
            if not self.budget.has_round(number, elapsed, expected):
                break
            self.shorten_windows(number, elapsed, expected)
            self.about |= {"rounds": number + 1, "seconds": round(self.bench.seconds, 3)}
            self.run_round(number, started)
            number += 1
            took = time.monotonic() - started - elapsed
            progress(f"round {number} took {took:.0f} s\n")

    def choose(self, share: float) -> float:
        """Choose so many contenders that a round takes no longer; return how long it takes."""
        expected = 0.0
        for self.contending in CONTENDING:
            expected = sum(self.costs.get((line.name, spec), 0.0) for line, spec in self.cells())
            if expected <= share:
                break
        return expected

    def cells(self) -> list[tuple[Line, str]]:
        """Return what the next round measures."""
        return [(line, spec) for line in self.lines for spec in self.chosen(line)]

    def chosen(self, line: Line) -> list[str]:
        if self.budget.rounds is None:
            return contenders(line, self.contending)
        return [spec for spec, cell in line.cells.items() if not cell.is_given_up]

    def shorten_windows(self, number: int, elapsed: float, expected: float) -> None:
        windows = {row.name for row in self.rows if not row.is_micro}
        count = sum(line.name in windows for line, _ in self.cells())
        seconds = self.budget.window(self.bench.seconds, number, elapsed, expected, count)
        self.bench = replace(self.bench, seconds=seconds)

    def run_round(self, number: int, started: float) -> None:
        """Measure once. Loops take turns within a row, and each round begins with another."""
        for row, line in zip(self.rows, self.lines, strict=True):
            progress(f"round {number + 1} {row.name}")
            specs = self.chosen(line)
            first = number % max(len(specs), 1)
            for spec, found in self.measure(row, specs[first:] + specs[:first]):
                line.cells[spec].keep(number, found)
            self.about["elapsed_seconds"] = round(time.monotonic() - started)
            self.write()

    def measure(self, row: Row, specs: list[str]) -> Iterator[tuple[str, Outcome]]:
        """Yield what each loop shows, and keep how long that took."""
        is_joint = turns.has_turns(row)
        for group in [specs] if is_joint else [[spec] for spec in specs]:
            started = time.monotonic()
            if is_joint:
                found = turns.measure(self.bench, row, group)
            else:
                found = {spec: self.bench.outcome(row, spec) for spec in group}
            took = time.monotonic() - started
            self.costs |= {(row.name, spec): took / len(group) for spec in group}
            yield from found.items()

    def write(self) -> None:
        """Write what there is: a run that is killed keeps it."""
        if self.file is not None:
            write_whole(self.file, to_text(self.about, self.lines))


def to_text(about: dict[str, Any], lines: list[Line]) -> str:
    """Return the JSON of a comparison, a line of text a row."""
    found = ",\n".join(json.dumps(line.to_json()) for line in lines)
    return f'{{"about": {json.dumps(about, indent=1)},\n"rows": [\n{found}\n]}}\n'


def write_whole(file: Path, text: str) -> None:
    """Write a file so that no one ever finds a part of it."""
    unfinished = file.with_name(f"{file.name}.part")
    unfinished.write_text(text)
    unfinished.replace(file)


def from_text(text: str) -> tuple[dict[str, Any], list[Line]]:
    found = json.loads(text)
    return found["about"], [Line.from_json(each) for each in found["rows"]]


def progress(text: str) -> None:
    """Say where the comparison is: on a terminal row by row, else round by round."""
    is_terminal = sys.stderr.isatty()
    if is_terminal or text.endswith("\n"):
        print("\r\x1b[K" * is_terminal + text, end="", file=sys.stderr, flush=True)
