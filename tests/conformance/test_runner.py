"""The runner itself: what it makes of hanging, crashing, failing and skipped tests."""

import json
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = str(Path(__file__).resolve().parents[1])
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)

from conformance import cases, expectations, verdict  # noqa: E402
from conformance.cases import CRASHED, FAILED, HUNG, PASSED, SKIPPED, Outcome, TestId  # noqa: E402
from conformance.control import FLAKY, Control  # noqa: E402
from conformance.process import Subject, run_child  # noqa: E402
from conformance.schedule import Limits, Scheduler  # noqa: E402

MIXED = """
    import asyncio, asyncio.unix_events, os, selectors, signal, time, unittest

    class Mixed(unittest.TestCase):
        def test_fails(self):
            self.assertEqual(1, 2)

        def test_passes(self):
            pass

        def test_skips(self):
            self.skipTest("not here")

        def test_subtest_fails(self):
            for i in range(2):
                with self.subTest(i=i):
                    self.assertEqual(i, 0)

        @unittest.expectedFailure
        def test_unexpected_success(self):
            pass

        def test_skipped_subtest(self):
            with self.subTest(1):
                self.skipTest("only this one")

    class Hanging(unittest.TestCase):
        def test_a(self):
            pass

        def test_b(self):
            time.sleep(60)

        def test_c(self):
            self.fail("c")

    class Crashing(unittest.TestCase):
        def test_a(self):
            pass

        def test_b(self):
            os.kill(os.getpid(), signal.SIGSEGV)

        def test_c(self):
            pass

    class BadFixture(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            raise ZeroDivisionError

        def test_a(self):
            pass

    class CrashAtExit(unittest.TestCase):
        def test_a(self):
            import atexit
            atexit.register(os._exit, 3)

    class Swapped(unittest.TestCase):
        def test_every_name(self):
            made = [
                asyncio.new_event_loop(),
                asyncio.SelectorEventLoop(),
                asyncio.SelectorEventLoop(selectors.SelectSelector()),
                asyncio.Runner().get_loop(),
            ]
            if hasattr(asyncio, "EventLoop"):
                made.append(asyncio.EventLoop())
            for loop in made:
                self.addCleanup(loop.close)
                self.assertEqual(type(loop).__name__, "OtherLoop")
                self.assertIsInstance(loop, asyncio.SelectorEventLoop)

        def test_asyncio_is_not_altered(self):
            loop = asyncio.unix_events._UnixSelectorEventLoop()
            self.addCleanup(loop.close)
            self.assertNotEqual(type(loop).__name__, "OtherLoop")

        def test_name_can_be_inherited_from(self):
            class Mine(asyncio.SelectorEventLoop):
                pass
            loop = Mine()
            self.addCleanup(loop.close)
            self.assertEqual(type(loop).__mro__[1].__name__, "OtherLoop")
"""
OTHER_LOOP = """
    import asyncio

    class OtherLoop(asyncio.SelectorEventLoop):
        pass
"""
LIMITS = Limits(class_stall=1.5, single=1.5, expected_failure=1.0)


@pytest.fixture
def fake_tests(tmp_path):
    package = tmp_path / "fake_tests"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mixed.py").write_text(textwrap.dedent(MIXED))
    (tmp_path / "other_loop.py").write_text(textwrap.dedent(OTHER_LOOP))
    return Subject("stock", ("fake_tests",), (str(tmp_path),))


def run_classes(subject, *names, expected_to_fail=frozenset()):
    found = run_child(subject, {"modules": ["mixed", "absent"]}, stall=20, limit=20)
    assert found.finished, found.output
    classes = [
        cases.TestClass("mixed", name, tests)
        for name, tests in found.modules["mixed"].items()
        if name in names
    ]
    scheduler = Scheduler(subject, 2, LIMITS)
    outcomes = scheduler.run(classes, expected_to_fail)
    return {f"{test.class_name}.{test.test}": outcome for test, outcome in outcomes.items()}


