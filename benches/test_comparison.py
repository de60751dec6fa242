"""How the time of a comparison is spent, and that what was measured is kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import comparison
import machine
import rows
from budget import WINDOW_LEAST, Budget
from comparison import Comparison
from line import Cell, Line
from measurement import Bench, MeasurementError, Sample

SPECS = ["asyncio", "uvloop", "zuvloop", "oxloop"]


def test_rounds_are_as_many_as_said_or_as_fit() -> None:
    assert [Budget(2).has_round(number, 1e9, 1e9) for number in range(3)] == [True, True, False]
    budget = Budget(seconds=100.0)
    assert budget.has_round(2, 500.0, 100.0)  # the least number has no limit
    assert budget.has_round(3, 79.0, 20.0)
    assert not budget.has_round(3, 81.0, 20.0)


def test_windows_are_shortened_until_the_least_number_of_rounds_fits() -> None:
    budget = Budget(seconds=100.0)
    assert budget.window(1.0, 1, 40.0, 30.0, 20) == 1.0
    assert budget.window(1.0, 1, 40.0, 36.0, 20) == pytest.approx(0.7)
    assert budget.window(1.0, 1, 40.0, 90.0, 20) == WINDOW_LEAST
    assert budget.window(0.1, 1, 40.0, 90.0, 20) == 0.1
    assert budget.window(1.0, 3, 40.0, 90.0, 20) == 1.0
    assert Budget(5).window(1.0, 1, 40.0, 90.0, 20) == 1.0


def test_slow_peers_contend_no_more_but_failures_of_chance_do() -> None:
    rates = {"asyncio": 76.0, "uvloop": 74.0, "zuvloop": 100.0, "oxloop": 5.0}
    cells = {spec: Cell({0: Sample(rate, 1.0)}) for spec, rate in rates.items()}
    cells |= {"rloop": Cell(failure="lost"), "talyn": Cell(failure="no", is_given_up=True)}
    line = Line("sleep-0", cells)
    assert comparison.contenders(line, 0.75) == ["asyncio", "zuvloop", "oxloop", "rloop"]
    assert comparison.contenders(line, 0.85) == ["zuvloop", "oxloop", "rloop"]
    cells["uvloop"].samples[1] = Sample(74.0, 1.0)
    assert "uvloop" in comparison.contenders(line, 0.85)
    cells["uvloop"].samples[2] = Sample(74.0, 1.0)
    assert "uvloop" not in comparison.contenders(line, 0.85)


class FakeBench(Bench):
    """Knows each loop's rate; uvloop is not there, and zuvloop fails once."""

    asked: list[str]

    def measure(self, row: rows.Row, spec: str) -> Sample:
        self.asked.append(spec)
        if spec == "uvloop":
            raise MeasurementError("ImportError: none")
        if spec == "zuvloop" and self.asked.count(spec) == 1:
            raise MeasurementError("lost")
        return Sample(float(len(spec)), 1.0)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> FakeBench:
    monkeypatch.setattr(FakeBench, "asked", [], raising=False)
    return FakeBench(Path(), Path(), 0.1, 0.1, 0, 0)


def test_loops_take_turns_and_what_cannot_be_is_not_tried_again(
    bench: FakeBench, tmp_path: Path
) -> None:
    [row] = rows.select("client-httpx-x8")
    file = tmp_path / "samples.json"
    compared = Comparison(bench, [row], SPECS, Budget(3), {"python": "3.x"}, file)
    compared.run()
    assert bench.asked == [
        *("asyncio", "uvloop", "zuvloop", "oxloop"),
        *("zuvloop", "oxloop", "asyncio"),
        *("oxloop", "asyncio", "zuvloop"),
    ]
    [line] = compared.lines
    assert list(line.cells["asyncio"].samples) == [0, 1, 2]
    assert list(line.cells["zuvloop"].samples) == [1, 2]
    about, lines = comparison.from_text(file.read_text())
    assert about["rounds"] == 3
    assert about["python"] == "3.x"
    assert lines[0].to_json() == line.to_json()
    assert [each.name for each in tmp_path.iterdir()] == ["samples.json"]


