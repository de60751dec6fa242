"""Servers that take turns: who runs meanwhile, what their windows are together, what fails."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import rows
import turns
from measurement import Bench, MeasurementError, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rows import Server

[ROW] = rows.select("echo-protocol-tcp-1k-x20")


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "T"


@dataclass(frozen=True)
class ProcessesBench(Bench):
    """Its servers are processes that do nothing; notes who ran in each window."""

    pids: dict[str, int] = field(default_factory=dict)
    windows: list[tuple[str, list[str]]] = field(default_factory=list)
    warm: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def serving(self, server: Server, spec: str) -> Iterator[tuple[int, str, Path]]:
        if spec == "uvloop":
            raise MeasurementError("ImportError: none")
        with subprocess.Popen(["sleep", "60"]) as process:
            self.pids[spec] = process.pid
            try:
                yield process.pid, spec, Path()
            except MeasurementError as error:
                raise MeasurementError(f"a server's last words ({error})") from error
            finally:
                process.kill()

    def load(self, server: Server, spec: str, pid: int, address: str, directory: Path) -> Sample:
        if spec not in self.warm:
            self.warm.append(spec)
            return Sample(0.0, 0.5)
        self.windows.append((spec, self.running()))
        if spec == "zuvloop" and len(self.windows) > 4:
            raise MeasurementError("lost")
        return Sample(float(len(self.windows)), 0.5)

    def running(self) -> list[str]:
        """Return who runs; a signal needs a moment to stop a process."""
        deadline = time.monotonic() + 10
        while True:
            found = [spec for spec, pid in self.pids.items() if is_running(pid)]
            if len(found) == 1 or time.monotonic() > deadline:
                return found
            time.sleep(0.01)


def test_one_runs_at_a_time_and_each_has_its_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bench, "undisturbed", lambda self, measure, pids: measure())
    bench = ProcessesBench(Path(), Path(), 0.3, 0.3, 0, 0)
    found = turns.measure(bench, ROW, ["uvloop", "zuvloop", "oxloop"])
    assert bench.windows == [
        ("zuvloop", ["zuvloop"]),
        ("oxloop", ["oxloop"]),
        ("zuvloop", ["zuvloop"]),
        ("oxloop", ["oxloop"]),
        ("zuvloop", ["zuvloop"]),
        ("oxloop", ["oxloop"]),
    ]
    assert str(found["uvloop"]) == "ImportError: none"
    assert str(found["zuvloop"]) == "a server's last words (lost)"
    assert isinstance(found["oxloop"], Sample)
    for pid in bench.pids.values():
        assert not Path(f"/proc/{pid}").exists()


def test_a_micro_benchmark_runs_once_a_turn_and_says_why_it_ends() -> None:
    core = min(os.sched_getaffinity(0))
    bench = Bench(Path(sys.executable), Path(), 0.1, 0.1, core, core)
    [row] = rows.select("run_in_executor")
    found = turns.measure(bench, row, ["asyncio", "talyn"])
    sample = found["asyncio"]
    assert isinstance(sample, Sample)
    assert sample.rate * sample.cpu_seconds == pytest.approx(turns.TURNS * 4_000)
    assert str(found["talyn"]).startswith("ImportError")


def test_windows_together_weigh_as_much_as_they_took() -> None:
    windows = [
        Sample(100.0, 0.5, wall_rate=50.0, p50_us=1.0, p99_us=10.0, p999_us=100.0, others=0.2),
        Sample(400.0, 0.25, wall_rate=200.0, p50_us=3.0, p99_us=20.0, p999_us=200.0),
        Sample(200.0, 0.25, wall_rate=50.0, p50_us=2.0, p99_us=90.0, p999_us=300.0, stolen=0.3),
    ]
    found = turns.joined(windows)
    assert (found.rate, found.cpu_seconds) == (200.0, 1.0)
    assert found.wall_rate == pytest.approx(200 / 2.5)
    assert (found.p50_us, found.p99_us, found.p999_us) == (2.0, 20.0, 200.0)
    assert (found.stolen, found.others) == pytest.approx((0.1, 0.2 / 3))


def test_bulk_has_no_latencies() -> None:
    found = turns.joined([Sample(100.0, 0.5, wall_rate=50.0), Sample(50.0, 0.5, wall_rate=50.0)])
    assert (found.rate, found.p50_us) == (75.0, None)


def test_clients_and_idle_connections_have_no_turns() -> None:
    named = {row.name: turns.has_turns(row) for row in rows.select("standard")}
    assert named["echo-protocol-tls-1k-x20"]
    assert named["http-uvicorn-x32"]
    assert not named["echo-protocol-tcp-1k-x20-idle-10000"]
    assert named["sleep-0"]
    assert not named["client-redis-x32"]
