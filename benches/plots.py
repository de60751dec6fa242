"""Plots: ratios with their intervals, latencies and curves, as SVG by matplotlib.

They have no background, and colours of middle brightness, so that they can be read on a light
page and on a dark one. The same samples give the same file.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

import loops
import rows
from measurement import FLOOR
from report import LATENCIES

if TYPE_CHECKING:
    from pathlib import Path

    from curves import Plot
    from line import Line

INK = "#7f7f7f"  # texts and axes: as far from white as from black
VERDICTS = {"lead": "#2f9e44", "even": "#b58900", "behind": "#e03131", "-": INK}
COLOURS = {
    "asyncio": "#8a8a8a",
    "uvloop": "#3b82f6",
    "zuvloop": "#16a34a",
    "rloop": "#a855f7",
    "rsloop": "#0891b2",
    "aiofastnet-asyncio": "#b58900",
    "aiofastnet-uvloop": "#db2777",
    "blazio": "#65a30d",
    "loopmini": "#8d6e63",
    "zloop": "#6366f1",
    "talyn": "#14b8a6",
    FLOOR: INK,
}
SUBJECT_COLOUR, VARIANT_COLOUR = "#ea580c", "#f59e0b"
STYLE = {
    "svg.hashsalt": "oxloop",  # else the ids in the file differ each time
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
RATIO_TICKS = (0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20, 50, 100)
ROW_INCHES, PANEL_INCHES = 0.21, 2.6
WIDTH_INCHES = 9.0
COLUMNS = 3
PANELS_MOST = 9


def line_style(spec: str) -> dict[str, Any]:
    """Return how a loop is drawn in every plot."""
    if loops.is_subject(spec):
        is_plain = spec == loops.SUBJECT
        colour = SUBJECT_COLOUR if is_plain else VARIANT_COLOUR
        return {"color": colour, "linewidth": 2.4, "zorder": 4, "marker": "o", "markersize": 5}
    dashes = "--" if spec == FLOOR else "-"
    colour = COLOURS.get(loops.base_name(spec), INK)
    return {"color": colour, "linewidth": 1.2, "linestyle": dashes, "marker": ".", "zorder": 3}


def ticks_between(low: float, high: float) -> list[float]:
    """Return the ratios that are named on an axis from `low` to `high`, 1 among them."""
    ticks = [tick for tick in RATIO_TICKS if low <= tick <= high]
    # Near 1 the names of a wide axis would cover each other.
    return [tick for tick in ticks if high / low < 4 or tick not in {0.8, 0.9, 1.1, 1.25}]


def panel_lines(lines: list[Line]) -> list[Line]:
    """Return the rows whose latencies are drawn: the main ones, or else the first."""
    timed = [line for line in lines if line.is_timed]
    return ([line for line in timed if line.name in rows.MAIN] or timed)[:PANELS_MOST]


def save(draw: Any, path: Path, inches: tuple[float, float]) -> None:
    """Have a figure of that size drawn, and write it."""
    matplotlib = importlib.import_module("matplotlib")
    figures = importlib.import_module("matplotlib.figure")
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(figsize=inches, layout="constrained")
        draw(figure)
        unsaid = {"Date": None, "Creator": None} if path.suffix == ".svg" else {}
        figure.savefig(path, transparent=True, metadata=unsaid)


def ratios(lines: list[Line], path: Path) -> None:
    """Draw each row's ratio to its best peer with its interval."""
    found = [(line, line.peer_ratio) for line in lines if line.peer_ratio is not None]
    values = [each for _, made in found for each in (made.interval or (made.value,))]
    low, high = min([0.9, *values]) * 0.97, max([1.25, *values]) * 1.03

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, (line, made) in enumerate(found):
            colour = VERDICTS[line.verdict]
            if made.interval is not None:
                axes.plot(made.interval, [place, place], color=colour, linewidth=2, alpha=0.6)
            axes.plot([made.value], [place], "o", color=colour, markersize=5)
        axes.axvline(1.0, color=INK, linewidth=1.2)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        ticks = ticks_between(low, high)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_yticks(
            range(len(found)), [f"{line.name}  ({line.best_peer})" for line, _ in found]
        )
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("oxloop's rate by that of the best peer, with 95 % interval")

    save(draw, path, (WIDTH_INCHES, ROW_INCHES * len(found) + 0.9))


def panels(figure: Any, count: int) -> list[Any]:
    """Return so many axes in rows of a few; what is left over in the last row is hidden."""
    height, width = math.ceil(count / COLUMNS), min(count, COLUMNS)
    axes = list(figure.subplots(height, width, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_visible(False)
    return axes[:count]


def add_legend(figure: Any, drawn: dict[str, Any]) -> None:
    figure.legend(
        drawn.values(),
        [str(each) for each in drawn],
        loc="outside lower center",
        ncols=5,
    )


def panels_inches(count: int) -> tuple[float, float]:
    return WIDTH_INCHES, PANEL_INCHES * math.ceil(count / COLUMNS) + 0.8


def latencies(lines: list[Line], specs: list[str], path: Path) -> None:
    """Draw p50, p99 and p99.9 of some rows, a line for each loop."""
    chosen = panel_lines(lines)

    def draw(figure: Any) -> None:
        drawn: dict[str, Any] = {}
        for axes, line in zip(panels(figure, len(chosen)), chosen, strict=True):
            for spec in [spec for spec in specs if spec in line.cells]:
                values = [line.cells[spec].median(name) for name in LATENCIES]
                if None not in values:
                    [drawn[spec]] = axes.plot(range(len(values)), values, **line_style(spec))
            axes.set_title(line.name)
            axes.set_yscale("log")
            axes.set_xticks(range(len(LATENCIES)), ["p50", "p99", "p99.9"])
            axes.grid(visible=True, axis="y")
            axes.set_ylabel("µs")
        add_legend(figure, drawn)

    save(draw, path, panels_inches(len(chosen)))


def curves(plots: list[Plot], specs: list[str], path: Path) -> None:
    """Draw what a cost is at several counts, a panel for each curve and a line for each loop."""

    def draw(figure: Any) -> None:
        drawn: dict[str, Any] = {}
        for axes, plot in zip(panels(figure, len(plots)), plots, strict=True):
            factor, unit = scale_of(plot)
            for spec in [spec for spec in specs if spec in plot.series]:
                known = [(count, plot.series[spec].median(count)) for count in plot.counts]
                points = [(count, value * factor) for count, value in known if value is not None]
                if points:
                    [drawn[spec]] = axes.plot(*zip(*points, strict=True), **line_style(spec))
            axes.set_title(plot.curve.name)
            axes.set_xlabel(plot.curve.counted)
            axes.set_ylabel(unit)
            axes.set_ylim(bottom=0)
            if plot.counts[-1] >= 10 * plot.counts[0]:
                axes.set_xscale("log")
            axes.grid(visible=True, axis="y")
        add_legend(figure, drawn)

    save(draw, path, panels_inches(len(plots)))


def scale_of(plot: Plot) -> tuple[float, str]:
    """Return a factor that gives values of handy size, and their unit then."""
    medians = [series.median(count) for series in plot.series.values() for count in plot.counts]
    most = max((value for value in medians if value is not None), default=0.0)
    if plot.curve.unit == "bytes":
        return (1 / (1 << 20), "MiB") if most >= 1 << 20 else (1.0, "bytes")
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if most * factor >= 1:
            return factor, unit
    return 1e9, "ns"
