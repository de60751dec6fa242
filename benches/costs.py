"""Costs: what the document says of curves: single figures, growth and its limits, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import curves
import loops
import ratio
import report
from measurement import FLOOR

if TYPE_CHECKING:
    from curves import Plot
    from ratio import Ratio

KEEPING = {
    "pass": "{name} is {limit}",
    "short": "{name} is not {limit}",
    "open": "{name}: it is open whether it is {limit}",
}


def is_growing(plot: Plot) -> bool:
    """Tell a curve from figures: what none of a thing costs is not what others are parts of."""
    return len(plot.counts) > 1 and plot.counts[0] > 0


def least_peer(plot: Plot, count: int) -> str | None:
    """Return the other loop with the least median at a count."""
    medians = {
        spec: median
        for spec, series in plot.series.items()
        if spec != FLOOR
        and not loops.is_subject(spec)
        and (median := series.median(count)) is not None
    }
    return min(medians, key=lambda spec: medians[spec], default=None)


def lead(plot: Plot, count: int) -> Ratio | None:
    """Return how many times the cost of the project's loop is that of the least peer."""
    peer = least_peer(plot, count)
    if plot.subject is None or peer is None:
        return None
    theirs, ours = (plot.series[each].values.get(count, {}) for each in (peer, plot.subject))
    return ratio.of_rounds(theirs, {number: value for number, value in ours.items() if value})


def figures_table(plots: list[Plot]) -> str:
    """Return what each thing costs, on the project's loop and on the best of the others."""
    body = []
    for plot in plots:
        for count in plot.counts:
            medians = [
                plot.series[spec].median(count) if spec in plot.series else None
                for spec in (plot.subject, least_peer(plot, count), FLOOR)
            ]
            texts = [curves.value_text(median, plot.curve.unit) for median in medians]
            found = lead(plot, count)
            what = plot.curve.what
            if plot.curve.unit == "bytes":
                what += " in bytes"
            if len(plot.counts) > 1:
                what += f", {count:,} {plot.curve.counted}"
            verdict = "-" if found is None else found.verdict()
            peer = [least_peer(plot, count) or "-", texts[1]]
            body.append([what, texts[0], *peer, report.ratio_text(found), verdict, texts[2]])
    heads = ["least is best", "oxloop", "best peer", "its cost", "ratio", "verdict", "floor"]
    return report.table(heads, body)


def kept(plots: list[Plot]) -> list[str]:
    """Say of each cost whose growth has a limit whether it keeps to it."""
    found = []
    for plot in plots:
        growth = None if plot.subject is None else plot.growth(plot.subject)
        if plot.curve.limit is None or growth is None or plot.growth_most is None:
            continue
        text = KEEPING[plot.verdict].format(name=plot.curve.name, limit=plot.curve.limit.words)
        first, last = plot.counts[0], plot.counts[-1]
        rounds = "" if growth.interval else ", in too few rounds for an interval"
        found.append(
            f"{text}: {growth} times as much at {last:,} {plot.curve.counted} as at {first:,}, "
            f"where {plot.growth_most:.2f} is the most{rounds}."
        )
    return found


def headline(plots: list[Plot]) -> str:
    """Say in a sentence how many costs keep to their limits, if any has one."""
    verdicts = [plot.verdict for plot in plots if plot.verdict != "-"]
    if not verdicts:
        return ""
    kept, broken, unknown = (verdicts.count(each) for each in KEEPING)
    return (
        f"Of {len(verdicts)} costs that have a limit to their growth, oxloop's keep to it in "
        f"{kept}, do not in {broken}, and {unknown} are open."
    )
