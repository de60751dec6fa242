"""Report: tables, a summary and notes of the lines of a comparison."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import ratio
from line import Cell
from measurement import STOLEN_MOST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from line import Line
    from ratio import Ratio


LATENCIES = ("p50_us", "p99_us", "p999_us")


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
    if rate >= 1e6:
        return f"{rate / 1e6:.2f} M"
    return f"{rate / 1e3:.1f} k" if rate >= 100 else f"{rate:.1f}"


def ratio_text(value: Ratio | None) -> str:
    return "-" if value is None else str(value)


def rates_table(lines: list[Line], specs: list[str]) -> str:
    """Return the main table: operations or requests per CPU-second."""
    heads = ["row", *specs, "best peer", "to peer", "verdict", "to floor", "target"]
    body = []
    for line in lines:
        rates = [rate_text(line.cells[spec].rate) if spec in line.cells else "" for spec in specs]
        peer = [line.best_peer or "-", ratio_text(line.peer_ratio), line.verdict]
        target = "" if line.floor_target is None else f"{line.floor_target} {line.floor_verdict}"
        body.append([line.name, *rates, *peer, ratio_text(line.floor_ratio), target])
    return table(heads, body)


def medians_table(lines: list[Line], specs: list[str], name: str, head: str) -> str:
    """Return the medians of one of a sample's rates on every loop."""
    body = [
        [
            line.name,
            *(
                rate_text(line.cells[spec].median(name)) if spec in line.cells else ""
                for spec in specs
            ),
        ]
        for line in lines
    ]
    return table([head, *specs], body)


def latency_table(lines: list[Line], specs: list[str]) -> str:
    """Return the medians of p50, p99 and p99.9, in microseconds of wall time."""
    body = []
    for line in lines:
        texts = []
        for spec in specs:
            cell = line.cells.get(spec, Cell())
            found = [cell.median(name) for name in LATENCIES]
            texts.append("-" if None in found else " / ".join(f"{each:.0f}" for each in found))
        body.append([line.name, *texts])
    return table(["p50 / p99 / p99.9 in µs", *specs], body)


def summary(lines: list[Line]) -> list[str]:
    """Return the geometric mean of the ratios to the best peers, and who leads where."""
    mean = ratio.geometric_mean(line.peer_ratio.value for line in lines if line.peer_ratio)
    found = []
    if mean is not None:
        found.append(f"Geometric mean of the ratios to the best peers: {mean:.2f}.")
    for verdict in ("lead", "even", "behind"):
        names = [line.name for line in lines if line.verdict == verdict]
        named = f": {', '.join(names)}" if names and verdict != "lead" else ""
        found.append(f"{verdict.capitalize()} in {len(names)} of {len(lines)} rows{named}.")
    missed = [line.name for line in lines if line.floor_verdict == "behind"]
    if missed:
        found.append(f"Target against the floor missed: {', '.join(missed)}.")
    return found


def failures(lines: list[Line]) -> list[str]:
    """Return why cells are empty."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        for spec, cell in line.cells.items():
            if cell.failure is not None:
                reasons.setdefault((spec, cell.failure), []).append(line.name)
    found = []
    for (spec, reason), names in reasons.items():
        where = "all rows" if 1 < len(names) == len(lines) else ", ".join(names)
        found.append(f"{spec}: {reason} - {where}")
    return found


def notes(lines: list[Line]) -> list[str]:
    """Return why cells are empty, and which numbers not to lean on."""
    starved, disturbed = [], []
    variants: dict[str, list[str]] = {}
    for line in lines:
        for spec, cell in line.cells.items():
            idle = max((sample.idle_connections for sample in cell.samples.values()), default=0)
            if idle:
                starved.append(f"{line.name} {spec} {idle}")
            if stolen := sum(sample.is_disturbed for sample in cell.samples.values()):
                disturbed.append(f"{line.name} {spec} {stolen} of {len(cell.samples)}")
        for spec, peer, floor in line.other_ratios():
            ratios = f"{line.name} {ratio_text(peer)} / {ratio_text(floor)}"
            variants.setdefault(spec, []).append(ratios)
    found = [f"{spec}, to peer / to floor: {'; '.join(each)}" for spec, each in variants.items()]
    found += failures(lines)
    if starved:
        found.append(f"connections without an answer in the window: {'; '.join(starved)}")
    if disturbed:
        text = f"samples with more than {STOLEN_MOST:.0%} stolen by the host"
        found.append(f"{text}: {'; '.join(disturbed)}")
    others = [sample.others for line in lines for sample in line.samples()]
    if others:
        half = statistics.median(others)
        found.append(f"other processes took {half:.1%} of the two cores, as a median of samples")
    return found
