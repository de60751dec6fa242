"""Stopwatch: the CPU time of this process, and the clocks of others."""

from __future__ import annotations

import time


class Stopwatch:
    """CPU time of this process between entering and leaving a `with` block."""

    def __enter__(self) -> Stopwatch:
        self.start = time.process_time()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.seconds = time.process_time() - self.start


def cpu_clock(pid: int) -> int:
    """Return the id of a process's CPU clock, as clock_getcpuclockid(3) makes it on Linux."""
    return (~pid << 3) | 2
