"""What the document says of curves, in words and beside the best peer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import costs
import curves
from curves import Curve, Plot, Series

REQUEST = Curve("request", "a request", "seconds", "idle connections", curves.flat(0.03))
CLOSING = Curve("loop-close", "closing a loop", "seconds", "pending handles")


def series(*by_count: list[float]) -> Series:
    return Series({10**power: dict(enumerate(each)) for power, each in enumerate(by_count)})


def growth(*last: float) -> Plot:
    return Plot(REQUEST, {"oxloop": series([1.0] * len(last), [*last])})


def test_growth_is_from_something_and_figures_are_of_one_count_or_from_nothing() -> None:
    assert costs.is_growing(growth(1.0))
    assert not costs.is_growing(Plot(CLOSING, {"oxloop": Series({0: {0: 1.0}, 1000: {0: 2.0}})}))
    assert not costs.is_growing(Plot(CLOSING, {"oxloop": series([1.0])}))
    assert not costs.is_growing(Plot(CLOSING, {"oxloop": Series()}))


@pytest.mark.parametrize(
    ("last", "text"),
    [
        ([1.0, 1.01, 1.02], "request is flat within 3%: 1.01 (1.00-1.02) times as much at"),
        ([1.1, 1.1, 1.1], "request is not flat within 3%: 1.10 (1.10-1.10) times as much at"),
        ([1.0, 1.02, 1.1], "request: it is open whether it is flat within 3%: 1.02 (1.00-1.10)"),
    ],
)
def test_growth_is_judged_in_words(last: list[float], text: str) -> None:
    [found] = costs.kept([growth(*last), Plot(CLOSING, {"oxloop": series([1.0], [9.0])})])
    assert found.startswith(text)
    assert found.endswith("10 idle connections as at 1, where 1.03 is the most.")


def test_growth_without_an_interval_is_told_so() -> None:
    [found] = costs.kept([growth(1.0)])
    assert found.endswith("where 1.03 is the most, in too few rounds for an interval.")


def test_verdicts_are_counted_where_there_is_a_limit() -> None:
    plots = [growth(1.0), growth(1.0), growth(2.0), Plot(CLOSING, {"oxloop": series([1.0])})]
    assert costs.headline(plots) == (
        "Of 3 costs that have a limit to their growth, oxloop's keep to it in 2, do not in 1, and "
        "0 are open."
    )
    assert not costs.headline(plots[3:])


def test_figures_stand_beside_those_of_the_peer_that_costs_least() -> None:
    found = {
        "asyncio": series([4e-3] * 3, [8e-3] * 3),
        "uvloop": series([2e-3] * 3, [9e-3] * 3),
        "oxloop": series([1e-3] * 3, [16e-3] * 3),
        "rloop": Series(failure="lost"),
        "floor": series([5e-4] * 3),
    }
    plot = Plot(CLOSING, found)
    assert [costs.least_peer(plot, count) for count in plot.counts] == ["uvloop", "asyncio"]
    lines = costs.figures_table([plot]).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells == [
        [
            *("closing a loop, 1 pending handles", "1 ms", "uvloop", "2 ms"),
            *("2.00 (2.00-2.00)", "lead", "500 µs"),
        ],
        [
            *("closing a loop, 10 pending handles", "16 ms", "asyncio", "8 ms"),
            *("0.50 (0.50-0.50)", "behind", "-"),
        ],
    ]


def test_a_figure_without_a_peer_or_of_nothing_has_no_ratio() -> None:
    assert costs.lead(Plot(CLOSING, {"oxloop": series([1.0])}), 1) is None
    nothing = {"uvloop": series([0.0]), "oxloop": series([0.0])}
    assert costs.lead(Plot(CLOSING, nothing), 1) is None
