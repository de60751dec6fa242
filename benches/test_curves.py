"""What is concluded from the points of curves, and that their measurements are real."""

import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import curves
import experiments
import idle
import many
import measurement
import memory
import resident
import returned
import rows
import scale
import timer_floor
from budget import Budget
from curves import Curve, Limit, Plot, Series
from experiments import Experiment, Point

CORES = sorted(os.sched_getaffinity(0))
BENCH = measurement.Bench(Path(sys.executable), Path(), 0.1, 0.1, CORES[0], CORES[-1])
FLAT = Curve("request", "a request", "seconds", "idle connections", curves.flat(0.03))


def series(first: list[float], last: list[float]) -> Series:
    return Series({10: dict(enumerate(first)), 10_000: dict(enumerate(last))})


def test_growth_is_formed_within_a_round() -> None:
    growth = series([1.0, 2.0, 4.0], [1.1, 2.2, 4.4]).growth(10, 10_000)
    assert growth is not None
    assert growth.value == pytest.approx(1.1)
    assert growth.interval == pytest.approx((1.1, 1.1))


def test_growth_needs_both_ends_of_one_round() -> None:
    broken = Series({10: {0: 1.0}, 10_000: {1: 1.0}})
    assert broken.growth(10, 10_000) is None
    assert Plot(FLAT, {"oxloop": Series({10: {0: 1.0}})}).growth("oxloop") is None
    # What failed at the last count has not grown from the first to the one before the last.
    failed = Series({10: {0: 1.0}, 100: {0: 1.0}})
    assert Plot(FLAT, {"uvloop": failed, "oxloop": series([1.0], [1.0])}).growth("uvloop") is None


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        ([1.02, 1.01, 1.02], "pass"),
        ([1.2, 1.1, 1.2], "short"),
        ([1.0, 1.02, 1.1], "open"),
        ([1.02], "pass"),
        ([1.04], "short"),
    ],
)
def test_a_verdict_needs_the_whole_interval(last: list[float], verdict: str) -> None:
    plot = Plot(FLAT, {"uvloop": series([1.0], [9.0]), "oxloop": series([1.0] * len(last), last)})
    assert plot.verdict == verdict


def test_a_logarithm_grows_by_as_much_for_a_thousand_times_as_many() -> None:
    assert curves.logarithm(1_000, 1_000_000) == pytest.approx(2.0)


def test_a_timer_may_cost_more_as_one_in_a_heap_does() -> None:
    limit = Limit("as a heap", lambda first, last: 1.5, or_floor=True)
    curve = Curve("timer", "", "seconds", "timers", limit)
    plot = Plot(curve, {"oxloop": series([1.0], [3.0]), "floor": series([4.0], [14.0])})
    assert plot.growth_most == pytest.approx(3.5)
    assert plot.verdict == "pass"
    plot.series["floor"] = series([4.0], [4.0])
    assert plot.growth_most == pytest.approx(1.5)
    assert plot.verdict == "short"


def test_the_samples_of_each_count_stand_by_round() -> None:
    plot = Plot(FLAT, {"oxloop": Series({10: {0: 1.0, 2: 3.0}})})
    assert plot.to_json(3)["loops"]["oxloop"] == {
        "failure": None,
        "growth": None,
        "points": [{"count": 10, "median": 2.0, "samples": [1.0, None, 3.0]}],
    }


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "bytes", "-"),
        (1234.5, "bytes", "1,234"),
        (0.0, "seconds", "0"),
        (1.25e-7, "seconds", "125 ns"),
        (1.5e-5, "seconds", "15 µs"),
        (0.0467, "seconds", "46.7 ms"),
        (12.0, "seconds", "12 s"),
    ],
)
def test_values_are_written_for_the_eye(value: float | None, unit: str, text: str) -> None:
    assert curves.value_text(value, unit) == text


def test_tables_have_a_line_for_each_count_and_notes_the_failures() -> None:
    broken = Series(failure="OSError: too many")
    plots = [Plot(FLAT, {"asyncio": broken, "oxloop": series([1e-6], [1.01e-6])})]
    lines = curves.table(plots, ["asyncio", "oxloop"]).splitlines()
    assert [line.split("|")[1:5] for line in lines[2:]] == [
        [" request ", "     10 ", "       - ", "    1 µs "],
        [" request ", " 10,000 ", "       - ", " 1.01 µs "],
    ]
    growth = curves.growth_table(plots, ["asyncio", "oxloop"]).splitlines()[-1]
    cells = [cell.strip() for cell in growth.strip("|").split("|")]
    assert cells == ["request", "10 to 10,000", "-", "1.01", "1.03", "pass"]
    assert curves.notes(plots) == ["asyncio: OSError: too many - request"]


def failing(text: str, calls: list[str]) -> Experiment:
    def measure(bench: measurement.Bench, spec: str) -> Iterator[Point]:
        calls.append(spec)
        yield Point(FLAT, 10, 1.0)
        raise measurement.MeasurementError(text)

    return Experiment(measure, (FLAT,))


