"""Line: the samples of one row on every loop, and what they say about the project's loop."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import loops
import ratio
from measurement import FLOOR, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measurement import Outcome
    from ratio import Ratio


@dataclass
class Cell:
    """The samples of one row on one loop by round, or why there are none."""

    samples: dict[int, Sample] = field(default_factory=dict)
    failure: str | None = None
    is_given_up: bool = False

    def keep(self, number: int, found: Outcome) -> None:
        """Keep what a round showed: a sample, or why there is none."""
        if isinstance(found, Sample):
            self.samples[number] = found
            return
        self.failure = str(found)
        self.is_given_up = found.is_permanent

    @property
    def rate(self) -> float | None:
        return self.median("rate")

    @property
    def rates(self) -> dict[int, float]:
        return {number: sample.rate for number, sample in self.samples.items()}

    def median(self, name: str) -> float | None:
        values = [getattr(sample, name) for sample in self.samples.values()]
        return statistics.median(values) if values and None not in values else None

    def to_json(self) -> dict[str, Any]:
        samples = [{"round": number} | each.to_json() for number, each in self.samples.items()]
        return {"failure": self.failure, "samples": samples}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Cell:
        samples = {each["round"]: Sample.from_json(each) for each in found["samples"]}
        return cls(samples, found["failure"])


@dataclass
class Line:
    """One row of the table with its cells by loop."""

    name: str
    cells: dict[str, Cell]
    floor_target: float | None = None  # the ratio to the floor that is meant to be reached

    @property
    def subject(self) -> str | None:
        """The project's loop: the first of its builds that is compared."""
        return next((spec for spec in self.cells if loops.is_subject(spec)), None)

    @property
    def best_peer(self) -> str | None:
        """The peer with the best median rate.

        One that was measured in too few rounds for an interval is it only if it was better than
        the best of the others in those rounds: other rounds may have been slow ones for all.
        """
        rates = {
            spec: cell.rate
            for spec, cell in self.cells.items()
            if cell.rate is not None and spec != FLOOR and not loops.is_subject(spec)
        }
        steady = [spec for spec in rates if len(self.cells[spec].samples) >= ratio.ROUNDS_LEAST]
        best = max(steady, key=lambda spec: rates[spec], default=None)
        found = [spec for spec in rates if spec == best or self.is_better(spec, best)]
        return max(found, key=lambda spec: rates[spec], default=None)

    def is_better(self, spec: str, other: str | None) -> bool:
        """Tell whether a loop was the better one in the rounds of both; any is, of one alone."""
        found = self.ratio(spec, other)
        return found is None or found.value > 1

    @property
    def peer_ratio(self) -> Ratio | None:
        return self.ratio(self.subject, self.best_peer)

    @property
    def floor_ratio(self) -> Ratio | None:
        return self.ratio(self.subject, FLOOR)

    def samples(self) -> Iterator[Sample]:
        for cell in self.cells.values():
            yield from cell.samples.values()

    def ratio(self, ours: str | None, theirs: str | None) -> Ratio | None:
        """Return the ratio of two loops' rates, if both have some of the same round."""
        if ours not in self.cells or theirs not in self.cells:
            return None
        return ratio.of_rounds(self.cells[ours].rates, self.cells[theirs].rates)

    def other_ratios(self) -> Iterator[tuple[str, Ratio | None, Ratio | None]]:
        """Yield the project's further builds and variants with their ratios to peer and floor."""
        for spec in [spec for spec in self.cells if loops.is_subject(spec)][1:]:
            if self.cells[spec].samples:
                yield spec, self.ratio(spec, self.best_peer), self.ratio(spec, FLOOR)

    @property
    def verdict(self) -> str:
        """Whether the project's loop leads the best peer, is even with it, or behind."""
        return self.peer_ratio.verdict() if self.peer_ratio else "-"

    @property
    def floor_verdict(self) -> str:
        """The same of the target against the floor, if the row has one."""
        if self.floor_target is None or self.floor_ratio is None:
            return "-"
        return self.floor_ratio.verdict(self.floor_target)

    @property
    def is_timed(self) -> bool:
        """Tell rows of requests, whose latencies are known, from others."""
        return any(cell.median("p50_us") is not None for cell in self.cells.values())

    def to_json(self) -> dict[str, Any]:
        """Return what was measured; what follows from it is computed anew by the reader."""
        cells = {spec: cell.to_json() for spec, cell in self.cells.items()}
        return {"row": self.name, "floor_target": self.floor_target, "loops": cells}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Line:
        cells = {spec: Cell.from_json(cell) for spec, cell in found["loops"].items()}
        return cls(found["row"], cells, found["floor_target"])
