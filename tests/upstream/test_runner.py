"""The runner itself: which tests count, what is a difference, and what is made of broken runs."""

import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

TESTS = str(Path(__file__).resolve().parents[1])
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)

from conformance.cases import CRASHED, FAILED, HUNG, PASSED, SKIPPED, Outcome  # noqa: E402
from upstream import control, job, places, verdict  # noqa: E402
from upstream.differences import ListError, load_list, parse_list  # noqa: E402
from upstream.job import Job  # noqa: E402
from upstream.process import Choice, SuiteRun, run_suite  # noqa: E402
from upstream.suites import Suite, load_suites  # noqa: E402
from upstream.verdict import COLLECTION, PROCESS_EXIT  # noqa: E402

COMPATIBILITY = Path(TESTS).parent / "docs" / "compatibility.md"
MIXED = """
    import asyncio, os, signal, subprocess, sys, time
    import pytest

    CHILD = "import asyncio; print(type(asyncio.new_event_loop()).__module__)"

    def test_own_loop():
        loop = asyncio.new_event_loop()
        loop.close()
        assert type(loop).__module__.startswith("oxloop")

    def test_loop_of_a_child():
        out = subprocess.check_output([sys.executable, "-c", CHILD], text=True)
        assert out.startswith("oxloop")

    def test_skips():
        pytest.skip("not here")

    @pytest.mark.xfail
    def test_expected_failure():
        assert False

    @pytest.fixture
    def broken():
        yield
        raise ZeroDivisionError

    def test_teardown_fails(broken):
        pass

    def test_crashes():
        os.kill(os.getpid(), signal.SIGSEGV)

    def test_hangs():
        time.sleep(60)

    def test_behind_all_that():
        pass
"""


@pytest.fixture
def place(tmp_path):
    """A suite of two files, one of which cannot be imported, in the environment of this test."""
    tests = tmp_path / "source"
    tests.mkdir()
    (tests / "test_mixed.py").write_text(textwrap.dedent(MIXED), encoding="utf-8")
    (tests / "test_broken.py").write_text("import no_such_module_anywhere", encoding="utf-8")
    # In place of the `.pth` file, which this test must not leave in an environment.
    (tmp_path / "path").mkdir()
    plugin = f"import sys; sys.path.append({str(places.PLUGIN)!r}); import oxloop_upstream"
    (tmp_path / "path" / "sitecustomize.py").write_text(plugin, encoding="utf-8")
    suite = Suite("mixed", "1", environment={"PYTHONPATH": str(tmp_path / "path")})
    return SimpleNamespace(suite=suite, python=Path(sys.executable), tests=tests)


def by_name(run):
    return {test.rpartition("::")[2]: outcome.status for test, outcome in run.outcomes.items()}


@pytest.mark.timeout(120)
def test_run_goes_on_behind_a_crash_and_a_hang(place):
    run = run_suite(place, Choice(True, (".",), stall=8))
    assert by_name(run) == {
        f"test_broken.py{COLLECTION}": FAILED,
        "test_own_loop": PASSED,
        "test_loop_of_a_child": PASSED,
        "test_skips": SKIPPED,
        "test_expected_failure": PASSED,
        "test_teardown_fails": FAILED,
        "test_crashes": CRASHED,
        "test_hangs": HUNG,
        "test_behind_all_that": PASSED,
    }, run.outcomes
    assert run.loops == 2  # one of them in the child
    shown = verdict.failure_lines("mixed", "test_mixed.py::test_hangs", run.outcomes)
    assert "in test_hangs" in shown[2]


def test_stock_asyncio_is_not_swapped(place):
    only = frozenset({"test_mixed.py::test_own_loop", "test_mixed.py::test_loop_of_a_child"})
    run = run_suite(place, Choice(False, ("test_mixed.py",), only))
    assert by_name(run) == {"test_own_loop": FAILED, "test_loop_of_a_child": FAILED}, run.outcomes
    assert not run.loops


def outcomes(**statuses):
    return {test: Outcome(status) for test, status in statuses.items()}


