"""Turns: a server row on several loops, whose servers all live while they are measured in turns.

What else happens on the machine and its host changes from second to second, so what is compared
must be measured within one. The servers of a row are all started; each is then asked for a short
window, again and again, and is stopped (SIGSTOP) while another one is: it takes neither time nor
the GIL of anybody. A sample is what its windows have in all.
"""

from __future__ import annotations

import os
import signal
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from measurement import MeasurementError, Sample, reasons

if TYPE_CHECKING:
    from pathlib import Path

    from measurement import Bench, Outcome
    from rows import Row, Server

TURNS = 3
# A shorter window may end before a slow server has answered once.
WINDOW_LEAST = 0.1


def has_turns(row: Row) -> bool:
    """Tell whether a row is measured so: idle connections would be opened anew for each turn."""
    return row.server is not None and not row.server.idle


@dataclass
class Candidate:
    """A server that waits for its turn, and what it has shown so far."""

    bench: Bench
    server: Server
    spec: str
    stack: ExitStack = field(default_factory=ExitStack)  # ends the server
    windows: list[Sample] = field(default_factory=list)
    failure: MeasurementError | None = None
    pid: int = 0
    place: tuple[str, Path] | None = None  # its address and its directory

    def start(self) -> None:
        try:
            with reasons():
                found = self.stack.enter_context(self.bench.serving(self.server, self.spec))
        except MeasurementError as error:
            self.failure = error
            return
        self.pid, address, directory = found
        self.place = (address, directory)
        os.kill(self.pid, signal.SIGSTOP)

    def take_turn(self) -> None:
        if self.failure is not None or self.place is None:
            return
        os.kill(self.pid, signal.SIGCONT)
        try:
            window = self.bench.undisturbed(self.ask)
        except MeasurementError as error:
            self.fail(error)
            return
        os.kill(self.pid, signal.SIGSTOP)
        self.windows.append(window)

    def ask(self) -> Sample:
        assert self.place is not None
        return self.bench.load(self.server, self.spec, self.pid, *self.place)

    def fail(self, error: MeasurementError) -> None:
        """End the server, which may say more of the reason than its client."""
        try:
            with self.stack:
                raise error
        except MeasurementError as found:
            self.failure = found

    @property
    def result(self) -> Outcome:
        return joined(self.windows) if self.failure is None else self.failure


def measure(bench: Bench, row: Row, specs: list[str]) -> dict[str, Outcome]:
    """Measure a server row on each of the loops; their windows share the time of one."""
    assert row.server is not None
    window = max(bench.seconds / TURNS, WINDOW_LEAST)
    part = replace(bench, warmup=bench.warmup / TURNS, seconds=window)
    candidates = [Candidate(part, row.server, spec) for spec in specs]
    with ExitStack() as stack:
        for candidate in candidates:
            stack.enter_context(candidate.stack)
            candidate.start()
        for _ in range(TURNS):
            for candidate in candidates:
                candidate.take_turn()
    return {candidate.spec: candidate.result for candidate in candidates}


def joined(windows: list[Sample]) -> Sample:
    """Return the sample that some windows are together; of their latencies the medians."""
    requests = sum(window.rate * window.cpu_seconds for window in windows)
    cpu_seconds = sum(window.cpu_seconds for window in windows)
    seconds = sum(window.rate * window.cpu_seconds / (window.wall_rate or 1) for window in windows)
    latencies = {name: median(windows, name) for name in ("p50_us", "p99_us", "p999_us")}
    return Sample(
        rate=requests / cpu_seconds,
        cpu_seconds=cpu_seconds,
        wall_rate=requests / seconds if windows[0].wall_rate else None,
        idle_connections=max(window.idle_connections for window in windows),
        stolen=statistics.fmean(window.stolen for window in windows),
        others=statistics.fmean(window.others for window in windows),
        **latencies,
    )


def median(windows: list[Sample], name: str) -> float | None:
    values = [getattr(window, name) for window in windows]
    return None if None in values else statistics.median(values)