def test_what_came_before_a_failure_is_kept() -> None:
    calls: list[str] = []
    [plot] = experiments.measure(BENCH, [failing("OSError: no", calls)], ["asyncio"], Budget(2))
    assert plot.series["asyncio"].values == {10: {0: 1.0, 1: 1.0}}
    assert plot.series["asyncio"].failure == "OSError: no"
    assert calls == ["asyncio"] * 2


def test_a_loop_that_lacks_a_feature_is_not_tried_again() -> None:
    calls: list[str] = []
    specs = ["rloop", "uvloop", "oxloop+memorybio", "floor"]
    experiments.measure(BENCH, [failing("NotImplementedError", calls)], specs, Budget(3))
    assert sorted(calls) == ["rloop", "uvloop"]


def test_the_time_that_is_left_goes_to_the_first_experiments_that_fit() -> None:
    def lasting(name: str, seconds: float) -> Experiment:
        curve = Curve(name, "", "bytes", "")

        def measure(bench: measurement.Bench, spec: str) -> Iterator[Point]:
            time.sleep(seconds)
            yield Point(curve, 1, 1.0)

        return Experiment(measure, (curve,))

    made = [lasting("short", 0.0), lasting("long", 0.2)]
    kept: list[int] = []

    def keep(plots: list[Plot], rounds: int) -> None:
        kept.append(rounds)
        if rounds == 3:
            raise KeyboardInterrupt

    plots = experiments.measure(BENCH, made, ["asyncio"], Budget(seconds=0.3, least=1), keep)
    rounds = [[*plot.series["asyncio"].values[1]] for plot in plots]
    assert rounds == [[0, 1, 2], [0]]
    assert kept == [1, 1, 2, 3]


def test_experiments_are_chosen_by_the_names_of_their_curves() -> None:
    made = scale.make_experiments(is_quick=True)
    chosen = [each for each in made if each.is_named("request,*-kept")]
    names = [curve.name for each in chosen for curve in each.curves if "timer" in curve.name]
    assert names == ["timers-peak", "timers-kept", "timers-held"]


def test_every_curve_has_a_name_of_its_own() -> None:
    for made in (scale.make_experiments(is_quick=True), memory.make_experiments(is_quick=True)):
        names = [curve.name for each in made for curve in each.curves]
        assert len(set(names)) == len(names)


def test_resident_memory_is_that_which_was_touched() -> None:
    # A mapping of its own: malloc may give a block whose pages are resident already.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, 32 << 20, flags=flags) as block:
        before = resident.resident_bytes()
        block.write(bytes(1) * len(block))
        assert resident.resident_bytes() - before > 30 << 20


def test_idle_connections_are_echoed_and_closed() -> None:
    server = rows.Server("protocol", "tcp", 1, "bytes", 1024)
    with BENCH.serving(server, "asyncio") as (pid, address, _):
        with idle.IdleConnections(address) as connections:
            connections.grow(3)
            assert len(connections.connections) == 3
        assert resident.resident_bytes(pid) > 0
    with (
        pytest.raises(measurement.MeasurementError, match=r"ConnectionRefused.* with 0 conn"),
        idle.IdleConnections(address) as connections,
    ):
        connections.grow(1)


@pytest.mark.parametrize("name", [*many.MEASUREMENTS])
def test_many_things_are_measured_in_a_process_of_its_own(name: str) -> None:
    arguments = ["--measurement", name, "--count", "2000" if "timer" in name else "5"]
    values = experiments.run_program(BENCH, "many.py", "asyncio", *arguments)
    assert all(value > 0 for value in values.values())


@pytest.mark.parametrize("name", [*timer_floor.MEASUREMENTS])
def test_timers_in_a_heap_are_measured_as_those_of_a_loop(name: str) -> None:
    arguments = ["--measurement", name, "--count", "100"]
    values = experiments.run_program(BENCH, "timer_floor.py", "floor", *arguments)
    assert all(value > 0 for value in values.values())


def test_a_heap_calls_its_timers_in_order_and_no_cancelled_one() -> None:
    timers = timer_floor.Timers()
    called: list[int] = []

    def caller(number: int) -> Callable[[], None]:
        return lambda: called.append(number)

    made = [timers.call_at(number % 5, caller(number)) for number in range(10)]
    made[2].is_cancelled = True
    timers.run()
    assert called == [0, 5, 1, 6, 7, 3, 8, 4, 9]


@pytest.mark.parametrize("name", ["protocol", "timers"])
def test_memory_is_read_after_each_turn(name: str) -> None:
    arguments = ["--measurement", name, "--count", "100"]
    values = experiments.run_program(BENCH, "returned.py", "asyncio", *arguments)
    wanted = [f"{part}-{turn}" for turn in range(1, 4) for part in ("peak", "kept", "held")]
    assert list(values) == wanted
    assert returned.TURNS == 3


@pytest.mark.parametrize(("name", "count"), [("handle", 10_000), ("timer", 10_000), ("loop", 20)])
def test_things_of_a_loop_take_memory(name: str, count: int) -> None:
    arguments = ["--measurement", name, "--count", str(count)]
    value = experiments.run_program(BENCH, "footprint.py", "asyncio", *arguments)["value"]
    assert 50 < value < 100_000