def statuses(outcomes):
    return {name: outcome.status for name, outcome in outcomes.items()}


def test_outcomes_of_single_tests(fake_tests):
    outcomes = run_classes(fake_tests, "Mixed", "BadFixture")
    assert statuses(outcomes) == {
        "Mixed.test_fails": FAILED,
        "Mixed.test_passes": PASSED,
        "Mixed.test_skips": SKIPPED,
        "Mixed.test_subtest_fails": FAILED,
        "Mixed.test_unexpected_success": FAILED,
        "Mixed.test_skipped_subtest": PASSED,
        "BadFixture.test_a": FAILED,
    }
    assert "AssertionError: 1 != 2" in outcomes["Mixed.test_fails"].detail
    assert "ZeroDivisionError" in outcomes["BadFixture.test_a"].detail


def test_broken_class_runs_singly(fake_tests):
    outcomes = run_classes(fake_tests, "Hanging", "Crashing")
    assert statuses(outcomes) == {
        "Hanging.test_a": PASSED,
        "Hanging.test_b": HUNG,
        "Hanging.test_c": FAILED,
        "Crashing.test_a": PASSED,
        "Crashing.test_b": CRASHED,
        "Crashing.test_c": PASSED,
    }
    hung, crashed = outcomes["Hanging.test_b"].detail, outcomes["Crashing.test_b"].detail
    assert hung.startswith("[alone: hung]")
    assert "in test_b" in hung
    assert crashed.startswith("[alone: crashed]")
    assert "Segmentation fault" in crashed


def test_bad_exit_is_a_failure_of_its_class(fake_tests):
    outcomes = run_classes(fake_tests, "CrashAtExit")
    assert statuses(outcomes) == {
        "CrashAtExit.test_a": PASSED,
        "CrashAtExit.(process exit)": CRASHED,
    }


def test_expected_failures_run_apart(fake_tests):
    listed = frozenset({TestId("mixed", "Hanging", "test_b")})
    outcomes = run_classes(fake_tests, "Hanging", expected_to_fail=listed)
    assert statuses(outcomes)["Hanging.test_b"] == HUNG
    assert "alone" not in outcomes["Hanging.test_c"].detail


def test_loop_is_swapped_under_every_name(fake_tests):
    subject = Subject("other_loop:OtherLoop", fake_tests.packages, fake_tests.path)
    outcomes = run_classes(subject, "Swapped")
    assert set(statuses(outcomes).values()) == {PASSED}, outcomes


def test_control_is_kept_and_knows_unsteady_tests(fake_tests, tmp_path):
    mark = tmp_path / "mark"
    source = f"""
        import os, unittest

        class Unsteady(unittest.TestCase):
            def test_passes_the_second_time(self):
                if not os.path.exists({str(mark)!r}):
                    open({str(mark)!r}, "w").close()
                    self.fail()
    """
    (tmp_path / "fake_tests" / "unsteady.py").write_text(textwrap.dedent(source))
    classes = [
        cases.TestClass("unsteady", "Unsteady", ["test_passes_the_second_time"]),
        cases.TestClass("mixed", "Mixed", ["test_fails", "test_passes"]),
    ]
    control = Control.load(fake_tests.packages, tmp_path / "cache")
    assert control.missing(classes) == classes
    control.measure(classes, fake_tests, 2, lambda text: None)
    again = Control.load(fake_tests.packages, tmp_path / "cache")
    assert again.missing(classes) == []
    assert {test.test: status for test, status in again.statuses.items()} == {
        "test_passes_the_second_time": FLAKY,
        "test_fails": FAILED,
        "test_passes": PASSED,
    }
    again._path.write_text(again._path.read_text().replace(again._key, "another interpreter"))
    assert Control.load(fake_tests.packages, tmp_path / "cache").missing(classes) == classes