def test_without_time_the_least_number_of_rounds_is_measured(bench: FakeBench) -> None:
    [row] = rows.select("client-httpx-x8")
    compared = Comparison(bench, [row], ["asyncio", "oxloop"], Budget(seconds=0.0), {})
    compared.run()
    assert bench.asked == ["asyncio", "oxloop", "oxloop", "asyncio", "asyncio", "oxloop"]


@pytest.mark.parametrize(
    ("python", "target"), [("3.14.1", 0.97), ("3.11.7", None), ("3.15.0", None)]
)
def test_targets_are_stated_for_one_version(
    bench: FakeBench, python: str, target: float | None
) -> None:
    chosen = rows.select("echo-protocol-tcp-1k-x20")
    compared = Comparison(bench, chosen, ["oxloop"], Budget(1), {"python": python})
    assert [line.floor_target for line in compared.lines] == [target]


def test_contenders_are_fewer_if_a_round_would_take_too_long(bench: FakeBench) -> None:
    [row] = rows.select("client-httpx-x8")
    compared = Comparison(bench, [row], ["asyncio", "rloop", "oxloop"], Budget(seconds=9.0), {})
    cells = compared.lines[0].cells
    for spec, rate in {"asyncio": 80.0, "rloop": 100.0, "oxloop": 5.0}.items():
        cells[spec].samples[0] = Sample(rate, 1.0)
        compared.costs[row.name, spec] = 2.0
    assert compared.choose(9.0) == 6.0
    assert compared.choose(5.0) == 4.0
    assert compared.chosen(compared.lines[0]) == ["rloop", "oxloop"]
    assert compared.choose(1.0) == 4.0


def test_what_was_measured_before_an_interrupt_is_kept(tmp_path: Path) -> None:
    class Interrupted(FakeBench):
        def measure(self, row: rows.Row, spec: str) -> Sample:
            if row.name == "client-redis-x32":
                raise KeyboardInterrupt
            return Sample(1.0, 1.0)

    file = tmp_path / "samples.json"
    bench = Interrupted(Path(), Path(), 0.1, 0.1, 0, 0)
    chosen = rows.select("client-redis-x32,client-httpx-x8")
    compared = Comparison(bench, chosen, ["oxloop"], Budget(3), {}, file)
    with pytest.raises(KeyboardInterrupt):
        compared.run()
    about, lines = comparison.from_text(file.read_text())
    assert about["rounds"] == 1
    assert [(line.name, line.cells["oxloop"].rates) for line in lines] == [
        ("client-httpx-x8", {0: 1.0}),
        ("client-redis-x32", {}),
    ]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no JSON"), "ValueError: no JSON"),
        (
            FileNotFoundError(2, "missing", "/a/b/load"),
            "FileNotFoundError: [Errno 2] missing: 'load'",
        ),
        (MeasurementError("ImportError: none"), "ImportError: none"),
    ],
)
def test_whatever_fails_is_a_reason_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    def fail(*_: object) -> Sample:
        raise error

    monkeypatch.setattr(Bench, "measure_once", fail)
    [row] = rows.select("client-httpx-x8")
    core = min(os.sched_getaffinity(0))
    bench = Bench(Path(), Path(), 0.1, 0.1, core, core)
    compared = Comparison(bench, [row], ["oxloop"], Budget(1), {})
    compared.run()
    assert compared.lines[0].cells["oxloop"].failure == text


def test_a_command_is_told_without_places() -> None:
    arguments = ["--setup", "--venv", "/x", "--json=/y", "--rows", "echo-*,main", "--minutes", "5"]
    command = machine.command_line("/there/compare.py", arguments)
    assert command == "compare.py --rows 'echo-*,main' --minutes 5"


def test_a_virtual_machine_is_called_one() -> None:
    cpuinfo = "processor : 0\nmodel name : Fast: 9\nflags : sse{}\n"
    assert machine.cpu_model(cpuinfo.format("")) == "Fast: 9"
    assert machine.cpu_model(cpuinfo.format(" hypervisor")) == "Fast: 9 (virtual machine)"
