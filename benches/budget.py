"""Budget: how many rounds are measured, and how long their windows are, in the time there is.

Rounds are what narrows an interval, so time goes into rounds: as many as fit. Windows are
shortened only if not even the least number of rounds would fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# The CPU clock of a running process moves at each tick, of 1 to 10 ms.
WINDOW_LEAST = 0.2


@dataclass(frozen=True)
class Budget:
    """A number of rounds, or as many as fit into a time, but not fewer than so many."""

    rounds: int | None = None
    seconds: float = 0.0
    least: int = 3

    def has_round(self, number: int, elapsed: float, expected: float) -> bool:
        """Tell whether round `number` of 0, 1, ... is measured, which is expected to take that."""
        if self.rounds is not None:
            return number < self.rounds
        return number < self.least or elapsed + expected <= self.seconds

    def share(self, number: int, elapsed: float) -> float:
        """Return how long round `number` may take, that all which have to be measured fit."""
        if self.rounds is not None:
            return math.inf
        return (self.seconds - elapsed) / max(self.least - number, 1)

    def window(
        self, seconds: float, number: int, elapsed: float, expected: float, cells: int
    ) -> float:
        """Return the window of round `number`, of so many cells that have one.

        The round is expected to take so long with the windows of the last one.
        """
        if self.rounds is not None or number >= self.least or not cells:
            return seconds
        excess = expected - self.share(number, elapsed)
        return min(seconds, max(WINDOW_LEAST, seconds - max(excess, 0.0) / cells))