class Runs:
    """Stands for `run_suite`: gives out prepared runs, and notes what was asked for."""

    def __init__(self, *runs):
        self.runs = list(runs)
        self.choices = []

    def __call__(self, place, choice):
        self.choices.append(choice)
        run = self.runs.pop(0)
        wanted = choice.only
        kept = {
            test: outcome
            for test, outcome in run.items()
            if wanted is None or test in wanted or verdict.is_trouble(test)
        }
        return SuiteRun(kept, loops=1)


def make_control(place, tmp_path):
    return control.Control(place, Choice(True, ("tests",)), cache=tmp_path)


def test_counts_what_stock_asyncio_passes_twice(place, tmp_path, monkeypatch):
    runs = Runs(
        outcomes(a=PASSED, b=PASSED, c=FAILED, d=SKIPPED, e=PASSED),
        outcomes(a=PASSED, b=FAILED, c=PASSED, d=SKIPPED),
    )
    monkeypatch.setattr(control, "run_suite", runs)
    measured = make_control(place, tmp_path)
    assert not measured.load()
    measured.measure()
    assert not any(choice.swapped for choice in runs.choices)
    kept = make_control(place, tmp_path)
    assert kept.load()
    assert kept.counted == measured.counted == ["a"]


def test_a_suite_that_cannot_begin_is_measured_again(place, tmp_path, monkeypatch):
    broken = {PROCESS_EXIT: Outcome(CRASHED)}
    monkeypatch.setattr(control, "run_suite", Runs(broken, broken))
    measured = make_control(place, tmp_path)
    measured.measure()
    assert not measured.counts("a")
    assert not make_control(place, tmp_path).load()


def test_assumes_that_what_passes_on_oxloop_passes_on_asyncio(place, tmp_path, monkeypatch):
    found = outcomes(a=PASSED, b=FAILED, c=FAILED, d=SKIPPED, e=SKIPPED, f=FAILED)
    runs = Runs(
        outcomes(a=PASSED, b=PASSED, c=FAILED, d=SKIPPED, e=PASSED, f=PASSED),
        outcomes(b=PASSED, e=PASSED, f=FAILED),
    )
    monkeypatch.setattr(control, "run_suite", runs)
    assumed = make_control(place, tmp_path)
    assumed.assume(found, listed={})
    assert [choice.only for choice in runs.choices] == [
        frozenset("bcdef"),
        frozenset("bef"),
    ]
    judged = verdict.judge("mixed", found, assumed, {})
    assert judged.passed == ["a"]
    assert judged.failed == ["b", "e"]
    assert judged.not_counted == ["c", "d", "f"]


@pytest.mark.parametrize("also_on_asyncio", [False, True])
def test_a_file_that_cannot_be_imported(place, tmp_path, monkeypatch, also_on_asyncio):
    name = f"test_x.py{COLLECTION}"
    found = {**outcomes(a=PASSED), name: Outcome(FAILED)}
    stock = {name: Outcome(FAILED)} if also_on_asyncio else {}
    monkeypatch.setattr(control, "run_suite", Runs(stock, stock))
    assumed = make_control(place, tmp_path)
    assumed.assume(found, listed={})
    judged = verdict.judge("mixed", found, assumed, {})
    assert (judged.failed, judged.not_counted) == (
        ([], [name]) if also_on_asyncio else ([name], [])
    )


@pytest.mark.parametrize("also_on_asyncio", [False, True])
def test_a_process_that_ends_badly(place, tmp_path, monkeypatch, also_on_asyncio):
    found = {**outcomes(a=PASSED), PROCESS_EXIT: Outcome(CRASHED)}
    stock = found if also_on_asyncio else outcomes(a=PASSED)
    monkeypatch.setattr(control, "run_suite", Runs(stock, stock))
    assumed = make_control(place, tmp_path)
    assumed.assume(found, listed={})
    judged = verdict.judge("mixed", found, assumed, {})
    assert judged.passed == ["a"]
    assert judged.failed == ([] if also_on_asyncio else [PROCESS_EXIT])


