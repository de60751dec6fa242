"""Report: medians, ratios and verdicts of the samples of a comparison."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import loops
from measurement import FLOOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from measurement import Sample
    from rows import Row

NOISY = 0.15


def ratio(rate: float | None, other: float | None) -> float | None:
    return None if rate is None or other is None else rate / other


@dataclass
class Cell:
    """The samples of one row on one loop, or why there are none."""

    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None
    is_given_up: bool = False

    @property
    def rate(self) -> float | None:
        return self.median("rate")

    @property
    def spread(self) -> float:
        """The distance between the extreme rates, as a part of the median."""
        rates = [sample.rate for sample in self.samples]
        return (max(rates) - min(rates)) / statistics.median(rates) if rates else 0.0

    def median(self, name: str) -> float | None:
        values = [getattr(sample, name) for sample in self.samples]
        return statistics.median(values) if values and None not in values else None


@dataclass
class Line:
    """One row of the table with its cells by loop."""

    row: Row
    cells: dict[str, Cell]

    @property
    def subject(self) -> float | None:
        """The measured project's rate: of the first of its builds that is compared."""
        return next(
            (cell.rate for spec, cell in self.cells.items() if loops.is_subject(spec)), None
        )

    @property
    def best_peer(self) -> tuple[str, float] | None:
        peers = [
            (spec, cell.rate)
            for spec, cell in self.cells.items()
            if cell.rate is not None and spec != FLOOR and not loops.is_subject(spec)
        ]
        return max(peers, key=lambda peer: peer[1], default=None)

    @property
    def peer_ratio(self) -> float | None:
        return ratio(self.subject, self.best_peer[1] if self.best_peer else None)

    @property
    def floor_ratio(self) -> float | None:
        return ratio(self.subject, self.floor)

    @property
    def floor(self) -> float | None:
        return self.cells[FLOOR].rate if FLOOR in self.cells else None

    def other_ratios(self) -> Iterator[tuple[str, float | None, float | None]]:
        """Yield the project's further builds and variants with their ratios to peer and floor."""
        peer = self.best_peer[1] if self.best_peer else None
        for spec in [spec for spec in self.cells if loops.is_subject(spec)][1:]:
            rate = self.cells[spec].rate
            if rate is not None:
                yield spec, ratio(rate, peer), ratio(rate, self.floor)

    def is_deciding(self, spec: str) -> bool:
        """Tell the cells that the ratios are made of from the others."""
        best = self.best_peer
        return spec == FLOOR or loops.is_subject(spec) or (best is not None and spec == best[0])

    @property
    def verdict(self) -> str:
        """`pass` or `short` for a row with a target and a result."""
        wanted = [(self.row.target, self.peer_ratio), (self.row.floor_target, self.floor_ratio)]
        reached = [
            found >= target for target, found in wanted if target is not None and found is not None
        ]
        if not reached:
            return "-"
        return "pass" if all(reached) else "short"

    def to_json(self) -> dict[str, Any]:
        best = self.best_peer
        return {
            "row": self.row.name,
            "target": self.row.target,
            "floor_target": self.row.floor_target,
            "best_peer": best[0] if best else None,
            "peer_ratio": self.peer_ratio,
            "floor_ratio": self.floor_ratio,
            "verdict": self.verdict,
            "loops": {
                spec: {
                    "rate": cell.rate,
                    "p50_us": cell.median("p50_us"),
                    "p99_us": cell.median("p99_us"),
                    "failure": cell.failure,
                    "samples": [sample.to_json() for sample in cell.samples],
                }
                for spec, cell in self.cells.items()
            },
        }


def aligned(lines: list[list[str]]) -> list[list[str]]:
    """Pad the cells of each column to one width, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]


def table(heads: list[str], body: Iterable[list[str]]) -> str:
    """Return an aligned Markdown table."""
    lines = aligned([heads, *body])
    rendered = ["| " + " | ".join(line) + " |" for line in lines]
    rule = "|".join(
        "-" * (len(cell) + 1) + ("-" if not column else ":") for column, cell in enumerate(lines[0])
    )
    return "\n".join([rendered[0], f"|{rule}|", *rendered[1:]])


def rate_text(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate / 1e6:.2f} M" if rate >= 1e6 else f"{rate / 1e3:.1f} k"


def ratio_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def rates_table(lines: list[Line], specs: list[str]) -> str:
    """Return the main table: operations or requests per CPU-second."""
    heads = ["row", *specs, "best peer", "to peer", "to floor", "target", "verdict"]
    body = []
    for line in lines:
        rates = [rate_text(line.cells[spec].rate) if spec in line.cells else "" for spec in specs]
        best = line.best_peer
        target = ratio_text(line.row.target)
        if line.row.floor_target is not None:
            target += f", floor {line.row.floor_target:.2f}"
        ratios = [ratio_text(line.peer_ratio), ratio_text(line.floor_ratio)]
        body.append(
            [line.row.name, *rates, best[0] if best else "-", *ratios, target, line.verdict]
        )
    return table(heads, body)


def latency_table(lines: list[Line], specs: list[str]) -> str:
    """Return the medians of p50 and p99, in microseconds of wall time."""
    body = []
    for line in lines:
        texts = []
        for spec in specs:
            cell = line.cells.get(spec, Cell())
            p50, p99 = cell.median("p50_us"), cell.median("p99_us")
            texts.append("-" if p50 is None or p99 is None else f"{p50:.0f} / {p99:.0f}")
        body.append([line.row.name, *texts])
    return table(["p50 / p99 in µs", *specs], body)


def notes(lines: list[Line]) -> list[str]:
    """Return why cells are empty, and which numbers not to lean on."""
    reasons: dict[tuple[str, str], list[str]] = {}
    noisy, starved = [], []
    others: dict[str, list[str]] = {}
    for line in lines:
        for spec, cell in line.cells.items():
            name = line.row.name
            if cell.failure is not None:
                reasons.setdefault((spec, cell.failure), []).append(name)
            if line.is_deciding(spec) and cell.spread > NOISY:
                noisy.append(f"{name} {spec} {cell.spread:.0%}")
            idle = max((sample.idle_connections for sample in cell.samples), default=0)
            if idle:
                starved.append(f"{name} {spec} {idle}")
        for spec, peer, floor in line.other_ratios():
            ratios = f"{line.row.name} {ratio_text(peer)} / {ratio_text(floor)}"
            others.setdefault(spec, []).append(ratios)
    found = [f"{spec}, to peer / to floor: {'; '.join(each)}" for spec, each in others.items()]
    found += [f"{spec}: {reason} - {', '.join(names)}" for (spec, reason), names in reasons.items()]
    if noisy:
        found.append(f"spread above {NOISY:.0%} of the median: {'; '.join(noisy)}")
    if starved:
        found.append(f"connections without an answer in the window: {'; '.join(starved)}")
    return found
