"""Disturbance: what the cores of a measurement did meanwhile for others.

Stolen time is what the host gave to other machines while this one wanted to run. The time of
other processes is what is left of the cores' busy time without that of our own children: an
estimate, since children of theirs may have run on other cores. A child that does not end meanwhile
has to be named.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stopwatch import cpu_clock

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

STAT = Path("/proc/stat")
IDLE, IOWAIT, STEAL = 3, 4, 7  # columns; guests' time after them is in the users' already
COLUMNS = 8


@dataclass(frozen=True)
class Reading:
    """Ticks of each core by column, and the CPU seconds of us and our children."""

    cores: dict[int, list[int]]
    own_seconds: float

    @classmethod
    def now(cls, cores: Iterable[int], pids: Iterable[int] = ()) -> Reading:
        wanted = set(cores)
        ticks = {core: row for core, row in parse(STAT.read_text()).items() if core in wanted}
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        ended = sum(each.ru_utime + each.ru_stime for each in used)
        return cls(ticks, ended + sum(map(seconds_of, pids)))


def seconds_of(pid: int) -> float:
    """Return the CPU time of a process, or nothing once it has ended."""
    try:
        return time.clock_gettime(cpu_clock(pid))
    except OSError:
        return 0.0


def parse(stat: str) -> dict[int, list[int]]:
    """Return the ticks by core that /proc/stat shows."""
    rows = [line.split() for line in stat.splitlines()]
    return {
        int(name[3:]): [int(tick) for tick in ticks[:COLUMNS]]
        for name, *ticks in rows
        if name.startswith("cpu") and name[3:].isdigit()
    }


def shares(before: Reading, after: Reading, ticks_a_second: int) -> tuple[float, float]:
    """Return the part stolen of the core that lost most, and others' part of all cores."""
    spent = [
        [now - then for now, then in zip(after.cores[core], ticks, strict=True)]
        for core, ticks in before.cores.items()
    ]
    total = sum(map(sum, spent))
    if not total:
        return 0.0, 0.0
    stolen = max(ticks[STEAL] / max(sum(ticks), 1) for ticks in spent)
    unused = sum(ticks[column] for ticks in spent for column in (IDLE, IOWAIT, STEAL))
    others = total - unused - (after.own_seconds - before.own_seconds) * ticks_a_second
    return stolen, max(others / total, 0.0)


class Watch:
    """Reads before and after its block what was taken of some cores."""

    def __init__(self, *cores: int, pids: Iterable[int] = ()) -> None:
        self.cores = cores
        self.pids = tuple(pids)
        self.stolen = self.others = 0.0

    def __enter__(self) -> Watch:
        self._before = Reading.now(self.cores, self.pids)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        after = Reading.now(self.cores, self.pids)
        ticks_a_second = os.sysconf("SC_CLK_TCK")
        found = shares(self._before, after, ticks_a_second)
        self.stolen, self.others = (round(share, 4) for share in found)
