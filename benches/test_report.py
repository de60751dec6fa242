"""What the comparison concludes from samples, and that its measurements are real."""

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import comparison
import loops
import measurement
import report
import rows
import tls_files
from line import Cell, Line
from measurement import Sample
from ratio import Ratio


def line(name: str, **rates: list[float]) -> Line:
    [row] = rows.select(name)
    cells = {
        spec: Cell({number: Sample(rate, 1.0) for number, rate in enumerate(samples)})
        for spec, samples in rates.items()
    }
    return Line(name, cells, row.floor_target)


def test_the_best_peer_has_the_best_median_and_is_compared_round_by_round() -> None:
    found = line("sleep-0", asyncio=[1.0, 100.0, 3.0], uvloop=[4.0, 5.0, 2.0], oxloop=[6, 10, 3])
    assert found.best_peer == "uvloop"
    assert found.peer_ratio == Ratio(1.5, (1.5, 2.0))
    assert found.verdict == "lead"


def test_a_peer_of_one_round_is_best_only_if_it_was_in_that_round() -> None:
    oxloop = [60.0, 30.0, 30.0]
    slower = line("sleep-0", rloop=[40.0], uvloop=[50.0, 20.0, 20.0], asyncio=[9.0], oxloop=oxloop)
    assert (slower.best_peer, slower.verdict) == ("uvloop", "lead")
    faster = line("sleep-0", rloop=[60.0], uvloop=[50.0, 20.0, 20.0], oxloop=oxloop)
    assert (faster.best_peer, faster.verdict) == ("rloop", "-")
    # Nothing is known of both if no round is.
    apart = line("sleep-0", rloop=[], uvloop=[50.0, 20.0, 20.0], oxloop=oxloop)
    apart.cells["rloop"].samples[7] = Sample(40.0, 1.0)
    assert apart.best_peer == "rloop"
    assert line("sleep-0", rloop=[40.0], uvloop=[50.0], oxloop=[60.0]).best_peer == "uvloop"


def test_a_row_may_lead_its_peers_and_miss_its_target_against_the_floor() -> None:
    found = line(
        "echo-protocol-tcp-1k-x20", uvloop=[100.0] * 3, oxloop=[110.0] * 3, floor=[120.0] * 3
    )
    assert (found.verdict, found.floor_verdict) == ("lead", "behind")
    assert found.best_peer == "uvloop"
    assert report.summary([found]) == [
        "Geometric mean of the ratios to the best peers: 1.10.",
        "Lead in 1 of 1 rows.",
        "Even in 0 of 1 rows.",
        "Behind in 0 of 1 rows.",
        "Target against the floor missed: echo-protocol-tcp-1k-x20.",
    ]


def test_no_verdict_without_a_result() -> None:
    assert line("sleep-0", asyncio=[1.0] * 3, oxloop=[]).verdict == "-"
    assert line("sleep-0", oxloop=[1.0] * 3).verdict == "-"


def test_a_line_is_the_same_after_a_way_through_json() -> None:
    found = line("echo-protocol-tls-1k-x20", uvloop=[1.0, 2.0], oxloop=[], floor=[3.0])
    found.cells["oxloop"].failure = "ImportError: none"
    found.cells["uvloop"].samples[7] = Sample(1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6)
    assert Line.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_an_empty_cell_has_its_reason_in_the_notes() -> None:
    found = line("sleep-0", asyncio=[1.0], oxloop=[])
    found.cells["oxloop"].failure = "ImportError: none"
    assert "oxloop: ImportError: none - sleep-0" in report.notes([found])
    assert "| sleep-0 |     1.0 |      - |" in report.rates_table([found], ["asyncio", "oxloop"])


def test_a_loop_that_fails_everywhere_has_one_short_note() -> None:
    absent = [line(name, asyncio=[1.0], talyn=[]) for name in ("sleep-0", "queue")]
    for each in absent:
        each.cells["talyn"].failure = "ImportError: none"
    assert "talyn: ImportError: none - all rows" in report.notes(absent)


def test_a_loop_that_is_not_installed_says_so() -> None:
    with pytest.raises(ImportError, match=r"^nowhere is not there for this version of Python$"):
        loops.factory("nowhere")


def test_what_was_taken_from_samples_is_in_the_notes() -> None:
    found = line("sleep-0", asyncio=[1.0, 1.0], oxloop=[1.0])
    found.cells["asyncio"].samples[1] = Sample(1.0, 1.0, stolen=0.2, others=0.03)
    assert report.notes([found]) == [
        "samples with more than 5% stolen by the host: sleep-0 asyncio 1 of 2",
        "other processes took 0.0% of the two cores, as a median of samples",
    ]


