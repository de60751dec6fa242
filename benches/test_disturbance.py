"""What is taken for stolen and for others' time, and when a measurement is repeated."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import disturbance
import measurement
import rows

if TYPE_CHECKING:
    from collections.abc import Iterator

STAT = """\
cpu  30 0 30 300 0 0 0 3 0 0
cpu0 10 0 10 100 0 0 0 1 0 0
cpu10 20 0 20 200 0 0 0 2 5 0
intr 1 2 3
ctxt 5
"""


def test_cores_are_read_without_their_sum_and_without_guests() -> None:
    assert disturbance.parse(STAT) == {
        0: [10, 0, 10, 100, 0, 0, 0, 1],
        10: [20, 0, 20, 200, 0, 0, 0, 2],
    }


def test_the_worst_core_tells_what_was_stolen_and_both_what_others_used() -> None:
    before = disturbance.Reading({0: [0] * 8, 1: [0] * 8}, 1.0)
    after = disturbance.Reading(
        {0: [60, 0, 20, 0, 0, 0, 10, 10], 1: [10, 0, 0, 80, 10, 0, 0, 0]}, 1.8
    )
    stolen, others = disturbance.shares(before, after, 100)
    assert stolen == pytest.approx(0.1)
    assert others == pytest.approx((100 - 80) / 200)
    assert disturbance.shares(before, before, 100) == (0.0, 0.0)


def test_the_own_time_of_a_measurement_is_not_that_of_others() -> None:
    with disturbance.Watch(*os.sched_getaffinity(0)) as watch:
        pass
    assert 0.0 <= watch.stolen <= 1.0
    assert 0.0 <= watch.others <= 1.0


def test_a_child_that_goes_on_is_none_of_the_others() -> None:
    core = max(os.sched_getaffinity(0))
    loop = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", loop]) as child:
        try:
            with disturbance.Watch(core) as unnamed:
                time.sleep(0.5)
            with disturbance.Watch(core, pids=[child.pid]) as named:
                time.sleep(0.5)
        finally:
            child.kill()
    assert named.others < unnamed.others


class FakeWatch:
    """Says that this part was stolen, one after the other."""

    parts: Iterator[float]

    def __init__(self, *cores: int, pids: object = ()) -> None:
        self.stolen = next(self.parts)
        self.others = 0.0

    def __enter__(self) -> FakeWatch:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.mark.parametrize(
    ("stolen", "kept"),
    [
        ([0.05, 0.0], 0.05),
        ([0.3, 0.06, 0.01, 0.0], 0.01),
        ([0.3, 0.06, 0.2, 0.1, 0.0], 0.06),
    ],
)
def test_a_sample_that_was_stolen_from_is_repeated_until_the_least_is_kept(
    stolen: list[float], kept: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeWatch, "parts", iter(stolen), raising=False)
    monkeypatch.setattr(measurement, "Watch", FakeWatch)
    monkeypatch.setattr(measurement.Bench, "measure_once", lambda *_: measurement.Sample(1.0, 1.0))
    [row] = rows.select("sleep-0")
    bench = measurement.Bench(Path(), Path(), 0.1, 0.1, 0, 0)
    sample = bench.measure(row, "asyncio")
    assert sample.stolen == kept
    assert sample.is_disturbed == (kept > 0.05)
