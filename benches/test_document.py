"""What the document says of samples, and that the same samples give the same files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import comparison
import curves
import document
import experiments
import plots
from curves import Curve, Plot, Series
from document import Source
from line import Cell, Line
from measurement import Sample

ABOUT = {
    "python": "3.14.1",
    "kernel": "6.1",
    "cpu": "Fast",
    "date": "2026-01-01 00:00 UTC",
    "command": "compare.py --rows '*'",
    "packages": {"uvloop": "1.0", "oxloop": "2.0", "pip": "3.0"},
}


def cell(rates: list[float], p50: float | None = None) -> Cell:
    latencies = (None, None, None) if p50 is None else (p50, 2 * p50, 3 * p50)
    samples = (Sample(rate, 1.0, rate / 2, *latencies) for rate in rates)
    return Cell(dict(enumerate(samples)))


def compared() -> list[Line]:
    absent = Cell(failure="ImportError: none", is_given_up=True)
    return [
        Line("sleep-0", {"uvloop": cell([10, 10, 10]), "talyn": absent, "oxloop": cell([8, 9, 9])}),
        Line(
            "echo-protocol-tls-1k-x20",
            {
                "uvloop": cell([10e6] * 3, 20.0),
                "oxloop": cell([20e6] * 3, 10.0),
                "floor": cell([21e6] * 3, 9.0),
                "oxloop+memorybio": cell([15e6] * 3, 15.0),
            },
            0.97,
        ),
    ]


def grown() -> Plot:
    limit = curves.flat(0.03)
    curve = Curve("request", "CPU time a request", "seconds", "idle connections", limit)
    values = {10: {0: 1e-5, 1: 1.1e-5, 2: 1e-5}, 1000: {0: 1e-5, 1: 1.1e-5, 2: 1e-5}}
    return Plot(curve, {"oxloop": Series(values), "rloop": Series({}, "lost")})


def returned() -> Plot:
    curve = Curve("timers-kept", "memory after timers", "bytes", "turns")
    return Plot(curve, {"oxloop": Series({1: {0: 5e6}, 2: {0: 5e6}})})


def figure() -> Plot:
    curve = Curve("handle", "memory of a handle", "bytes", "handles")
    values = {"oxloop": [100.0] * 3, "uvloop": [150.0] * 3, "asyncio": [170.0] * 3}
    return Plot(curve, {name: Series({9: dict(enumerate(each))}) for name, each in values.items()})


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    loops, growth = tmp_path / "loops.json", tmp_path / "growth.json"
    loops.write_text(comparison.to_text(ABOUT, compared()))
    growth.write_text(experiments.to_text(ABOUT, [grown(), returned()], 3))
    memory = tmp_path / "memory.json"
    memory.write_text(experiments.to_text(ABOUT, [figure()], 3))
    return [loops, growth, memory]


def test_files_of_both_kinds_are_read_as_they_were_written(files: list[Path]) -> None:
    loops, growth, memory = map(Source.read, files)
    assert [line.to_json() for line in loops.lines] == [line.to_json() for line in compared()]
    assert loops.specs == ["uvloop", "talyn", "oxloop", "oxloop+memorybio", "floor"]
    assert [plot.to_json(3) for plot in growth.plots] == [grown().to_json(3), returned().to_json(3)]
    assert growth.drawn == {"times": growth.plots[:1], "memory": growth.plots[1:]}
    assert growth.figures == []
    assert growth.specs == ["oxloop", "rloop"]
    assert memory.drawn == {}
    assert memory.figures == memory.plots


def test_the_page_has_numbers_reasons_pictures_and_the_machine(files: list[Path]) -> None:
    text = document.markdown([Source.read(path) for path in files])
    for part in (
        "leads the best other loop of a row in 1 of 2 rows, is even with it in 0 and\nbehind in 1.",
        "The geometric mean of the ratios is 1.34.",
        "0.90 (0.80-0.90) |  behind",
        "2.00 (2.00-2.00) |    lead | 0.95 (0.95-0.95) | 0.97 behind |",
        "10 / 20 / 30",
        "(benchmarks/loops-ratios.svg)",
        "(benchmarks/loops-latencies.svg)",
        "(benchmarks/growth-times.svg)",
        "(benchmarks/growth-memory.svg)",
        "- request is flat within 3%: 1.00 (1.00-1.00) times as much at 1,000 idle connections",
        "Of 1 costs that have a limit to their growth, oxloop's keep to it in 1, do not in 0",
        "of a handle in bytes |    100 |    uvloop |      150 | 1.50 (1.50-1.50) |    lead |",
        "- talyn: ImportError: none - sleep-0",
        "- rloop: lost - request",
        "|    1.03 |    pass |",
        "[growth.json](benchmarks/growth.json)",
        "compare.py --rows '*'",
    ):
        assert part in text
    assert "| uvloop " in text
    assert "| pip " not in text
    prose = [line for line in text.splitlines() if not line.startswith("|")]
    assert max(map(len, prose)) <= document.COLUMNS


def test_rows_without_a_verdict_are_counted_too(tmp_path: Path) -> None:
    file = tmp_path / "loops.json"
    hasty = Line("queue", {"uvloop": cell([10]), "oxloop": cell([8])})
    file.write_text(comparison.to_text(ABOUT, [*compared(), hasty]))
    text = document.headline(Source.read(file)).replace("\n", " ")
    assert "behind in 1; 1 have too few rounds for a verdict. The geometric" in text


def test_main_rows_have_their_latencies_drawn_or_else_the_first() -> None:
    others = [Line(f"row-{number}", {"asyncio": cell([1.0], 1.0)}) for number in range(20)]
    assert plots.panel_lines([*others, *compared()]) == compared()[1:]
    assert plots.panel_lines(others) == others[: plots.PANELS_MOST]


def test_ticks_are_fewer_where_they_would_cover_each_other() -> None:
    assert plots.ticks_between(0.85, 1.3) == [0.9, 1, 1.1, 1.25]
    assert plots.ticks_between(0.6, 12.0) == [0.7, 1, 1.5, 2, 3, 5, 10]


def test_values_are_drawn_in_units_of_handy_size() -> None:
    assert plots.scale_of(grown()) == (1e6, "µs")
    memory = Plot(Curve("m", "", "bytes", ""), {"oxloop": Series({1: {0: 3e6}})})
    assert plots.scale_of(memory) == (1 / (1 << 20), "MiB")
    assert plots.scale_of(Plot(Curve("e", "", "seconds", ""), {"oxloop": Series({})}))[1] == "ns"


def test_the_same_samples_give_the_same_files(files: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = []
    for name in ("first", "second"):
        directory = tmp_path / name
        (directory / document.DIRECTORY).mkdir(parents=True)
        (directory / document.DIRECTORY / "old-ratios.svg").touch()
        document.write([Source.read(path) for path in files], directory)
        found.append(
            {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.*")}
        )
    first, second = found
    assert first == second
    assert sorted(first) == [
        "benchmarks.md",
        "benchmarks/growth-memory.svg",
        "benchmarks/growth-times.svg",
        "benchmarks/growth.json",
        "benchmarks/loops-latencies.svg",
        "benchmarks/loops-ratios.svg",
        "benchmarks/loops.json",
        "benchmarks/memory.json",
    ]
