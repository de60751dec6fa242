"""Turns: a row on several loops, whose processes all live while they are measured in turns.

What else happens on the machine and its host changes from second to second, so what is compared
must be measured within one. The processes of a row are all started; each then has a short turn,
again and again, and is stopped (SIGSTOP) while another one has: it takes neither time nor the GIL
of anybody. A server's turn is a window of the load generator, a micro benchmark's is its
operations once. A sample is what its turns have in all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from measurement import MeasurementError, Sample, reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from measurement import Bench, Outcome
    from rows import Row

TURNS = 3
# A shorter window may end before a slow server has answered once.
WINDOW_LEAST = 0.1


def has_turns(row: Row) -> bool:
    """Tell whether a row is measured so.

    Idle connections would be opened anew for each turn, and clients have one window a process.
    """
    if row.server is not None:
        return not row.server.idle
    return row.is_micro


@contextlib.contextmanager
def opened(bench: Bench, row: Row, spec: str) -> Iterator[tuple[int, Callable[[], Sample]]]:
    """Start a row's process on a loop; yield its pid and what measures it once."""
    if row.server is None:
        with bench.benchmarking(row.name, spec) as process:
            yield process.pid, lambda: bench.run_part(process)
        return
    server = row.server
    with bench.serving(server, spec) as (pid, address, directory):
        # The first requests of a process are slow: code is compiled, memory is new.
        bench.load(server, spec, pid, address, directory)
        yield pid, lambda: bench.load(server, spec, pid, address, directory)


@dataclass
class Candidate:
    """A loop whose process waits for its turn, and what it has shown so far."""

    spec: str
    stack: ExitStack = field(default_factory=ExitStack)  # ends the process
    samples: list[Sample] = field(default_factory=list)
    failure: MeasurementError | None = None
    pid: int = 0
    measure: Callable[[], Sample] | None = None

    def start(self, bench: Bench, row: Row) -> None:
        try:
            with reasons():
                found = self.stack.enter_context(opened(bench, row, self.spec))
        except MeasurementError as error:
            self.failure = error
            return
        self.pid, self.measure = found
        os.kill(self.pid, signal.SIGSTOP)

    def take_turn(self, bench: Bench) -> None:
        if self.failure is not None or self.measure is None:
            return
        os.kill(self.pid, signal.SIGCONT)
        try:
            sample = bench.undisturbed(self.measure, [self.pid])
        except MeasurementError as error:
            self.fail(error)
            return
        os.kill(self.pid, signal.SIGSTOP)
        self.samples.append(sample)

    def fail(self, error: MeasurementError) -> None:
        """End the process, which may say more of the reason than who asked it."""
        try:
            with self.stack:
                raise error
        except MeasurementError as found:
            self.failure = found

    @property
    def outcome(self) -> Outcome:
        return joined(self.samples) if self.failure is None else self.failure


def measure(bench: Bench, row: Row, specs: list[str]) -> dict[str, Outcome]:
    """Measure a row on each of the loops; the windows of one share the time of one."""
    window = max(bench.seconds / TURNS, WINDOW_LEAST)
    part = replace(bench, warmup=bench.warmup / TURNS, seconds=window)
    candidates = [Candidate(spec) for spec in specs]
    with ExitStack() as stack:
        for candidate in candidates:
            stack.enter_context(candidate.stack)
            candidate.start(part, row)
        for _ in range(TURNS):
            for candidate in candidates:
                candidate.take_turn(part)
    return {candidate.spec: candidate.outcome for candidate in candidates}


def joined(samples: list[Sample]) -> Sample:
    """Return the sample that those of some turns are together; of latencies the medians."""
    requests = sum(sample.rate * sample.cpu_seconds for sample in samples)
    cpu_seconds = sum(sample.cpu_seconds for sample in samples)
    seconds = sum(sample.rate * sample.cpu_seconds / (sample.wall_rate or 1) for sample in samples)
    latencies = {name: median(samples, name) for name in ("p50_us", "p99_us", "p999_us")}
    return Sample(
        rate=requests / cpu_seconds,
        cpu_seconds=cpu_seconds,
        wall_rate=requests / seconds if samples[0].wall_rate else None,
        idle_connections=max(sample.idle_connections for sample in samples),
        stolen=statistics.fmean(sample.stolen for sample in samples),
        others=statistics.fmean(sample.others for sample in samples),
        **latencies,
    )


def median(samples: list[Sample], name: str) -> float | None:
    values = [getattr(sample, name) for sample in samples]
    return None if None in values else statistics.median(values)