def test_every_target_names_a_standard_row() -> None:
    standard = {row.name for row in rows.select("standard")}
    assert {*rows.FLOOR_TARGETS, *rows.MAIN} <= standard
    with pytest.raises(ValueError, match="'sleeep'"):
        rows.select("micro,sleeep")


def test_further_variants_are_the_subject_and_have_their_ratios_in_the_notes() -> None:
    rates = {"uvloop": [100.0], "oxloop": [110.0], "oxloop+memorybio": [120.0], "floor": [200.0]}
    found = line("echo-protocol-tls-1k-x20", **rates)
    assert found.best_peer == "uvloop"
    assert found.subject == "oxloop"
    [note, _] = report.notes([found])
    assert note == ("oxloop+memorybio, to peer / to floor: echo-protocol-tls-1k-x20 1.20 / 0.60")


def test_variants_have_cells_in_tls_rows_only() -> None:
    specs = ["uvloop", "oxloop", "oxloop+memorybio", "floor"]
    [secure], [plain], [micro] = (
        rows.select(name) for name in ("handshake-*", "echo-protocol-tcp-1k-x20", "sleep-0")
    )
    assert list(comparison.cells_of(secure, specs)) == specs
    assert list(comparison.cells_of(plain, specs)) == ["uvloop", "oxloop", "floor"]
    assert list(comparison.cells_of(micro, specs)) == ["uvloop", "oxloop"]


def test_a_specification_has_a_variant_and_a_directory() -> None:
    spec = "oxloop+direct@a/b+c"
    assert (loops.base_name(spec), loops.variant(spec)) == ("oxloop", "direct")
    assert loops.mistake(spec) is None
    for wrong in ("uvloop+direct", "oxloop+indirect", "foxloop"):
        assert repr(wrong) in str(loops.mistake(wrong))


def test_the_data_path_reaches_the_server_and_the_callers_choice_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OXLOOP_TLS", "direct")
    assert measurement.environment("oxloop+memorybio")["OXLOOP_TLS"] == "memorybio"
    assert "OXLOOP_TLS" not in measurement.environment("oxloop")


def test_the_floor_takes_the_interpreters_openssl(tmp_path: Path) -> None:
    command = [
        str(each) for each in tls_files.floor_command(Path(), Path(sys.executable), tmp_path)
    ]
    if "--openssl" not in command:  # the interpreter has OpenSSL compiled in
        assert command == ["floor", "--tls", str(tmp_path)]
        return
    files = command[command.index("--openssl") + 1].split(":")
    assert [Path(each).name.partition(".")[0] for each in files] == ["libcrypto", "libssl"]
    assert all(Path(each).is_file() for each in [command[0], *files])


def test_a_reason_is_the_exception_even_before_a_native_backtrace() -> None:
    text = 'Traceback:\n  File "a"\nRuntimeError: bad\n\nStack backtrace:\n 0: _start\n'
    assert measurement.reason(text, 1) == "RuntimeError: bad"
    assert measurement.reason("", 3) == "ended with status 3"


def test_a_reason_names_files_without_their_directories() -> None:
    text = "ImportError: /opt/x/lib-1.so: no /usr/lib/libc.so.6 (0.57 / 0.50, http://a/b/c)"
    found = measurement.reason(text, 1)
    assert found == "ImportError: lib-1.so: no libc.so.6 (0.57 / 0.50, http://a/b/c)"


def test_a_micro_benchmark_runs_in_a_process_of_its_own() -> None:
    core = min(os.sched_getaffinity(0))
    bench = measurement.Bench(Path(sys.executable), Path(), 0.1, 0.1, core, core)
    [row] = rows.select("run_in_executor")
    sample = bench.measure(row, "asyncio")
    assert sample.rate == pytest.approx(4_000 / sample.cpu_seconds)


def test_a_loop_that_is_not_installed_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "oxloop.py").write_text("raise ImportError('half built')")
    core = min(os.sched_getaffinity(0))
    bench = measurement.Bench(Path(sys.executable), Path(), 0.1, 0.1, core, core)
    for name in ("sleep-0", "echo-protocol-tcp-1k-x1"):
        [row] = rows.select(name)
        with pytest.raises(measurement.MeasurementError, match="half built") as caught:
            bench.measure(row, f"oxloop@{tmp_path}")
        assert caught.value.is_permanent


@pytest.mark.parametrize("kind", ["echo", "burst"])
def test_endpoints_of_a_loop_count_what_the_other_sends(kind: str) -> None:
    cores = sorted(os.sched_getaffinity(0))
    bench = measurement.Bench(Path(sys.executable), Path(), 0.1, 0.2, cores[0], cores[-1])
    [row] = rows.select(f"endpoints-{kind}-1200-x32")
    sample = bench.measure(row, "asyncio")
    assert sample.rate > 0
    assert sample.wall_rate is not None
    assert sample.p50_us is None