def test_a_test_that_did_not_run_has_failed():
    known = SimpleNamespace(counted=["a", "b"], counts=lambda test: True)
    judged = verdict.judge("mixed", outcomes(a=PASSED), known, {})
    assert judged.failed == ["b"]
    assert verdict.failure_lines("mixed", "b", {}) == ["mixed: b  [did not run]"]


def test_a_listed_test_that_passes_is_named():
    known = SimpleNamespace(counted=[], counts=lambda test: True)
    judged = verdict.judge("mixed", outcomes(a=PASSED, b=FAILED), known, {"a": None, "b": None})
    assert (judged.listed, judged.needless, judged.failed) == (["a", "b"], ["a"], [])


def make_job(place, monkeypatch, runs, *, text=""):
    monkeypatch.setattr(job, "run_suite", runs)
    place.prepare = lambda wheel: None
    arguments = SimpleNamespace(control=False, quick=True, ci=False, pytest=[], verbose=True)
    listing = parse_list("list", text)
    return Job(place.suite, place, arguments=arguments, listing=listing, wheel=None)


def test_job_believes_only_the_second_failure(place, monkeypatch):
    runs = Runs(outcomes(a=PASSED, b=FAILED, c=FAILED, d=FAILED), outcomes(b=PASSED, c=FAILED))
    made = make_job(place, monkeypatch, runs, text="mixed: d | all | a row")
    stock = Runs(outcomes(c=PASSED), outcomes(c=PASSED))
    monkeypatch.setattr(control, "run_suite", stock)
    made.run()
    assert runs.choices[1].only == frozenset("bc")
    assert stock.choices[0].only == frozenset("c")
    assert made.verdict.counts == (2, 1, 1)
    assert not made.verdict.trouble


@pytest.mark.parametrize("loops", [0, 1])
def test_job_without_a_loop_of_oxloop_has_failed(place, monkeypatch, loops):
    runs = lambda place, choice: SuiteRun(outcomes(a=PASSED), loops)  # noqa: E731
    made = make_job(place, monkeypatch, runs)
    made.run()
    assert bool(made.verdict.trouble) == (not loops)
    assert made.verdict.counts == (1, 0 if loops else 1, 0)
    failed = verdict.closing_line([made.verdict]).split(", ")[1]
    assert failed == ("0 failed" if loops else "1 failed")


def test_list_matches_a_test_or_all_its_parameters():
    one, each = parse_list(
        "list",
        """
        # what a line is
        mixed: t.py::test_a[1 | 2] | all | row
        mixed: t.py::test_b[*] | 3.14+ | row
        """.replace("        ", ""),
    )
    assert one.matches("t.py::test_a[1 | 2]")
    assert not one.matches("t.py::test_a[2]")
    assert each.matches("t.py::test_b[x-y]")
    assert each.matches("t.py::test_b")
    assert not each.matches("t.py::test_bb[x]")
    assert "3.13" not in each.versions


@pytest.mark.parametrize("line", ["a | all | r", "s: a | all |", "s: a | 2.7 | r", "s: a"])
def test_list_refuses_what_it_cannot_read(line):
    with pytest.raises(ListError):
        parse_list("list", line)


def test_each_difference_stands_in_the_documentation():
    text = COMPATIBILITY.read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    suites = load_suites()
    for entry in load_list():
        assert entry.reason in rows, entry.source
        assert not suites[entry.suite].left_out, entry.source


def test_manifest_has_a_hash_or_a_reason_for_each():
    for suite in load_suites().values():
        assert bool(suite.sha256) != bool(suite.left_out)


@pytest.mark.parametrize(
    "line", ['sha256 = "0"\nswap = ["magic"]', "", 'sha256 = "0"\nversions = "2"']
)
def test_manifest_refuses_what_it_cannot_read(tmp_path, line):
    file = tmp_path / "suites.toml"
    file.write_text(f'[x]\nversion = "1"\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="x: "):
        load_suites(file)
