"""Runs in a process of its own: lists the tests of some modules, or runs tests of one class.

The only argument is a JSON file that says what to do. What happens is appended to the file
`events`, one JSON object a line, opened anew for each so that a test which forks, closes file
descriptors or kills the process cannot spoil it.
"""

import importlib
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
import unittest
from pathlib import Path

DETAIL_LIMIT = 6000


class EventFile:
    def __init__(self, path):
        self._path = path

    def write(self, **event):
        line = json.dumps(event) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)


class StreamedResult(unittest.TestResult):
    """Reports each test when it starts and when it ends."""

    def __init__(self, events):
        super().__init__()
        self._events = events
        self._running = None
        self._outcome = None
        self._detail = ""
        self._started = 0.0

    def startTest(self, test):
        super().startTest(test)
        self._running, self._outcome, self._detail = test, None, ""
        self._started = time.monotonic()
        self._events.write(event="start", test=test._testMethodName)

    def stopTest(self, test):
        super().stopTest(test)
        seconds = time.monotonic() - self._started
        self._events.write(
            event="end",
            test=test._testMethodName,
            outcome=self._outcome or "failed",
            detail=self._detail or ("" if self._outcome else "no outcome was reported"),
            seconds=round(seconds, 3),
        )

    def addSuccess(self, test):
        self._outcome = self._outcome or "passed"

    def addExpectedFailure(self, test, err):
        self._outcome = self._outcome or "passed"

    def addUnexpectedSuccess(self, test):
        self._fail("unexpected success")

    def addFailure(self, test, err):
        self._record(test, err)

    def addError(self, test, err):
        self._record(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._fail(f"{subtest}\n{self._text(err)}")

    def addSkip(self, test, reason):
        if not isinstance(test, unittest.TestCase):
            self._events.write(event="fixture", outcome="skipped", detail=reason)
        elif test is self._running:
            self._outcome = self._outcome or "skipped"
            self._detail = self._detail or reason
        else:
            # A skipped subtest: unittest then reports no success of the test as a whole.
            self._outcome = self._outcome or "passed"

    def _record(self, test, err):
        if isinstance(test, unittest.TestCase):
            self._fail(self._text(err))
        else:
            # A failed setUpClass or setUpModule: none of its tests will start.
            self._events.write(event="fixture", outcome="failed", detail=self._text(err))

    def _fail(self, detail):
        self._outcome = "failed"
        self._detail = (self._detail + "\n" + detail).strip()[-DETAIL_LIMIT:]

    @staticmethod
    def _text(err):
        return "".join(traceback.format_exception(*err))[-DETAIL_LIMIT:]


def import_test_module(name, packages):
    """Import `name` from the first package that has it; None where this Python has none."""
    for package in packages:
        full_name = f"{package}.{name}" if package else name
        try:
            spec = importlib.util.find_spec(full_name)
        except ModuleNotFoundError:
            continue
        if spec is not None:
            return importlib.import_module(full_name)
    return None


def own_classes(module):
    """The test classes that `module` defines itself, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, unittest.TestCase)
        and value.__module__ == module.__name__
    }


def list_tests(job, events):
    for name in job["modules"]:
        try:
            module = import_test_module(name, job["packages"])
        except unittest.SkipTest:
            module = None
        if module is None:
            continue
        classes = {
            class_name: tests
            for class_name, cls in own_classes(module).items()
            if (tests := unittest.defaultTestLoader.getTestCaseNames(cls))
        }
        events.write(event="module", module=name, classes=classes)


def run_tests(job, events):
    module = import_test_module(job["module"], job["packages"])
    cls = getattr(module, job["class"])
    suite = unittest.TestSuite(cls(test) for test in job["tests"])
    suite.run(StreamedResult(events))


def main():
    # A shell's background job ignores SIGINT, and so would everything that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    # Imported here: multiprocessing imports this file in its children, without its directory.
    import swap

    # That directory must not lend its modules to the tests.
    sys.path[:1] = job["path"]
    events = EventFile(Path(job["events"]))
    swap.swap_loop(job["loop"])
    if job["loop"] != swap.STOCK and (utils := import_test_module("utils", job["packages"])):
        swap.spare_private_executor(utils.TestCase)
    os.chdir(job["directory"])
    if "modules" in job:
        list_tests(job, events)
    else:
        run_tests(job, events)
    events.write(event="done")


if __name__ == "__main__":
    main()
