"""Callgrind: how a program is run under it, and the instructions that it counted.

Callgrind writes what each line of each function cost, below the function's object file. Names are
written once and then by number, `calls=` is followed by the cost of what was called, which its own
lines hold again, and a cost has as many positions before it as `positions:` says.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = re.compile(r"\((\d+)\)(?: (.*))?")
EVENT = "Ir"  # instructions read
COST_STARTS = frozenset("0123456789+-*")


class Profile:
    """The instructions of each object file, summed up line by line."""

    def __init__(self) -> None:
        self.instructions: Counter[str] = Counter()
        self._names: dict[str, str] = {}
        self._object = "???"
        self._cost_column = 1
        self._is_of_a_call = False
        self._total: int | None = None

    def read(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line[:1] in COST_STARTS:
                self._read_cost(line)
            elif ": " in line:
                self._read_header(line)
            else:
                self._read_name(line)
        found = self.instructions.total()
        if found != self._total:
            raise ValueError(f"{found} instructions in the lines, {self._total} in all")

    def _read_cost(self, line: str) -> None:
        if self._is_of_a_call:
            self._is_of_a_call = False
            return
        costs = line.split()
        if len(costs) > self._cost_column:  # zeros at the end are left out
            self.instructions[self._object] += int(costs[self._cost_column])

    def _read_header(self, line: str) -> None:
        key, _, value = line.partition(": ")
        if key == "positions":
            self._cost_column = len(value.split())
        elif key == "events":
            self._cost_column += value.split().index(EVENT)
        elif key == "totals":
            self._total = int(value.split()[0])

    def _read_name(self, line: str) -> None:
        key, _, value = line.partition("=")
        if key == "ob":
            self._object = self._name(value.strip())
        elif key == "cob":
            self._name(value.strip())
        elif key == "calls":
            self._is_of_a_call = True

    def _name(self, text: str) -> str:
        """Return the last part of an object file's path, which its number may stand for."""
        match = NAME.fullmatch(text)
        if match is None:
            return Path(text).name
        number, path = match.groups()
        if path is not None:
            self._names[number] = Path(path).name
        return self._names[number]


def read(path: Path) -> Counter[str]:
    """Return the instructions of each object file that callgrind's output names."""
    profile = Profile()
    with path.open(encoding="utf-8", errors="replace") as lines:
        profile.read(lines)
    return profile.instructions


def command(valgrind: Path, output: Path, dump_before: str) -> list[str | Path]:
    """Return what comes before a program's own command, so that callgrind counts it.

    Each call of the C function `dump_before` ends a part: `output.1`, `output.2` and so on hold
    what was counted since the part before, `output` the rest.
    """
    options = [f"--callgrind-out-file={output}", f"--dump-before={dump_before}"]
    return [valgrind, "--quiet", "--tool=callgrind", *options]