def test_without_a_control_stock_asyncio_runs_what_did_not_pass(fake_tests, tmp_path):
    ids = {
        name: TestId("mixed", "Mixed", name) for name in ("test_fails", "test_passes", "test_skips")
    }
    skipped_there = TestId("mixed", "Crashing", "test_a")
    outcomes = {
        ids["test_fails"]: Outcome(FAILED),
        ids["test_passes"]: Outcome(FAILED),
        ids["test_skips"]: Outcome(SKIPPED),
        skipped_there: Outcome(SKIPPED),
    }
    control = Control.load(fake_tests.packages, tmp_path / "cache")
    control.assume(outcomes, {}, fake_tests, 2, lambda text: None)
    assert control.statuses == {
        ids["test_fails"]: FAILED,
        ids["test_passes"]: PASSED,
        ids["test_skips"]: SKIPPED,
        skipped_there: PASSED,
    }
    failed = verdict.judge(outcomes, control, {}).failed
    assert failed == [skipped_there, ids["test_passes"]]


class KnownControl:
    def __init__(self, statuses):
        self.statuses = statuses

    def counts(self, test):
        return self.statuses.get(test) == PASSED


def test_verdict():
    names = ("good", "bad", "stock_fails", "internal", "needless", "skips")
    ids = {name: TestId("m", "C", f"test_{name}") for name in names}
    bad_exit = TestId("m", "C", cases.PROCESS_EXIT)
    status = dict.fromkeys(names, FAILED) | {"good": PASSED, "needless": PASSED}
    status["skips"] = SKIPPED
    outcomes = {ids[name]: Outcome(status[name]) for name in names} | {bad_exit: Outcome(CRASHED)}
    control = dict.fromkeys(ids.values(), PASSED) | {ids["stock_fails"]: FAILED}
    listed = {ids["internal"]: None, ids["needless"]: None}
    result = verdict.judge(outcomes, KnownControl(control), listed)
    assert result.passed == [ids["good"]]
    assert result.failed == [bad_exit, ids["bad"], ids["skips"]]
    assert result.not_counted == [ids["stock_fails"]]
    assert result.needless == [ids["needless"]]
    assert result.closing_line == "1 passed, 3 failed, 2 skipped"
    assert verdict.module_table(result)[-1].split() == ["all", "6", "1", "3", "2", "1"]
    json.dumps(verdict.as_json(result, outcomes, {"loop": "oxloop"}))


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("all", cases.VERSIONS),
        ("3.13", ("3.13",)),
        ("3.14+", ("3.14", "3.15")),
        ("3.11-3.12, 3.14", ("3.11", "3.12", "3.14")),
    ],
)
def test_versions(text, versions):
    assert cases.parse_versions(text) == set(versions)


@pytest.mark.parametrize("text", ["", "3", "3.9", "3.14-3.11", "3.11-", "latest"])
def test_bad_versions(text):
    with pytest.raises(ValueError, match="versions"):
        cases.parse_versions(text)


@pytest.mark.parametrize(
    "line",
    [
        "test_events.Tests.test_a | all",
        "test_events | all | no class",
        "test_events.Tests.test_* | all | not one test",
        "test_events.Tests.test_a | 2.7 | no such version",
        "test_events.Tests.test_a | all |",
    ],
)
def test_bad_lines(line):
    with pytest.raises(expectations.ListError, match=r"white_box\.txt:2"):
        expectations.Listing("white_box.txt", f"# heading\n{line}\n")


def test_entries_match_tests():
    text = "m.{A,B}.test_x | all | why\nm.C.* | all | why\nm.D.test_y | all | why\n"
    entries = expectations.Listing("white_box.txt", text).for_version("3.11")
    a, b, c = TestId("m", "A", "test_x"), TestId("m", "B", "test_y"), TestId("m", "C", "test_z")
    matched, unused = expectations.match_tests(entries, [a, b, c])
    assert sorted(matched) == [a, c]
    assert [str(entry.id) for entry in unused] == ["m.B.test_x", "m.D.test_y"]


def test_the_list_can_be_read():
    for entry in expectations.Listing.load().entries:
        assert entry.reason, entry
