"""Stopwatch: the CPU time of this process."""

from __future__ import annotations

import time


class Stopwatch:
    """CPU time of this process between entering and leaving a `with` block."""

    def __enter__(self) -> Stopwatch:
        self.start = time.process_time()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.seconds = time.process_time() - self.start
